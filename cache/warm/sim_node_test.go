package warm

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// simNode is a node of the simulation with its cache.
type simNode struct {
	name     string
	up       bool
	changed  time.Duration // when it last went up or down, or was wiped
	wiped    time.Duration
	moved    time.Duration // when another than the controller last moved a name, or forbade it to
	outages  []time.Duration
	flapping bool
	broken   bool // pushes to it fail
	cap      int64
	blobs    map[digest.Digest]simBlob
	names    map[string]digest.Digest
	owners   map[string]string          // warmers, of names
	wished   map[digest.Digest][]string // by whom
	under    map[string][]string        // names that each warmer wishes something under
	foreign  map[string]bool            // names of a warmer that is not simulated
	grew     time.Duration              // when it last had more room
}

type simBlob struct {
	bytes int64
	used  time.Duration
	pin   bool // a wish of the owner local
}

func newSimNode(name string) *simNode {
	return &simNode{name: name, up: true, cap: 70e9, blobs: map[digest.Digest]simBlob{}, names: map[string]digest.Digest{},
		owners: map[string]string{}, wished: map[digest.Digest][]string{}, under: map[string][]string{}, foreign: map[string]bool{}}
}

func (n *simNode) room() int64 { return max(0, n.cap-n.wanted()) }

// wanted is how many bytes stay because somebody wants them.
func (n *simNode) wanted() (bytes int64) {
	for d, b := range n.blobs {
		if b.pin || n.wished[d] != nil {
			bytes += b.bytes
		}
	}
	return bytes
}

// wish replaces what a warmer wishes.
func (n *simNode) wish(owner string, wishes []Wish) {
	for d, by := range n.wished {
		if by = slices.DeleteFunc(by, func(o string) bool { return o == owner }); len(by) == 0 {
			delete(n.wished, d)
		} else {
			n.wished[d] = by
		}
	}
	n.under[owner] = nil
	for _, w := range wishes {
		if !slices.Contains(n.wished[w.Digest], owner) {
			n.wished[w.Digest] = append(n.wished[w.Digest], owner)
		}
		n.under[owner] = append(n.under[owner], w.Name)
	}
}

// conflict says whom a name belongs to, if owner must not move it to d: it is of a warmer that wishes something under it.
func (n *simNode) conflict(owner, name string, d digest.Digest) string {
	by := n.owners[name]
	switch {
	case n.foreign[name]:
		return "belongs to another warmer"
	case by == "" || by == owner || n.names[name] == d || !slices.Contains(n.under[by], name):
		return ""
	}
	return "belongs to " + by
}

// store makes room as a cache does, least recently used first, and takes a blob.
func (n *simNode) store(w *world, d digest.Digest, bytes int64) (needs int64, ok bool) {
	if _, held := n.blobs[d]; held {
		return 0, true
	}
	used := bytes
	var others []digest.Digest
	for d, b := range n.blobs {
		used += b.bytes
		if !b.pin && n.wished[d] == nil {
			others = append(others, d)
		}
	}
	slices.SortFunc(others, func(a, b digest.Digest) int {
		return cmp.Or(cmp.Compare(n.blobs[a].used, n.blobs[b].used), cmp.Compare(a, b))
	})
	for used > n.cap && len(others) > 0 {
		used -= n.blobs[others[0]].bytes
		for _, w := range w.controllers {
			w.check.evicted(w, n, others[0])
		}
		n.evict(others[0])
		others = others[1:]
	}
	if used > n.cap {
		return bytes, false
	}
	n.blobs[d] = simBlob{bytes: bytes, used: w.now}
	return 0, true
}

func (n *simNode) evict(d digest.Digest) {
	delete(n.blobs, d)
	for name, to := range n.names {
		if to == d {
			delete(n.names, name)
		}
	}
}

// holds reports whether a node is warm, whoever asks.
func (n *simNode) holds(name string, d digest.Digest) bool {
	_, held := n.blobs[d]
	return held && n.names[name] == d
}
