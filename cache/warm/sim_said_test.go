package warm

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// said is what a node answered last of a name and a digest.
type said struct {
	digest digest.Digest
	// forbids says why the digest must not be pushed to it, or "".
	forbids  string
	conflict bool
}

// unknown reports whether a node that lacks an image cannot say how much of it. It knows that of every other one.
func unknown(d digest.Digest) bool { return d[len(d)-1]%2 == 0 }

// hears notes what a node says to a question of a moment. What was asked before a push to it has ended says nothing about what that left.
func (c *checker) hears(w *world, q *Query, a Answer, asked time.Duration) {
	for i, image := range q.Images {
		pc, h := c.pair(image.Name, q.Node), a.Images[i]
		if w.pushes[pc.push] != nil || pc.ended >= asked && pc.ended > 0 {
			continue
		}
		now := said{digest: image.Digest, conflict: h.Conflict != ""}
		switch {
		case now.conflict:
			now.forbids = "it " + h.Conflict
		case h.Lacks > a.Room:
			now.forbids = fmt.Sprintf("it lacks %d and has room for %d", h.Lacks, a.Room)
		case h.Lacks != 0 && w.size[image.Digest] > a.Most:
			now.forbids = fmt.Sprintf("it may have %d", a.Most)
		}
		if pc.said.conflict && !now.conflict && pc.conflict {
			pc.failed = 0 // The name is free again.
		}
		pc.said = now
	}
}
