package tree

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// Bytes of a file that are not on the disk yet are no holes.
func TestUnwrittenIsNoHole(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	loopdev.NewForgetful(t, dir, size)
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], s.Size()-trailer-size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.(ring.ZeroSkipper).SkipZeros(size); n != 0 || err != nil {
		t.Errorf("%d bytes were skipped, %v", n, err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
}

// Whoever exchanges a directory for a link has nothing opened that is elsewhere: with a device that may be enough to do harm.
func TestExchangedForLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir+"/a", 0o700), os.WriteFile(dir+"/a/watchdog", []byte("x"), 0o600), unix.Mkfifo(elsewhere+"/watchdog", 0o600))
	s, err := Open(dir, Options{})
	must(err)
	defer s.Close()
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, filepath.Join(elsewhere, "watchdog"), unix.IN_OPEN)
	must(err, os.Rename(dir+"/a", dir+"/b"), os.Symlink(elsewhere, dir+"/a"))
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], 0)
	must(err)
	defer r.Close()
	_, err = io.ReadAll(r)
	if kind, _ := errkind.Of(err); kind != "input-changes" {
		t.Errorf("read: %v", err)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); n > 0 || err != unix.EAGAIN {
		t.Errorf("what the link leads to was opened: %d, %v", n, err)
	}
}
