package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// What a tracer counts is what a process did that makes a known number of calls.
func TestTracers(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal(err)
		}
		t.Skip("strace is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tracers := []*tracer{strace}
	if newTracer(ctx) == perf {
		tracers = append(tracers, perf)
	}
	for _, tr := range tracers {
		cmd := exec.CommandContext(ctx, "sh", "-c", "read go; exec dd if=/dev/zero of=/dev/null bs=1 count=1000")
		in, begin := io.Pipe()
		cmd.Stdin = in
		p, err := netns.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tr.count(ctx, p.Pid(), t.TempDir(), func() error {
			begin.Write([]byte("\n"))
			begin.Close()
			_, err := p.Wait(ctx)
			return err
		})
		if err != nil {
			p.Kill()
			t.Fatalf("%s: %v", tr.name, err)
		}
		for _, call := range []string{"read", "write"} {
			if n := got[call]; n < 1000 || n > 1050 {
				t.Errorf("%s: %d calls of %s, want a few more than 1000: %v", tr.name, n, call, got)
			}
		}
		if n := got.sum(); n < 2000 || n > 2200 {
			t.Errorf("%s: %d calls, want a few more than 2000: %v", tr.name, n, got)
		}
	}
}
