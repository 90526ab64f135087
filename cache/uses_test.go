package cache

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

func FuzzDecodeUse(f *testing.F) {
	f.Add(encodeUse(digest.FromString("a")))
	f.Add([]byte("used sha256:"))
	f.Add([]byte("used \n"))
	f.Add([]byte("used ../../x\n"))
	f.Add(append(encodeUse(digest.FromString("a")), '\n'))
	f.Add(bytes.Repeat([]byte("x"), maxUse+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeUse(b)
		if err != nil {
			if d != "" {
				t.Errorf("%q with an error", d)
			}
			return
		}
		if validate(d) != nil || !bytes.Equal(encodeUse(d), b) || strings.ContainsAny(flat(d), "/\x00") {
			t.Errorf("%q was read as %q", b, d)
		}
	})
}

// Only an image that the cache holds is noted, and each once a minute.
func TestNoteUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t)
		dir := c.Dir()
		im := newImage(mediaTypeSIFLayer, "layer")
		mustPush(t, c, "example.org/a:1", im)
		root := im.root()
		u := uses{c: c, noted: map[digest.Digest]time.Time{}}
		stamp := func() time.Time {
			info, err := os.Stat(filepath.Join(dir, "used", flat(root.Digest)))
			if err != nil {
				t.Fatal(err)
			}
			return info.ModTime()
		}
		long := time.Now().Add(-time.Hour).Truncate(time.Second)
		age := func() {
			if err := os.Chtimes(filepath.Join(dir, "used", flat(root.Digest)), long, long); err != nil {
				t.Fatal(err)
			}
		}
		age()
		u.note(root.Digest)
		if !stamp().After(long) {
			t.Error("the use was not noted")
		}
		age()
		time.Sleep(useAgain / 2)
		u.note(root.Digest)
		if stamp().After(long) {
			t.Error("noted again within the minute")
		}
		time.Sleep(useAgain)
		u.note(root.Digest)
		if !stamp().After(long) {
			t.Error("not noted after a minute")
		}
		before, _ := os.ReadDir(filepath.Join(dir, "used"))
		u.note(im.blobs[0].Digest) // a blob that is there, and no image
		u.note(digest.FromString("nothing"))
		if after, _ := os.ReadDir(filepath.Join(dir, "used")); len(after) != len(before) {
			t.Errorf("used/ has %d files, had %d", len(after), len(before))
		}
		// What comes later is known.
		other := newImage(mediaTypeSIFLayer, "other")
		mustPush(t, c, "example.org/b:1", other)
		later := other.root()
		if err := os.Remove(filepath.Join(dir, "used", flat(later.Digest))); err != nil {
			t.Fatal(err)
		}
		u.note(later.Digest)
		if _, err := os.Stat(filepath.Join(dir, "used", flat(later.Digest))); err != nil {
			t.Error(err)
		}
	})
}

// A daemon that was killed leaves its socket, another one takes it over; a path may be
// longer than the address of a socket.
func TestServeUsesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := c.ServeUses(ctx); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Lstat(filepath.Join(dir, usesSocket))
	if err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Remove(filepath.Join(dir, usesSocket)); err != nil {
		t.Fatal(err)
	}
	// Something else of that name is not removed.
	if err := os.WriteFile(filepath.Join(dir, usesSocket), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.ServeUses(t.Context()); err == nil {
		t.Error("the socket replaced a file")
	}
	c.tellUse(digest.FromString("x")) // nobody listens: no failure
}
