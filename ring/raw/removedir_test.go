package raw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asUser has the file system take this goroutine for a user without privileges, if it is root's, and returns that user. The
// goroutine keeps its thread until both end.
func asUser(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		return os.Geteuid()
	}
	const uid = 12345
	runtime.LockOSThread()
	if err := unix.Setfsuid(uid); err != nil {
		t.Fatal(err)
	}
	return uid
}

// lockedTree makes a directory of directories whose modes keep their owner from removing what is in them, and a link out.
func lockedTree(t *testing.T, dir, outside string, uid int) {
	t.Helper()
	modes := map[string]os.FileMode{"": 0o555, "a": 0o555, "a/b": 0o500, "c": 0, "c/d": 0o311, "e": 0o700}
	var errs []error
	for _, name := range []string{"", "a", "a/b", "c", "c/d", "e"} {
		errs = append(errs, os.Mkdir(filepath.Join(dir, name), 0o755), os.WriteFile(filepath.Join(dir, name, "file"), []byte("x"), 0o444))
		errs = append(errs, os.Symlink(outside, filepath.Join(dir, name, "link")))
	}
	for _, name := range []string{"c/d", "c", "a/b", "a", "e", ""} {
		errs = append(errs, os.Chown(filepath.Join(dir, name), uid, -1), os.Chmod(filepath.Join(dir, name), modes[name]))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A user who is not root gets rid of a directory with modes that keep him from it: one that a transfer left, and his own part.
func TestRemoveLockedTree(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Chmod(outside, 0o711); err != nil {
		t.Fatal(err)
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = 12345
	}
	lockedTree(t, PartPath(filepath.Join(dir, "out")), outside, uid)
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	tree, err := NewWholeTree(TargetOptions{Dir: dir, Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() { // on a thread that ends with it
		tree.t.uid = asUser(t)
		if err := tree.Begin(ctx); err != nil {
			left <- fmt.Errorf("in the place of a left one: %w", err)
			return
		}
		for _, name := range []string{"a", "a/b"} {
			if err := tree.in.Mkdir(name, 0o755); err != nil {
				left <- err
				return
			}
		}
		a, err := tree.in.OpenFile("a", os.O_RDONLY, 0)
		if err == nil {
			err = errors.Join(a.Chmod(0o555), a.Close())
		}
		left <- errors.Join(err, tree.Drop())
	}()
	if err := <-left; err != nil {
		t.Error(err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left %q", names)
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("where a link led to: %v, %v", info, err)
	}
}

// Names with white space that the kernel does not escape are one field.
func TestMountsAt(t *testing.T) {
	info := "22 1 0:21 / /proc rw,nosuid - proc proc rw\n" +
		"30 1 8:1 /x /srv/a\u00a0b\vc\fd\re\\040f\\011g rw shared:1 - ext4 /dev/sda1 rw\n" +
		"31 1 8:2 /a\u00a0b /mnt/under rw - ext4 /dev/sda2 rw\n" +
		"short\n"
	odd := "/srv/a\u00a0b\vc\fd\re f\tg"
	for dir, want := range map[string][]string{
		odd: {"."}, "/srv": {strings.TrimPrefix(odd, "/srv/")}, "/mnt": {"under"}, "/mnt/under": {"."}, "/mnt/und": nil, "/srv/a": nil,
		"/proc/self": nil, "rw": nil, "/": {"proc", odd[1:], "mnt/under"},
	} {
		if at := mountsAt(info, dir); !slices.Equal(at, want) {
			t.Errorf("%q: %q, want %q", dir, at, want)
		}
	}
}
