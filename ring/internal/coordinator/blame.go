package coordinator

import "time"

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
