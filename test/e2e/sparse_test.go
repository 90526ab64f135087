package e2e

import (
	"crypto/rand"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A sparse file is as sparse on the nodes, also where zeros are stored in it, over links that carry only what is data. The
// second time each node has a file without holes in its place.
func TestSparseFile(t *testing.T) {
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	r.start()
	const size, run = 256<<20 + 4097, 700_000
	sent := r.dir + "/sparse"
	f, err := os.Create(sent)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, run)
	for off := int64(1 << 20); off < size-run; off += 37<<20 + 1 {
		rand.Read(b)
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteAt(make([]byte, 20<<20), 70<<20); err != nil { // zeros that are stored
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for i, data := range []string{"tls", "plain"} {
		before, err := r.net.Server.Traffic(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r.want(r.push("raw", "--input", sent, "--output", r.data+"/file", "--data", data), 0, "committed")
		after, err := r.net.Server.Traffic(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if sent := after.Sent - before.Sent; sent > 14<<20 {
			t.Errorf("%s: the server sent %d bytes", data, sent)
		}
		r.same(sent, "file", r.nodes...)
		for _, n := range r.nodes {
			info, err := os.Stat(n.path("file"))
			if err != nil {
				t.Fatal(err)
			}
			if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 14<<20 {
				t.Errorf("%s: %d bytes are stored on %s", data, used, n.name())
			}
			if i == 0 {
				makeFile(t, n.path("file"), size)
			}
		}
	}
}
