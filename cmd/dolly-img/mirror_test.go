package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring/identity"
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

// A daemon serves its cache over a socket: the manifest, what it names, and nothing else. It takes the
// socket of one that was killed, and its own goes with it.
func TestMirrorOverSocket(t *testing.T) {
	dir := t.TempDir()
	keys, socket := filepath.Join(dir, "keys"), filepath.Join(dir, "m.sock")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	r, data := request(t, meta{Kind: kindImage, Ref: "reg.example/lab/app:v1"}, "a SIF")
	play(t, c.Transfer("reg.example/lab/app:v1", cache.TransferOptions{}), r, data, true)
	layer, root := r.Blobs[0], r.Blobs[len(r.Blobs)-1]

	start := func() *launch.Process {
		t.Helper()
		p, err := launch.Start(t.Context(), exec.Command("dolly-img", "daemon", "--keys", keys, "--cache", c.Dir(),
			"--listen", "127.0.0.1:0", "--mirror", "unix:"+socket))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	start().Kill()
	p := start()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v, %v", info, err)
	}

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for _, g := range []struct {
		path, mediaType, body string
		status                int
	}{
		{"manifests/v1", v1.MediaTypeImageManifest, data[root.Digest], 200},
		{"manifests/" + root.Digest.String(), v1.MediaTypeImageManifest, data[root.Digest], 200},
		{"blobs/" + layer.Digest.String(), "application/octet-stream", "a SIF", 200},
		{"manifests/v2", "application/json", "", 404},
	} {
		resp, err := client.Get("http://mirror/v2/lab/app/" + g.path + "?ns=reg.example")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != g.status || resp.Header.Get("Content-Type") != g.mediaType ||
			g.status == 200 && string(body) != g.body {
			t.Errorf("%s: %s, %v, %s, %v", g.path, resp.Status, resp.Header, body, err)
		}
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// A connection more than there is room for is served once another one has ended, and what is accepted
// is the kernel's own, to which it can send files.
func TestLimitedListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := &limitedListener{Listener: l, open: make(chan struct{}, 1), closed: make(chan struct{})}
	states := make(chan string, 10)
	server := &http.Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ConnState: func(c net.Conn, s http.ConnState) {
			if _, is := c.(*net.TCPConn); !is {
				t.Errorf("accepted a %T", c)
			}
			if s == http.StateNew || s == http.StateClosed {
				states <- s.String()
			}
			limited.state(c, s)
		},
	}
	ended := make(chan error)
	go func() { ended <- server.Serve(limited) }()
	get := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answer := func(c net.Conn) {
		t.Helper()
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Error(err)
		}
	}
	first := get()
	answer(first)
	second := get()
	first.Close()
	answer(second)
	second.Close()
	for _, want := range []string{"new", "closed", "new", "closed"} {
		if got := <-states; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	third := get()
	answer(third)
	if err := server.Close(); err != nil { // also while nothing more can be accepted
		t.Error(err)
	}
	if err := <-ended; err != http.ErrServerClosed {
		t.Error(err)
	}
}
