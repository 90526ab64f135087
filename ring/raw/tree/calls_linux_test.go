package tree

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// Extended attributes are listed alike with the call that new kernels have and without it, and a link is not followed for that.
func TestListXattrs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir+"/file", "user.a", []byte("b"), 0); err == unix.ENOTSUP {
		loopdev.Cannot(t, "the file system has no extended attributes")
	} else if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer noListAt.Store(noListAt.Load())
	for _, without := range []bool{false, true} {
		noListAt.Store(without)
		for name, want := range map[string]int{"file": 1, "link": 0} {
			all, err := xattrsOf(fd, name)
			if err != nil || len(all) != want || want > 0 && all[0] != (xattr{"user.a", "b"}) {
				t.Errorf("%s, without listxattrat %v: %v, %v", name, without, all, err)
			}
		}
		if _, err := xattrsOf(fd, "none"); err == nil {
			t.Errorf("what is not there, without listxattrat %v: no error", without)
		}
	}
}

// The checksum of a header adds up bytes, whatever they are.
func TestSumOf(t *testing.T) {
	mixed := make([]byte, block)
	want := int64(0)
	for i := range mixed {
		mixed[i] = byte(i * 7)
		want += int64(mixed[i])
	}
	if got := sumOf(mixed); got != want {
		t.Errorf("%d, want %d", got, want)
	}
	if got := sumOf(bytes.Repeat([]byte{255}, block)); got != 255*block {
		t.Errorf("%d, want %d", got, 255*block)
	}
}
