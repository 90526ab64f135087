package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// resumeSize is how many bytes the pushes have that are cut off: enough to travel in leaves.
const resumeSize = 72 << 20

// resumeCase is a push, and how it is cut off.
type resumeCase struct {
	name string
	args []string // FILE and OUT stand for what is sent and where to, "-" for standard input
	cut  func(r *rig, p *push)
}

func interruptPush(_ *rig, p *push) {
	p.process.Signal(os.Interrupt)
	p.wait()
}

func killServer(_ *rig, p *push) {
	p.process.Signal(syscall.SIGKILL)
	p.wait()
}

// cutServerOff takes the server's power away. Nobody tells the nodes: their control connections stay open.
func cutServerOff(r *rig, p *push) {
	if err := r.net.Server.Unplug(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	p.process.Signal(syscall.SIGKILL)
	p.process.Wait(r.ctx)
	if err := r.net.Server.Plug(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

func killNodes(r *rig, p *push) {
	for _, n := range r.nodes {
		n.kill()
	}
	p.wait()
	r.start()
}

// A push that was cut off leaves parts, and the same push again moves only what is
// missing: whoever went down, and also where the digest is not known before the end.
func TestResume(t *testing.T) {
	together(t)
	for _, c := range []resumeCase{
		{"interrupt, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, interruptPush},
		{"interrupt, standard input", []string{"raw", "--input", "-", "--output", "OUT"}, interruptPush},
		{"interrupt, SIF in the cache", []string{"push", "FILE"}, interruptPush},
		{"server killed, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, killServer},
		{"server killed, SIF in the cache", []string{"push", "FILE"}, killServer},
		{"server's power lost, raw", []string{"raw", "--input", "FILE", "--output", "OUT"}, cutServerOff},
		{"all nodes killed, raw", []string{"raw", "--input", "FILE", "--output", "OUT", "--retries", "0"}, killNodes},
		{"all nodes killed, SIF in the cache", []string{"push", "FILE", "--retries", "0"}, killNodes},
	} {
		t.Run(c.name, func(t *testing.T) {
			together(t)
			c.run(t)
		})
	}
}

// moved is how many bytes every node has, by the last progress that the push told of.
func (p *push) moved() (bytes int64) {
	out := p.process.Output()
	line, _, _ := strings.Cut(out[max(0, strings.LastIndex(out, `"event":"progress"`)):], "\n")
	if _, count, ok := strings.Cut(line, `"bytes":`); ok {
		fmt.Sscan(count, &bytes)
	}
	return bytes
}

// starter returns a function that starts the push of the file sent, with more flags.
func (c resumeCase) starter(r *rig, sent string) func(more ...string) *push {
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
	return func(more ...string) *push {
		if !stdin {
			return r.startPush(append(args, more...)...)
		}
		f, err := os.Open(sent)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { f.Close() })
		return r.startPushFrom(f, append(args, more...)...)
	}
}

// run cuts the push off in its middle, repeats it, and looks at what moved again.
func (c resumeCase) run(t *testing.T) {
	const size = resumeSize
	ctx := need(t, 90*time.Second)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
	if c.args[0] == "push" {
		sent = makeSIF(t, "sent.sif", size)
	}
	start := c.starter(r, sent)
	p := start("--rate", "12M", "--json")
	eventually(t, time.Minute, "all nodes have a third of it", func() (bool, string) { return p.moved() >= 24e6, p.process.Output() })
	c.cut(r, p)
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
	// It stood at 24 MB at least, and whole marks of 4 MiB count.
	if res.report != nil {
		for _, row := range res.report.Nodes {
			if row.Bytes > size-24e6+8<<20 || row.Skipped < 14<<20 || row.Bytes+row.Skipped > size*105/100 {
				t.Errorf("row %+v: of %d bytes", row, size)
			}
		}
	}
	if res.sent > size-16e6+size/20 {
		t.Errorf("the server sent %d of %d bytes again", res.sent, size)
	}
	for _, n := range r.nodes {
		n.empty("file")
	}
}
