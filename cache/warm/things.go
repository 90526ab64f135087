package warm

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// A group is one of the list, with its nodes as they were last read.
type group struct {
	Group
	names   []string
	reading bool
	awaited int // serial of the phase that waits for it
	stale   notice
}

// An entry is one of the list, with what it was last found to be.
type entry struct {
	Image
	platforms []string
	tags      []*tag
	looking   bool
	began     time.Duration // the last lookup
	doubtful  bool          // it is known from an earlier time, or may have been, and is about to be asked for
	added     time.Duration
	next      time.Duration // when it is asked for again
	fails     int
	stale     notice
	found     time.Time
}

func (e *entry) tag(ref string) *tag {
	for _, t := range e.tags {
		if t.ref == ref {
			return t
		}
	}
	return nil
}

// A tag is one Ref of an entry.
type tag struct {
	ref      string
	list     digest.Digest
	variants []*variant
	asked    []string // platforms that it was asked for, also those that there is no image of
	again    bool     // the names of its images are to be found again
	stale    notice   // why this one could not be looked up, though others of the entry could
}

func (t *tag) variant(platform string) *variant {
	for _, v := range t.variants {
		if v.Platform == platform {
			return v
		}
	}
	return nil
}

// covers reports whether it is known for each platform whether there is an image.
func (t *tag) covers(platforms []string) bool {
	return !slices.ContainsFunc(platforms, func(p string) bool { return !slices.Contains(t.asked, p) })
}

// A variant is the image of a tag for one platform: what is pushed.
type variant struct {
	Found
	entry *entry
	ref   string
	older []digest.Digest // newest first
	pairs []*pair
	// left are the nodes that it is listed for and that do not get it.
	left []leftOut
	// fails counts failures of the source in a row.
	fails int
	next  time.Duration
	why   string
	warm  time.Time // when it last was
	// lastID is that of its last push. Of the same priority the one goes first that was not pushed for longest.
	lastID int
}

// take notes what it was found to be. Its nodes know it by its name.
func (v *variant) take(f Found) {
	for _, p := range v.pairs {
		if p.node.named[v.Name] == p {
			delete(p.node.named, v.Name)
		}
	}
	v.Found = f
	for _, p := range v.pairs {
		if p.node.named[v.Name] == nil {
			p.node.named[v.Name] = p
		}
	}
}

// leftOut is a node that does not get a variant, and why, in words that follow its name.
type leftOut struct{ name, why string }

// enough reports whether so many nodes are as many as are to be warm.
func (v *variant) enough(warm int) bool {
	listed := len(v.pairs) + len(v.left)
	return listed > 0 && v.entry.Min.Of(warm, listed)
}

// count returns how many nodes are warm, and how many of the others could be: they answer, or were not asked yet, and have
// no failure of their own.
func (v *variant) count() (warm, open int) {
	for _, p := range v.pairs {
		switch {
		case p.holds():
			warm++
		case p.node.away.why == "" && p.fails == 0 && p.conflict == "" && p.short() == "":
			open++
		}
	}
	return warm, open
}

// A node is one that is listed.
type node struct {
	name    string
	entries []*entry
	pairs   []*pair
	query   *Query // that it has not answered
	awaited int    // serial of the phase that waits for the answer
	asked   time.Duration
	// doubtful says that it was away when it was asked.
	doubtful bool
	answers  bool          // the last query was answered
	met      bool          // it said what its names lead to, since it was last away
	since    time.Duration // when it began to answer
	away     notice        // why it does not tell what it holds
	refuses  bool          // it answers nevertheless, or cannot be asked for a failure here
	losses   int           // without steadyAfter between them
	due      time.Duration
	room     int64
	wanted   int64  // bytes that it keeps because somebody wants them
	most     int64  // that its cache may have, or 0
	wished   []Wish // that it has confirmed
	told     bool   // it confirmed some once: it has none of an earlier controller
	named    map[string]*pair
	before   map[string]*pair // named before a rebuild
}

// unheard returns what a node is that does not tell what it holds.
func (n *node) unheard() NodeState {
	if n.refuses {
		return NodeFailed
	}
	return NodeAway
}

func (n *node) flaps() bool { return n.losses > flapsAfter }

func (n *node) pair(name string) *pair { return n.named[name] }

// A pair is a node and what it is to hold.
type pair struct {
	node *node
	v    *variant
	// asked is the digest that lacks, named and conflict are about, which are what the last answer said.
	asked    digest.Digest
	lacks    int64
	named    digest.Digest
	conflict string
	wished   digest.Digest // the node has the wish for it
	// committed is what a push has committed and no answer has confirmed yet. unheld counts answers in a row that did not.
	committed digest.Digest
	unheld    int
	push      *push         // that runs
	ended     time.Duration // when the last one did
	// fails counts failures in a row, and the rest is of the last one.
	fails   int
	next    time.Duration
	outcome Outcome
	why     string
	needs   int64
	room    int64 // that the node had then, or less if it had less since
}

