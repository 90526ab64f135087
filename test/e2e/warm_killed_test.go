package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/testimage"
)

// One node has so slow a link that all others have such an image long before it.
const (
	killedRate  = 6_000_000 // bits per second
	killedSize  = 2 << 20
	killedParts = 6 // layers: a node keeps those that it has whole

	killedFor = killedSize * 8 * time.Second / killedRate // and a moment
)

// killedImage is an image of which all layers are of this version.
func killedImage(version int) testimage.Options {
	return testimage.Options{Layers: killedParts, Size: killedSize + int64(killedParts*16*version)}
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

// received is how many bytes each node has received, headers included, by the counters of its interface.
func (w *warmRig) received() map[*node]int64 {
	w.t.Helper()
	got := map[*node]int64{}
	for _, n := range w.nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", n.daemon.Pid()))
		if err != nil {
			w.t.Fatal(err)
		}
		_, counters, _ := strings.Cut(string(text), "eth0:")
		if got[n], err = strconv.ParseInt(strings.Fields(counters)[0], 10, 64); err != nil {
			w.t.Fatal(err)
		}
	}
	return got
}

// moment waits, once a ring runs, for one of the moments of killed. The first one is when some nodes have committed, and others have not; the rest are
// spread over the time that such a ring takes.
func (w *warmRig) moment(i int, d digest.Digest) {
	w.t.Helper()
	if i == 0 {
		eventually(w.t, time.Minute, "a node has committed", func() (bool, string) { return len(w.committed(d)) > 0, "" })
		return
	}
	select { // the moment itself, not a state that is waited for
	case <-time.After(killedFor * time.Duration(i) / time.Duration(*warmKills)):
	case <-w.ctx.Done():
	}
}

// killed kills the controller at moments of the ring of a tag that has moved. Those who have committed get nothing again, and the others, of which the slow
// node is in the middle of it, get only what they lack.
func (w *warmRig) killed(want map[string]digest.Digest) {
	w.t.Helper()
	slow := w.nodes[len(w.nodes)-1]
	if err := slow.Shape(w.ctx, killedRate); err != nil {
		w.t.Fatal(err)
	}
	old := want["a"]
	want["a"] = w.fill("a", 10, smallImage) // in the same round
	for i := range *warmKills {
		begun := w.received()
		d := w.fill("b", 20+i, killedImage(20+i))
		want["b"] = d
		if _, err := w.controller.Line(w.ctx, "msg=push ref="+w.ref("b")+" digest="+d.String()); err != nil {
			w.t.Fatal(err)
		}
		w.moment(i, d)
		w.controller.Kill()
		done := w.committed(d)
		had, transfers := w.received(), accepted(done, "b")
		w.begin()
		w.warm(fmt.Sprintf("killed at moment %d, when %d nodes had committed", i, len(done)), time.Minute, want)
		if again := accepted(done, "b") - transfers; again != 0 {
			w.t.Errorf("moment %d: %d transfers to nodes that had committed\n%s", i, again, w.controller.Output())
		}
		got := w.received()
		for _, n := range done {
			if more := got[n] - had[n]; more > killedSize/4 {
				w.t.Errorf("moment %d: %s had committed, and got %d bytes more", i, n.Name, more)
			}
		}
		for _, n := range w.nodes {
			if all := got[n] - begun[n]; all < killedSize || all > killedSize*3/2 {
				w.t.Errorf("moment %d: %s got %d bytes of an image of %d: not only what it lacked", i, n.Name, all, killedSize)
			}
		}
		if i == 0 && (len(done) == 0 || len(done) == len(w.nodes)) {
			w.t.Errorf("%d nodes had committed: the moment is badly chosen", len(done))
		}
	}
	code, out := w.run(w.net.Server, "status", "--keys", w.keys, "--nodes", w.rig.list(), old.String())
	if code != 0 || !strings.Contains(out, "12 of 12 warm") {
		w.t.Errorf("the older digest: %d\n%s", code, out)
	}
	if err := slow.Shape(w.ctx, 10e9); err != nil {
		w.t.Fatal(err)
	}
	w.controller.Kill()
}
