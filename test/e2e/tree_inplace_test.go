package e2e

import (
	"bytes"
	endian "encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A node that is killed in the middle of replacing files in place has some of them, keeps what else was there, and is told of with that.
// The same command then completes it.
func TestTreeInPlaceKilled(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	for _, n := range r.nodes {
		n.setPolicy(fmt.Sprintf("[[output]]\ndir = %q\noverwrite = true\ndirectories = true\n", r.data))
	}
	r.start()
	source := filepath.Join(r.dir, "source")
	fill(t, source, "new", "a", "m/file", "z")
	for _, n := range r.nodes {
		fill(t, n.path("tree"), "old", "a", "m/file", "m/own", "own", "z")
	}
	victim := r.nodes[1]
	killed := victim.killAtOpen(victim.path("tree/m"), func() bool { return textOf(t, victim.path("tree/a")) == "new" })
	args := []string{"raw", "--input", source + "/", "--output", r.data + "/tree", "--in-place"}
	p := r.startPush(args...)
	select {
	case <-killed:
		victim.start() // where the server asks what became of it
	case <-p.process.Done():
	}
	res := p.wait()
	r.want(res, 3, "committed", "failed")
	const want = "commit not confirmed: "
	if row := res.report.Nodes[1]; !strings.HasPrefix(row.Reason, want) || !strings.HasSuffix(row.Reason, "; the directory there may be partly the new one: push again") {
		t.Errorf("row %+v", row)
	}
	has := func(n *node, files ...string) {
		t.Helper()
		for i := 0; i < len(files); i += 2 {
			if got := textOf(t, n.path("tree/"+files[i])); got != files[i+1] {
				t.Errorf("%s: %s is %s, want %s", n.Name, files[i], got, files[i+1])
			}
		}
	}
	whole := []string{"a", "new", "m/file", "new", "z", "new", "own", "old", "m/own", "old"}
	has(r.nodes[0], whole...)
	has(victim, "a", "new", "m/file", "old", "z", "old", "own", "old", "m/own", "old")
	r.want(r.push(args...), 0, "committed")
	for _, n := range r.nodes {
		has(n, whole...)
		n.empty("tree")
	}
}

// fill makes files with a text in them.
func fill(t *testing.T, dir, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func textOf(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// killAtOpen kills the node when something opens the directory and now says so, before it is opened. The channel is closed then. The
// kernel asks about each open (fanotify(7), FAN_OPEN_PERM).
func (n *node) killAtOpen(dir string, now func() bool) (killed <-chan struct{}) {
	t := n.rig.t
	t.Helper()
	asks, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(asks, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_ONDIR, unix.AT_FDCWD, dir)
	}
	if err != nil && os.Getenv("DOLLY_IMG_COUNTERPARTS") != "1" {
		t.Skipf("the kernel does not ask before a directory is opened: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(asks), "fanotify") // a read ends when it is closed
	t.Cleanup(func() { f.Close() })
	done, dead := make(chan struct{}), false
	go func() {
		b := make([]byte, 4<<10)
		for {
			k, err := f.Read(b)
			if err != nil {
				return
			}
			for r := bytes.NewReader(b[:k]); r.Len() > 0; {
				var ask unix.FanotifyEventMetadata
				if err := endian.Read(r, endian.NativeEndian, &ask); err != nil {
					t.Error(err)
					return
				}
				if !dead && now() {
					n.kill()
					dead = true
					close(done)
				}
				answer := &unix.FanotifyResponse{Fd: ask.Fd, Response: unix.FAN_ALLOW}
				_ = endian.Write(f, endian.NativeEndian, answer) // whoever was killed is not told
				unix.Close(int(ask.Fd))
			}
		}
	}()
	return done
}
