package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// notifySocket is the socket on which systemd hears from a service.
type notifySocket struct {
	t    *testing.T
	conn *net.UnixConn
}

func listenNotes(t *testing.T, path string) *notifySocket {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifySocket{t, conn}
}

// next waits for the next message.
func (s *notifySocket) next() string {
	s.t.Helper()
	b := make([]byte, 4096)
	s.conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := s.conn.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

// want waits for the next message and compares it.
func (s *notifySocket) want(text string) {
	s.t.Helper()
	if got := s.next(); got != text {
		s.t.Errorf("told systemd %q, want %q", got, text)
	}
}

// TestSystemd: the daemon takes the socket it is handed, and says when it is ready
// and when it stops.
func TestSystemd(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	notes := listenNotes(t, filepath.Join(dir, "notify"))

	// systemd knows the process id before it starts the program; a shell does, too.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec dolly-img daemon --keys "$0" --listen 127.0.0.1:1`, keys)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "STATE_DIRECTORY="+dir, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "JOURNAL_STREAM=1:1")
	p, err := launch.Start(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if p.Addr != l.Addr().String() {
		t.Errorf("listens on %s, not on the socket %s", p.Addr, l.Addr())
	}
	notes.want("READY=1")
	// What comes between is for systemd's job of reloading, in both its types of units.
	p.Signal(syscall.SIGHUP)
	if text := notes.next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$`).MatchString(text) {
		t.Errorf("told systemd %q", text)
	}
	notes.want("READY=1\nSTATUS=")
	policy := filepath.Join(keys, "policy.toml")
	if err := os.WriteFile(policy, []byte("x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	notes.next()
	notes.want("READY=1\nSTATUS=reload refused, keys and policy are as they were: policy " + policy + `: line 1: unknown key "x"`)
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	notes.want("STOPPING=1")
	if _, err := os.Stat(filepath.Join(dir, "cache", "oci-layout")); err != nil {
		t.Errorf("the cache is not in the state directory: %v", err)
	}
	if log := p.Log(); strings.Contains(log, "time=") {
		t.Errorf("a time of our own in the journal: %s", log)
	}
}
