package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test's own binary is what runs on the hosts.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || strings.HasPrefix(os.Args[1], "-") {
		os.Exit(m.Run())
	}
	if err := helper(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func helper(verb, arg string) error {
	switch verb {
	case "listen":
		l, err := net.Listen("tcp", ":9998")
		if err != nil {
			return err
		}
		fmt.Println("listening")
		c, err := l.Accept()
		if err != nil {
			return err
		}
		all, err := io.ReadAll(c)
		return errors.Join(err, os.WriteFile(arg, all, 0o600))
	case "send":
		c, err := net.DialTimeout("tcp", arg+":9998", 2*time.Second)
		if err != nil {
			return err
		}
		_, err = c.Write(make([]byte, 100000))
		return errors.Join(err, c.Close())
	case "refused": // the host answers
		c, err := net.DialTimeout("tcp", arg+":9", time.Second)
		if err == nil {
			c.Close()
			return errors.New("somebody listens")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	}
	return fmt.Errorf("unknown verb %q", verb)
}

func need(t *testing.T) context.Context {
	t.Helper()
	if err := Available(); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

// transfer runs a helper that listens on b, and one that sends on a.
func transfer(ctx context.Context, b, a *exec.Cmd) error {
	listener, err := Start(b)
	if err != nil {
		return err
	}
	if _, err := listener.Line(ctx, "listening"); err != nil {
		return err
	}
	defer listener.Kill()
	if out, err := a.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	_, err = listener.Wait(ctx)
	return err
}

func TestNet(t *testing.T) {
	ctx := need(t)
	n, err := New(ctx, Config{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	a, b := n.Nodes[0], n.Nodes[1]

	before, err := a.Traffic(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// What is sent to a listener on b arrives, and is counted.
	dir := t.TempDir()
	own := t.TempDir()
	b.Mounts = []Mount{Bind(own, dir)}
	err = transfer(ctx, b.Command(ctx, os.Args[0], "listen", dir+"/got"), a.Command(ctx, os.Args[0], "send", b.Addr.String()))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(own, "got")); err != nil || info.Size() != 100000 {
		t.Errorf("not in b's own directory: %v, %v", info, err)
	}
	after, err := a.Traffic(ctx)
	if sent := after.Sent - before.Sent; err != nil || sent < 100000 || sent > 120000 {
		t.Errorf("counted %d, %v", sent, err)
	}

	// A cut keeps everything away, and ends.
	for _, cut := range []struct{ do, undo func() error }{
		{func() error { return b.Unplug(ctx) }, func() error { return b.Plug(ctx) }},
		{func() error { return b.Block(ctx, a) }, func() error { return b.Unblock(ctx, a) }},
	} {
		refused := func() bool {
			return a.Command(ctx, os.Args[0], "refused", b.Addr.String()).Run() == nil
		}
		if !refused() {
			t.Error("before: b does not answer")
		}
		if err := cut.do(); err != nil {
			t.Fatal(err)
		}
		if refused() {
			t.Error("cut: b answers")
		}
		if err := cut.undo(); err != nil {
			t.Fatal(err)
		}
		if !refused() {
			t.Error("after: b does not answer")
		}
	}

	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if left := output(t, exec.Command("ip", "netns", "list")); strings.Contains(left, n.prefix) {
		t.Errorf("left behind:\n%s", left)
	}
}

func TestRate(t *testing.T) {
	ctx := need(t)
	const rate = 8_000_000 // 1 MB/s
	n, err := New(ctx, Config{Nodes: 1, Rate: rate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	shown := output(t, exec.Command("tc", "-n", n.Server.space(), "qdisc", "show", "dev", "eth0"))
	if !strings.Contains(shown, "tbf") || !strings.Contains(shown, "rate 8Mbit") {
		t.Error(shown)
	}
	if err := n.Nodes[0].Shape(ctx, rate/2); err != nil {
		t.Fatal(err)
	}
	shown = output(t, exec.Command("tc", "-n", n.sw(), "qdisc", "show", "dev", n.Nodes[0].port))
	if !strings.Contains(shown, "rate 4Mbit") {
		t.Error(shown)
	}
}

// A net whose process was killed is removed by the next, with what runs in it, also by two
// at once; that of a living process is not.
func TestStale(t *testing.T) {
	ctx := need(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%s%d-abcdef-", prefix, dead.Process.Pid)
	alive := fmt.Sprintf("%s%d-abcdef-", prefix, os.Getppid())
	for _, p := range []string{stale, alive} {
		output(t, exec.Command("ip", "netns", "add", p+"n01"))
		t.Cleanup(func() { remove(context.Background(), p) })
	}
	in, err := Start(exec.Command("ip", "netns", "exec", stale+"n01", "sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	// The name shows that it runs in there; before that it could not be found.
	for out := ""; strings.TrimSpace(out) == ""; {
		out = output(t, exec.Command("ip", "netns", "pids", stale+"n01"))
	}
	for i := range 8 {
		output(t, exec.Command("ip", "netns", "add", fmt.Sprintf("%sm%02d", stale, i)))
	}
	removed := make(chan error)
	for range 2 {
		go func() { removed <- removeStale(ctx) }()
	}
	for range 2 {
		if err := <-removed; err != nil {
			t.Error(err)
		}
	}
	if _, err := in.Wait(ctx); err != nil {
		t.Error(err)
	}
	left := output(t, exec.Command("ip", "netns", "list"))
	if strings.Contains(left, stale) || !strings.Contains(left, alive) {
		t.Error(left)
	}
}

func TestLine(t *testing.T) {
	ctx := t.Context()
	p, err := Start(exec.Command("sh", "-c", "echo one; echo two >&2; read x; echo three"))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := p.Line(ctx, "two"); err != nil || line != "two" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := p.Line(ctx, "four"); err == nil || !strings.Contains(err.Error(), "three") {
		t.Errorf("%v", err)
	}
	if cpu, err := CPU(os.Getpid()); err != nil || cpu < 0 {
		t.Error(cpu, err)
	}
	if n, err := AnonMemory(os.Getpid()); err != nil || n < 1<<20 {
		t.Error(n, err)
	}
	if n, err := OpenFiles(os.Getpid()); err != nil || n < 3 {
		t.Error(n, err)
	}
}
