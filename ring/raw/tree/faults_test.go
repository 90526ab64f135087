package tree

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// A directory that was switched away is closed to its owner, and goes also if the node is killed before it removes it.
func TestSwitchedAwayIsOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can replace what is another user's")
	}
	p := newPlace(t)
	if err := errors.Join(os.Mkdir(p.out, 0o755), os.WriteFile(p.out+"/old", nil, 0o600), os.Chown(p.out, 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	sink := p.target(t)
	if err := send(t.Context(), sink, streamWith(top(), fileEntry("a"))); err != nil { // no Close: it was killed
		t.Fatal(err)
	}
	names := namesBelow(t, p.dir)
	var st unix.Stat_t
	if err := unix.Lstat(p.dir+"/"+names[0], &st); len(names) != 2 || err != nil || st.Uid != 0 || st.Mode&0o777 != 0o700 {
		t.Errorf("%q, the first of %d with mode %o, %v", names, st.Uid, st.Mode, err)
	}
	if err := raw.RemoveAside(raw.PartPath(p.out)); err != nil {
		t.Error(err)
	}
	if names := namesBelow(t, p.dir); len(names) != 1 || names[0] != "out" {
		t.Errorf("left %q", names)
	}
}

// Bytes that come in the place of good ones which were dropped are not good before they are judged.
func TestAbortedGood(t *testing.T) {
	stream := streamWith(top(), fileEntry("a"))
	sink := newPlace(t).target(t)
	defer sink.Close()
	d := blobOf(stream)
	if _, _, err := sink.Offer(t.Context(), []v1.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(t.Context(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(stream); err != nil {
		t.Fatal(err)
	}
	w.(ring.Holding).Good(d.Size)
	if err := w.Abort(0); err != nil {
		t.Fatal(err)
	}
	if w, err = sink.Begin(t.Context(), d, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), len(stream))); err != nil {
		t.Errorf("was unpacked before it was judged: %v", err)
	}
}

// A Commit that failed can be tried again, or given up for another beginning.
func TestCommitAgain(t *testing.T) {
	stream := streamWith(top(), dirEntry("a"), fileEntry("a/b"))
	d := blobOf(stream)
	p := newPlace(t)
	sink := p.target(t)
	defer sink.Close()
	begin := func() ring.Writer {
		t.Helper()
		w, err := sink.Begin(t.Context(), d, 0)
		if err == nil {
			_, err = w.Write(stream)
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if _, _, err := sink.Offer(t.Context(), []v1.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	w := begin()
	if err := w.Commit(ended, d); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := w.Abort(0); err != nil {
		t.Fatal(err)
	}
	w = begin()
	if err := w.Commit(ended, d); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := sink.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.out + "/a/b"); err != nil {
		t.Error(err)
	}
}
