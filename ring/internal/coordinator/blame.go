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
type blame struct {
	banned  bool   // bytes were changed on a link it fed: it feeds nobody
	links   int    // blamed links it was an end of
	falls   int    // times it fell back
	damage  string // what it said of the last damaged frame; its feeder sees only a broken pipe
	suspect *suspicion
	fell    struct { // when it fell back last: what it had sent on older links behind blob, good
		link uint32
		blob int
		good int64
	}
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

// fall is for a node that fell back to good bytes of a blob, when links up to link were ordered. It says
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
