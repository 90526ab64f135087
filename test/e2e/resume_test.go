package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A push that was cut off leaves parts, and the same push again moves only what is
// missing: whoever went down, and also where the digest is not known before the end.
func TestResume(t *testing.T) {
	const size = 120 << 20
	interrupt := func(_ *rig, p *push) { p.process.Signal(os.Interrupt); p.wait() }
	for _, c := range []struct {
		name   string
		args   []string // "-" stands for standard input
		break_ func(r *rig, p *push)
		extra  int64 // bytes that may move again
	}{
		{"interrupt, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, interrupt, 0},
		{"interrupt, standard input", []string{"raw", "--input", "-", "--output", "OUT"}, interrupt, 0},
		{"interrupt, SIF in the cache", []string{"push", "FILE"}, interrupt, 0},
		{"server killed, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, func(r *rig, p *push) {
			p.process.Signal(syscall.SIGKILL)
			p.wait()
		}, 0},
		{"server killed, SIF in the cache", []string{"push", "FILE"}, func(r *rig, p *push) {
			p.process.Signal(syscall.SIGKILL)
			p.wait()
		}, 0},
		{"server's power lost, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, func(r *rig, p *push) {
			// Nobody tells the nodes: their control connections stay open.
			if err := r.net.Server.Unplug(r.ctx); err != nil {
				r.t.Fatal(err)
			}
			p.process.Signal(syscall.SIGKILL)
			p.process.Wait(r.ctx)
			if err := r.net.Server.Plug(r.ctx); err != nil {
				r.t.Fatal(err)
			}
		}, 0},
		{"all nodes killed, raw", []string{"raw", "--input", "FILE", "--output", "OUT", "--retries", "0"}, func(r *rig, p *push) {
			for _, n := range r.nodes {
				n.kill()
			}
			p.wait()
			r.start()
		}, 0},
		{"all nodes killed, SIF in the cache", []string{"push", "FILE", "--retries", "0"}, func(r *rig, p *push) {
			for _, n := range r.nodes {
				n.kill()
			}
			p.wait()
			r.start()
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			ctx := need(t, 90*time.Second)
			r := newRig(t, ctx, netns.Config{Nodes: 3})
			r.start()
			sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
			if c.args[0] == "push" {
				sent = makeSIF(t, "sent.sif", size)
			}
			var args []string
			stdin := false
			for _, a := range c.args {
				switch a {
				case "FILE":
					a = sent
				case "OUT":
					a = r.data + "/file"
				case "-":
					stdin = true
				}
				args = append(args, a)
			}
			start := func(more ...string) *push {
				if !stdin {
					return r.startPush(append(args, more...)...)
				}
				f, err := os.Open(sent)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return r.startPushFrom(f, append(args, more...)...)
			}
			p := start("--rate", "20M", "--json")
			// In the middle: the third progress of one a second.
			for seen := 0; seen < 3; {
				if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
					t.Fatal(err)
				}
				seen = strings.Count(p.process.Output(), `"event":"progress"`)
			}
			c.break_(r, p)
			for _, n := range r.nodes {
				if got := sum(t, n.path("file")); got != "missing" {
					t.Errorf("%s: there is a file %s", n.Name, got)
				}
			}
			res := start().wait()
			r.want(res, 0, "committed")
			if c.args[0] == "raw" {
				r.same(sent, "file", r.nodes...)
			}
			// It stood at 20 to 60 MB, and whole marks of 4 MiB count.
			if res.report != nil {
				for _, row := range res.report.Nodes {
					if row.Bytes > size-20e6+8<<20 || row.Skipped < 12<<20 || row.Bytes+row.Skipped > size*105/100 {
						t.Errorf("row %+v: of %d bytes", row, size)
					}
				}
			}
			if res.sent > size-12e6+size/20 {
				t.Errorf("the server sent %d of %d bytes again", res.sent, size)
			}
			for _, n := range r.nodes {
				n.empty("file")
			}
		})
	}
}
