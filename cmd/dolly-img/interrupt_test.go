package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// pushing is a slow push to one daemon, in its middle.
type pushing struct {
	dir    string
	daemon *launch.Process
	push   *exec.Cmd
	rest   *bufio.Reader // of its events
}

func startPushing(t *testing.T, daemonFlags ...string) *pushing {
	t.Helper()
	p := &pushing{dir: t.TempDir()}
	keys := filepath.Join(p.dir, "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(p.dir, "a.sif")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if err := sif.Create(image, bytes.NewReader(data), sif.CreateOptions{FS: sif.FSRaw}); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"daemon", "--keys", keys, "--cache", filepath.Join(p.dir, "cache"), "--listen", "127.0.0.1:0"}, daemonFlags...)
	var err error
	if p.daemon, err = launch.Start(t.Context(), exec.Command("dolly-img", args...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.daemon.Kill)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	p.push = exec.CommandContext(ctx, "dolly-img", "push", image, "--keys", keys, "--nodes", p.daemon.Addr, "--json",
		"--rate", "1M", "--report", filepath.Join(p.dir, "report"))
	out, err := p.push.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.push.Start(); err != nil {
		t.Fatal(err)
	}
	p.rest = bufio.NewReader(out)
	for {
		line, err := p.rest.ReadBytes('\n')
		if err != nil {
			t.Fatalf("no progress: %v", err)
		}
		var e ring.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Kind == ring.EventProgress && e.Bytes > 0 {
			return p
		}
	}
}

// end waits for the push and returns its status, and the report.
func (p *pushing) end(t *testing.T) (int, ring.Report) {
	t.Helper()
	var last []byte
	for {
		line, err := p.rest.ReadBytes('\n')
		if err != nil {
			break
		}
		last = line
	}
	status := 0
	var exit *exec.ExitError
	if err := p.push.Wait(); errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var report, printed ring.Report
	b, err := os.ReadFile(filepath.Join(p.dir, "report"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(last, &printed); err != nil || printed.Exit != report.Exit || len(printed.Nodes) != 1 {
		t.Errorf("the last line is not the report: %s", last)
	}
	if report.Exit != status {
		t.Errorf("exit %d in the report, status %d", report.Exit, status)
	}
	return status, report
}

// TestInterrupt: ^C, or a terminal that is gone, before the first commit is status 6, on the node
// nothing is left, and the daemon goes on.
func TestInterrupt(t *testing.T) {
	t.Run("interrupt", func(t *testing.T) { testInterrupt(t, syscall.SIGINT) })
	t.Run("hangup", func(t *testing.T) { testInterrupt(t, syscall.SIGHUP) })
	// Timeout(1) and batch systems signal the process and its group.
	t.Run("again and again", func(t *testing.T) { testInterrupt(t, syscall.SIGTERM, syscall.SIGINT) })
}

// testInterrupt sends the first signal, and the others again and again until the push has ended.
func testInterrupt(t *testing.T, signal syscall.Signal, more ...syscall.Signal) {
	p := startPushing(t)
	p.push.Process.Signal(signal)
	for _, s := range more {
		go func() {
			for p.push.Process.Signal(s) == nil {
			}
		}()
	}
	if status, report := p.end(t); status != ring.ExitInterrupted || report.Nodes[0].State.Good() {
		t.Errorf("status %d, report %+v", status, report)
	}
	if err := p.daemon.Stop(time.Minute); err != nil {
		t.Errorf("daemon: %v: %s", err, p.daemon.Log())
	}
	for _, dir := range []string{"ingest", "blobs/sha256", "leases"} {
		if left, err := os.ReadDir(filepath.Join(p.dir, "cache", dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind %v, %v", dir, left, err)
		}
	}
}

// TestGrace: a daemon that is told to stop finishes what it began.
func TestGrace(t *testing.T) {
	p := startPushing(t)
	if err := p.daemon.Stop(time.Minute); err != nil {
		t.Errorf("daemon: %v: %s", err, p.daemon.Log())
	}
	if status, report := p.end(t); status != ring.ExitAll || report.Nodes[0].State != ring.Committed {
		t.Errorf("status %d, report %+v", status, report)
	}
}

// TestNoGrace: without it the transfer fails, and says why.
func TestNoGrace(t *testing.T) {
	p := startPushing(t, "--grace", "0s")
	if err := p.daemon.Stop(time.Minute); err != nil {
		t.Errorf("daemon: %v: %s", err, p.daemon.Log())
	}
	if status, report := p.end(t); status != ring.ExitNone || report.Nodes[0].State != ring.Failed || report.Nodes[0].Reason == "" {
		t.Errorf("status %d, report %+v", status, report)
	}
}
