package launch

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStart(t *testing.T) {
	p, err := Start(t.Context(), exec.Command("sh", "-c", `echo noise >&2; echo 'level=INFO msg=listening address=[::1]:4711 cache=x' >&2; exec sleep 60`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Addr != "[::1]:4711" {
		t.Errorf("address %q", p.Addr)
	}
	if err := p.Stop(time.Minute); err == nil {
		t.Error("sleep ended by itself")
	}
	p.Kill() // does no harm any more
	if !strings.HasPrefix(p.Log(), "noise\n") {
		t.Errorf("log %q", p.Log())
	}
}

func TestStartFails(t *testing.T) {
	_, err := Start(t.Context(), exec.Command("sh", "-c", "echo no keys >&2; exit 1"))
	if err == nil || !strings.Contains(err.Error(), "no keys") {
		t.Errorf("got %v, want what it said", err)
	}
	if _, err := Start(t.Context(), exec.Command("/no/such/program")); err == nil {
		t.Error("a program that is not there was started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, exec.Command("sleep", "60")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

// TestKilledAfterGrace: who does not end when asked is ended.
func TestKilledAfterGrace(t *testing.T) {
	p, err := Start(t.Context(), exec.Command("sh", "-c", `trap '' TERM; echo 'msg=listening address=a:1' >&2; while :; do sleep 60; done`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(time.Millisecond); err == nil {
		t.Error("ended without an error")
	}
}

func TestTail(t *testing.T) {
	var l tail
	for range 3 * keep / 10 {
		l.write([]byte("123456789\n"))
	}
	if s := l.String(); len(s) > keep || !strings.HasSuffix(s, "123456789") {
		t.Errorf("%d bytes are kept", len(s))
	}
}

// What a process logs is waited for, once, from when it was asked for.
func TestAwait(t *testing.T) {
	p, err := Start(t.Context(), exec.Command("sh", "-c", `echo 'msg=again before' >&2; trap "echo 'msg=again 1' >&2" USR1
echo 'msg=listening address=a:1' >&2; while read x; do :; done; while :; do sleep 0.1; done`))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := regexp.MustCompile(`msg=again \d`)
	for range 2 {
		wait := p.Await(again)
		p.Signal(syscall.SIGUSR1) // a shell cannot trap SIGHUP below nohup
		if err := wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wait := p.Await(regexp.MustCompile("never"))
	p.Kill()
	if err := wait(ctx); err == nil || ctx.Err() != nil {
		t.Error("a line that never came")
	}
}
