package coordinator

import "time"

// maxFalls is how often a node may fall back, maxBlames how many blamed links it
// may be an end of before it fails.
const (
	maxFalls  = 5
	maxBlames = 2
	// maxUnclear is how often it falls back before only the server may feed it, when
	// nobody can be blamed: a link that breaks after each lie must not go on for ever.
	maxUnclear = 3
)

// blame is what is held against a node because bytes were not as the source has them.
//
// suspect is set from a FALLBACK until its link is judged. links and falls only grow.
type blame struct {
	// banned says that a link that it fed changed bytes: it feeds nobody any more.
	banned bool
	// links counts the links that changed bytes and that it was an end of.
	links int
	// falls counts how often it fell back.
	falls int
	// damage is what it said of the last damaged frame. Its feeder sees only that the link broke.
	damage  string
	suspect *suspicion
	fell    lastFall
}

// lastFall says that a node that fell back had good bytes of blob below good, and that what it has sent on links
// up to link is in doubt above that.
type lastFall struct {
	link uint32
	blob int
	good int64
}

// suspicion is a FALLBACK whose link is not yet judged.
type suspicion struct {
	feeder int
	link   string
	id     uint32 // of the link
	blob   int
	off    int64 // of the mark that differs
	since  time.Duration
}

// fall notes that the node fell back to good bytes of a blob, when links up to link were ordered. It says
// whether that was once too often.
func (b *blame) fall(link uint32, blob int, good int64) (tooOften bool) {
	b.fell.link, b.fell.blob, b.fell.good = link, blob, good
	b.falls++
	return b.falls > maxFalls
}

// unclear says whether the node fell back so often that only the server may feed it, where nobody can
// be blamed.
func (b *blame) unclear() bool { return b.falls >= maxUnclear }

// saw keeps what the node says of a damaged frame; "": it got further since.
func (b *blame) saw(damage string) { b.damage = damage }

func (b *blame) suspects(s *suspicion) { b.suspect = s }

func (b *blame) unsuspect() { b.suspect = nil }

// hold holds a link against the node, which was an end of it.
func (b *blame) hold() { b.links++ }

// often says whether too many links are held against the node.
func (b *blame) often() bool { return b.links >= maxBlames }

func (b *blame) ban() { b.banned = true }
