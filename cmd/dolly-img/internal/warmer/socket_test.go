package warmer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// largeSnapshot is one of which no socket takes all before it is read.
func largeSnapshot() *warm.Snapshot {
	s := &warm.Snapshot{At: time.Unix(1e9, 0).UTC(), Groups: []warm.GroupStatus{{Name: "all", Nodes: 1000}}} // 310 KB
	for n := range 5 {
		i := warm.ImageStatus{Ref: fmt.Sprintf("docker://registry.example/app:%d", n), State: warm.ImageBlocked, Nodes: []warm.NodeStatus{}}
		for k := range 1000 {
			i.Nodes = append(i.Nodes, warm.NodeStatus{Node: fmt.Sprintf("node%04d", k), State: warm.NodeFull, Reason: "needs 12 GB"})
		}
		s.Images = append(s.Images, i)
	}
	return s
}

func serveSocket(t *testing.T, path string, s *warm.Snapshot) (end func()) {
	t.Helper()
	socket, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		socket.Serve(ctx, func(context.Context) (*warm.Snapshot, error) { return s, nil })
	}()
	end = func() {
		cancel()
		<-ended
	}
	t.Cleanup(end)
	return end
}

// Every user gets all of the snapshot, whoever else connects and reads nothing, or writes. The socket goes with the controller, and that of a
// dead one is replaced.
func TestSocketServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "warm.sock")
	want := largeSnapshot()
	if _, err := FetchSnapshot(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for range 2 {
		end := serveSocket(t, path, want)
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o666 {
			t.Errorf("%v, %v", info, err)
		}
		var held []net.Conn
		for range 3 * mostReaders {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // which may fail, as nobody reads it
			held = append(held, c)
		}
		begun := time.Now()
		if got, err := FetchSnapshot(t.Context(), path); err != nil || !reflect.DeepEqual(got, want) || time.Since(begun) > readWithin {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if data, err := io.ReadAll(held[0]); len(data) > 250<<10 || err == nil && len(data) == 0 {
			t.Errorf("the oldest was not dropped: %d bytes, %v", len(data), err)
		}
		end()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after the end: %v", err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if _, err := FetchSnapshot(t.Context(), path); !errors.Is(err, unix.ECONNREFUSED) || err.Error() != "the controller does not answer at "+path+": connection refused" {
			t.Errorf("left behind: %v", err)
		}
	}
}

// A controller that lives, and what is no socket, are left as they are.
func TestSocketTaken(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	small := &warm.Snapshot{Groups: []warm.GroupStatus{}, Images: []warm.ImageStatus{}}
	end := serveSocket(t, at("lives"), small)
	foreign, err := net.Listen("unix", at("foreign"))
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	for _, err := range []error{os.WriteFile(at("file"), []byte("x"), 0o600), os.Mkdir(at("dir"), 0o700), os.Symlink(at("foreign"), at("link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"lives": "another controller answers there", "foreign": "another program answers there",
		"file": "something else is there, which is no socket", "dir": "something else is there, which is no socket", "link": "something else is there, which is no socket",
		"no/such/directory": "mkdir " + at("no/such") + ": no such file or directory", strings.Repeat("x", 100): fmt.Sprintf("the path has %d bytes, at most 107", len(dir)+101),
	} {
		before, _ := os.Lstat(at(name))
		if _, err := ListenSocket(at(name)); err == nil || err.Error() != "socket "+at(name)+": "+want {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.Lstat(at(name)); before != nil && !os.SameFile(before, after) {
			t.Errorf("%s is another one now", name)
		}
	}
	if _, err := FetchSnapshot(t.Context(), at("lives")); err != nil {
		t.Error(err)
	}
	if _, err := FetchSnapshot(t.Context(), at("file")); err == nil || err.Error() != "controller at "+at("file")+": this is no socket" {
		t.Error(err)
	}
	// Of two that start together where a dead one's socket lies, one listens there, and the other one does not remove it.
	end()
	for range 10 {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("lives"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		sockets := make(chan *Socket)
		for range 2 {
			go func() {
				s, _ := ListenSocket(at("lives"))
				sockets <- s
			}()
		}
		one, other := <-sockets, <-sockets
		if (one == nil) == (other == nil) {
			t.Fatalf("%v, %v", one, other)
		}
		if one == nil {
			one = other
		}
		c, err := net.Dial("unix", at("lives"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		one.listener.Close()
		one.unlock()
	}
}

// Whatever listens there, nothing but a whole snapshot of this version is taken for one.
func TestSocketFetchStrict(t *testing.T) {
	data, err := (&warm.Snapshot{Groups: []warm.GroupStatus{}, Images: []warm.ImageStatus{}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]string{
		"": "it closed the connection without an answer", string(data[:len(data)/2]): "unexpected end of JSON input", "{\"version\":2}\n": "speaks version 2, this program 1",
		"HTTP/1.1 400 Bad Request\r\n": "invalid character 'H' looking for beginning of value", string(data) + "x": "invalid character 'x' after top-level value",
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, said)
				c.Close()
			}
		}()
		if _, err := FetchSnapshot(t.Context(), path); err == nil || err.Error() != "controller at "+path+": "+want {
			t.Errorf("%.20q: %v", said, err)
		}
		go l.Accept() // and says nothing
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := FetchSnapshot(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("silent: %v", err)
		}
		cancel()
		l.Close()
	}
}

// Everybody reads the socket. So nothing of credentials is in what it tells: not in names of images, not of files with credentials, and not in the
// commands that print nodes.
func TestSocketTellsNoSecrets(t *testing.T) {
	auth := filepath.Join(t.TempDir(), "secret-auth.json")
	if err := os.WriteFile(auth, []byte(`{"auths":{"registry.example":{"auth":"c2VjcmV0"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := warm.Parse(fmt.Appendf(nil, "[nodes.all]\ncommand = \"exit 3 # --password secret\"\n[nodes.one]\nlist = \"n1\"\n[[image]]\nref = \"docker://registry.example/app:1\"\nnodes = [\"all\", \"one\"]\nauthfile = %q\n", auth))
	if err != nil {
		t.Fatal(err)
	}
	now := warm.Now{Wall: time.Unix(1e9, 0)}
	m := warm.New(now, list, nil, 1)
	found := warm.Found{Name: "registry.example/app:1", Digest: digest.FromString("app"), Bytes: 1}
	m.Step(now, warm.EvTick{})
	m.Step(now, warm.EvFound{Lookup: warm.Lookup{Image: list.Images[0], Platforms: []string{""}}, Tags: []warm.Tag{{Ref: list.Images[0].Ref, List: found.Digest, Variants: []warm.Found{found}}}})
	_, nodesErr := warm.ReadNodes(t.Context(), &list.Groups[0])
	m.Step(now, warm.EvNodes{Group: "all", Why: nodesErr.Error()})
	_, refused := warm.Parse([]byte("[[image]]\nref = \"docker://user:secret@registry.example/app:1\"\ntags = \"*\"\n[[image]]\nref = \"docker://user:secr et@registry.example/app\"\n"))
	m.Step(now, warm.EvRefused{Why: refused.Error()})

	path := filepath.Join(t.TempDir(), "s")
	serveSocket(t, path, m.Snapshot(now))
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	for _, want := range []string{"registry.example/app:1", "credentials in the image's name", "exit status 3", `"node":"n1"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%v: no %q in %s", err, want, data)
		}
	}
	for _, secret := range []string{"secr", "c2VjcmV0", auth, "user"} {
		if strings.Contains(string(data), secret) {
			t.Errorf("%q is in %s", secret, data)
		}
	}
}