// holds reports whether the node said that it is warm.
func (p *pair) holds() bool { return p.asked == p.v.Digest && p.lacks == 0 && p.named == p.v.Digest }

// forgive forgets failures.
func (p *pair) forgive() { p.fails, p.next, p.why, p.needs, p.room = 0, 0, "", 0, 0 }

// fail notes what became of a push.
func (p *pair) fail(r Row, now time.Duration, retry Retry) {
	p.fails++
	p.next = now + retry.After(p.fails)
	p.outcome, p.why, p.needs, p.room = r.Outcome, r.Why, r.Needs, p.node.room
}

// short says what there is no room for, if the last answer proves that, or "".
func (p *pair) short() string {
	n := p.node
	switch {
	case p.asked != p.v.Digest || p.lacks == 0:
	case n.most > 0 && p.v.Bytes > n.most:
		return fmt.Sprintf("needs %s, and its cache may have %s", bytesize.Text(p.v.Bytes), bytesize.Text(n.most))
	case n.room >= 0 && p.lacks > n.room && n.wanted > 0:
		return fmt.Sprintf("needs %s, and has room for %s; wanted images hold %s", bytesize.Text(p.lacks), bytesize.Text(n.room), bytesize.Text(n.wanted))
	case n.room >= 0 && p.lacks > n.room:
		return fmt.Sprintf("needs %s, and has room for %s", bytesize.Text(p.lacks), bytesize.Text(n.room))
	}
	return ""
}

// fits reports whether a node may have the room: its answer does not prove that it has none, and if it was full, it has more since.
func (p *pair) fits() bool {
	if p.short() != "" {
		return false
	}
	if p.fails == 0 || p.outcome != Full || p.node.room < 0 {
		return true
	}
	return p.node.room > p.room && (p.lacks > 0 || p.node.room >= p.needs)
}

// foreign reports whether the name belongs to another owner, as the last answer says, or a push that was refused since.
func (p *pair) foreign() bool { return p.conflict != "" || p.fails > 0 && p.outcome == Conflict }

// lacking reports whether the node can be pushed to now.
func (p *pair) lacking(now time.Duration) bool {
	return p.asked == p.v.Digest && !p.holds() && p.wished == p.v.Digest && p.push == nil && p.conflict == "" &&
		p.node.away.why == "" && p.next <= now && p.fits()
}

// wishes returns what a node is asked not to evict: what it is to hold, what its names lead to until it holds the new one, and
// what is kept of older ones. What a name of another owner leads to is not this one's to keep. If these are too many, the last are left out.
func (m *Machine) wishes(n *node) []Wish {
	list := make([]Wish, 0, len(n.pairs)+2)
	for _, p := range n.pairs {
		list = append(list, p.wish(p.v.Digest))
	}
	for _, p := range n.pairs {
		if p.named != "" && p.named != p.v.Digest && !p.foreign() {
			list = append(list, p.wish(p.named))
		}
	}
	for _, p := range n.pairs {
		// More than that, of a tag that moved again before all had the last digest, might leave no room for the newest.
		for _, d := range p.v.older[:min(len(p.v.older), max(1, p.v.entry.Keep-1))] {
			if d != p.named || p.foreign() {
				list = append(list, p.wish(d))
			}
		}
	}
	return list[:min(len(list), mostWishes)]
}

// canWish reports whether so much is known of a node that wishes may replace those that it has, and what its names lead to stays wanted.
func (m *Machine) canWish(n *node) bool {
	return n.met && m.known(n.entries, n.wanted > 0 && !n.told) && !slices.ContainsFunc(n.pairs, func(p *pair) bool { return p.asked == "" && p.push == nil })
}

// unwished reports whether a node that answers has not confirmed the wishes that it is to have.
func (m *Machine) unwished(n *node) bool {
	return m.canWish(n) && !slices.Equal(m.wishes(n), n.wished)
}

func (p *pair) wish(d digest.Digest) Wish {
	return Wish{p.v.Name, d, p.v.entry.Pin, p.v.entry.Keep}
}

// ownWishes are those for the cache of the controller.
func (m *Machine) ownWishes() (list []Wish) {
	seen := map[Question]bool{} // Platforms may be the same in other words.
	for _, v := range m.variants {
		for _, d := range append([]digest.Digest{v.Digest}, v.older...) {
			if q := (Question{v.Name, d}); !seen[q] {
				seen[q] = true
				list = append(list, Wish{v.Name, d, v.entry.Pin, v.entry.Keep})
			}
		}
	}
	return list
}
