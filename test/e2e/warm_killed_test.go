package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/testimage"
)

// One node has so slow a link that all others have such an image long before it.
const (
	killedRate  = 6e6 // bits per second
	killedSize  = 2 << 20
	killedParts = 6 // layers: a node keeps those that it has whole
)

// killedImage is an image of which all layers are of this version.
func killedImage(version int) testimage.Options {
	return testimage.Options{Layers: killedParts, Size: killedSize + int64(killedParts*16*version)}
}

// pushedFor returns how long the ring of a digest took, by the log of the controller.
func (w *warmRig) pushedFor(d digest.Digest) time.Duration {
	w.t.Helper()
	var at []time.Time
	for _, msg := range []string{"push", "pushed"} {
		line, err := w.controller.Line(w.ctx, "msg="+msg+" ref="+w.ref("a")+" digest="+d.String())
		if err != nil {
			w.t.Fatal(err)
		}
		when, err := time.Parse(time.RFC3339Nano, regexp.MustCompile(`time=(\S+)`).FindStringSubmatch(line)[1])
		if err != nil {
			w.t.Fatal(err)
		}
		at = append(at, when)
	}
	return at[1].Sub(at[0])
}

// committed are the nodes whose caches have a name for a digest.
func (w *warmRig) committed(d digest.Digest) (nodes []*node) {
	w.t.Helper()
	for _, n := range w.nodes {
		index, err := os.ReadFile(filepath.Join(n.cache, "index.json"))
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.Contains(string(index), d.String()) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (w *warmRig) received(n *node) int64 {
	w.t.Helper()
	t, err := n.Traffic(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Received
}

// killed kills the controller at moments of the ring of a tag that has moved. Those who have committed get nothing again, and the slow node, which is in the
// middle of it, gets only what it lacks.
func (w *warmRig) killed(want map[string]digest.Digest, slow *node) {
	w.t.Helper()
	whole, early := w.pushedFor(want["a"]), 0
	for i := range *warmKills {
		begun := w.received(slow)
		d := w.fill("b", 20+i, killedImage(20+i))
		want["b"] = d
		if _, err := w.controller.Line(w.ctx, "msg=push ref="+w.ref("b")+" digest="+d.String()); err != nil {
			w.t.Fatal(err)
		}
		select { // the moment itself, not a state that is waited for
		case <-time.After(whole * time.Duration(2*i+1) / time.Duration(2**warmKills)):
		case <-w.ctx.Done():
		}
		w.controller.Kill()
		done := w.committed(d)
		had, transfers := make([]int64, len(done)), accepted(done)
		for k, n := range done {
			had[k] = w.received(n)
		}
		w.begin()
		w.warm(fmt.Sprintf("killed at moment %d of %v, when %d nodes had committed", i, whole.Round(time.Second/10), len(done)), time.Minute, want)
		if again := accepted(done) - transfers; again != 0 {
			w.t.Errorf("moment %d: %d transfers to nodes that had committed\n%s", i, again, w.controller.Output())
		}
		for k, n := range done {
			if more := w.received(n) - had[k]; more > killedSize/4 {
				w.t.Errorf("moment %d: %s had committed, and got %d bytes more", i, n.Name, more)
			}
		}
		got := w.received(slow) - begun
		if got > killedSize*3/2 {
			w.t.Errorf("moment %d: %s got %d bytes of an image of %d: not only what it lacked", i, slow.Name, got, killedSize)
		}
		if len(done) > 0 && len(done) < len(w.nodes) {
			early++
		}
		w.t.Logf("%s got %d bytes", slow.Name, got)
	}
	if *warmKills > 1 && early == 0 {
		w.t.Errorf("the moments are badly chosen: at none some nodes had committed, and others had not")
	}
	if err := slow.Shape(w.ctx, 10e9); err != nil {
		w.t.Fatal(err)
	}
	w.controller.Kill()
}
