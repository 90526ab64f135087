package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

func TestRawStream(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	content := make([]byte, 9<<20+7)
	rand.Read(content)
	sent := filepath.Join(r.dir, "sent")
	if err := os.WriteFile(sent, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"tls", "plain"} {
		for _, spool := range []string{"--no-spool=false", "--no-spool"} {
			name := data + spool
			res := r.startPushFrom(bytes.NewReader(content),
				"raw", "--input", "-", "--output", r.data+"/"+name, "--data", data, spool).wait()
			r.want(res, 0, "committed")
			r.same(sent, name, r.nodes...)
			if res.report != nil && res.report.Bytes != int64(len(content)) {
				t.Errorf("report: %d bytes", res.report.Bytes)
			}
		}
	}
}

// Files of awkward sizes arrive over slow links, and in the time the links need: a
// reader that waits for more bytes than there are to come would never end.
func TestSlowLinks(t *testing.T) {
	together(t)
	const rate = 2_000_000 // bits per second
	for _, data := range []string{"tls", "plain"} {
		t.Run(data, func(t *testing.T) {
			together(t)
			ctx := need(t, 2*time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: 3, Rate: rate})
			r.start()
			for _, size := range []int64{1 << 20, 1<<20 + 1, 16<<10 - 1, 16<<10 + 22, 65537, 300_001, 1, 0} {
				name := fmt.Sprint(size)
				sent := makeFile(t, filepath.Join(r.dir, name), size)
				res := r.push("raw", "--input", sent, "--output", r.data+"/"+name, "--data", data)
				r.want(res, 0, "committed")
				r.same(sent, name, r.nodes...)
				// The control star shares the server's link; a frame is 16 KiB, 65 ms, on each hop.
				limit := time.Duration(float64(size*8)/rate*1.15*float64(time.Second)) + 2*time.Second
				if res.took > limit {
					t.Errorf("%d bytes took %v, want at most %v", size, res.took, limit)
				}
			}
		})
	}
}

// Sizes around the frame and the mark, over fast links, into an existing file that is
// longer.
func TestSizes(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	r.start()
	for _, size := range []int64{9 << 20, 8<<20 + 1, 8 << 20, 4<<20 - 1, 1<<20 + 1, 1 << 20, 4096, 1, 0} {
		sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
		res := r.push("raw", "--input", sent, "--output", r.data+"/file")
		r.want(res, 0, "committed")
		r.same(sent, "file", r.nodes...)
	}
	for _, n := range r.nodes {
		n.empty("file")
	}
}
