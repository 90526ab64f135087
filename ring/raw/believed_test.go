package raw

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// Bytes that are not on the disk yet are no holes.
func TestUnwrittenIsNoHole(t *testing.T) {
	f, err := OpenFile(loopdev.NewForgetful(t, t.TempDir(), LeavesFrom))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, err := f.Blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(t.Context(), blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if z, ok := r.(ring.ZeroSkipper); ok {
		if n, err := z.SkipZeros(LeavesFrom); n != 0 || err != nil {
			t.Errorf("%d bytes were skipped, %v", n, err)
		}
	}
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
}

// OpenZFS is believed once its transaction group has ended.
func TestSettled(t *testing.T) {
	if settled(magicZFS, 10*time.Second) || !settled(magicZFS, time.Hour) || settled(magicZFS, -time.Hour) || !settled(unix.EXT4_SUPER_MAGIC, 0) {
		t.Error("another file system is believed")
	}
}
