package node

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache"
)

// The socket of a daemon that was killed is replaced; one that somebody listens on is not.
func TestMirrorSocket(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "m.sock")
	killed, err := listenMirror(addr, cache.Access{})
	if err != nil {
		t.Fatal(err)
	}
	killed.(*net.UnixListener).SetUnlinkOnClose(false)
	killed.Close()
	l, err := listenMirror(addr, cache.Access{})
	if err != nil {
		t.Fatalf("after one that was killed: %v", err)
	}
	defer l.Close()
	if _, err := listenMirror(addr, cache.Access{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("beside one that lives: %v", err)
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(addr, "unix:"))
	if err != nil {
		t.Errorf("the first one's socket is gone: %v", err)
	} else {
		conn.Close()
	}
}
