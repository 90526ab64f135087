package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// The socket of a daemon that was killed is replaced; one that somebody listens on is not.
func TestMirrorSocket(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "m.sock")
	killed, err := listenMirror(addr)
	if err != nil {
		t.Fatal(err)
	}
	killed.(*net.UnixListener).SetUnlinkOnClose(false)
	killed.Close()
	l, err := listenMirror(addr)
	if err != nil {
		t.Fatalf("after one that was killed: %v", err)
	}
	defer l.Close()
	if _, err := listenMirror(addr); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("beside one that lives: %v", err)
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(addr, "unix:"))
	if err != nil {
		t.Errorf("the first one's socket is gone: %v", err)
	} else {
		conn.Close()
	}
}

// What is no terminal gives the login in two lines.
func TestAsk(t *testing.T) {
	for in, want := range map[string]string{"lab\nsecret\n": "lab secret", "lab\r\nsecret": "lab secret", "lab\n": "", "": "", "\nx\n": ""} {
		var out strings.Builder
		user, password, err := ask(strings.NewReader(in), &out)
		if got := strings.TrimSpace(user + " " + password); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if strings.Contains(out.String(), "secret") {
			t.Errorf("%q: it prints %q", in, out.String())
		}
	}
}
