package raw

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// merging makes, as user uid, a directory out with these files, and a part that has others of the same names and is to be moved into it.
func merging(dir string, uid int, files ...string) (*Tree, error) {
	tree, err := NewWholeTree(TargetOptions{Dir: dir, Name: "out", Overwrite: true})
	if err != nil {
		return nil, err
	}
	tree.InPlace()
	tree.t.uid = uid
	out := filepath.Join(dir, "out")
	err = errors.Join(os.Mkdir(out, 0o700), tree.Begin(ctx))
	for _, name := range files {
		for _, top := range []string{out, PartPath(out)} {
			name := filepath.Join(top, name)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(top), 0o600))
		}
	}
	return tree, err
}

// Whoever exchanges a directory while files are moved into it, as the owner of the one above may do, does not get success for what is
// not where the path leads.
func TestInPlaceExchanged(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	tree, err := merging(dir, os.Geteuid(), "file")
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(*os.File) error { return errors.Join(os.Rename(out, out+".was"), os.Mkdir(out, 0o700)) }
	if err := tree.Seal(ctx, exchange); err != nil {
		t.Fatal(err)
	}
	if err := tree.Publish(ctx); !errors.Is(err, errReplaced) {
		t.Errorf("published: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if names := list(t, dir); len(names) != 2 || len(list(t, out)) > 0 {
		t.Errorf("there is %q, and %q in it", names, list(t, out))
	}
}

// What a user who is not root has no right to replace is refused before anything is replaced.
func TestInPlaceLocked(t *testing.T) {
	for _, locked := range []string{"out", ".out" + partSuffix} {
		dir := t.TempDir()
		uid := os.Geteuid()
		if uid == 0 {
			uid = 12345
		}
		if err := errors.Join(os.Chown(filepath.Dir(dir), uid, -1), os.Chown(dir, uid, -1)); err != nil {
			t.Fatal(err)
		}
		tried := make(chan error, 1)
		go func() { // on a thread that ends with it
			tree, err := merging(dir, asUser(t), "a", "locked/file")
			if err != nil {
				tried <- err
				return
			}
			err = errors.Join(os.Chmod(filepath.Join(dir, locked, "locked"), 0o555), tree.Seal(ctx, func(*os.File) error { return nil }))
			tried <- errors.Join(err, tree.Close())
		}()
		if err := <-tried; !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: sealed: %v", locked, err)
		}
		a := filepath.Join(dir, "out/a")
		if b, err := os.ReadFile(a); string(b) != filepath.Dir(a) || err != nil {
			t.Errorf("%s: there is %q, %v", locked, b, err)
		}
		if err := os.Chmod(filepath.Join(dir, "out/locked"), 0o700); err != nil {
			t.Error(err)
		}
	}
}

// A subvolume of Btrfs in the place of the directory, into which nothing can be renamed from outside, is refused before anything is sent,
// and one below it before anything is replaced.
func TestInPlaceSubvolume(t *testing.T) {
	d := loopdev.New(t, t.TempDir(), 128<<20, loopdev.Options{})
	if out, err := exec.Command("mkfs.btrfs", "--quiet", "--mixed", d.Path).CombinedOutput(); err != nil {
		loopdev.Cannot(t, "mkfs.btrfs: %v: %s", err, out)
	}
	err := d.Mount(t, d.Path, "btrfs", 0, func(dir string) {
		subvolume := func(name string) {
			if out, err := exec.Command("btrfs", "subvolume", "create", filepath.Join(dir, name)).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		subvolume("out")
		tree, err := NewWholeTree(TargetOptions{Dir: dir, Name: "out", Overwrite: true})
		if err != nil {
			t.Error(err)
			return
		}
		tree.InPlace()
		if _, err := tree.Check(); !errkindIs(err, "output-subvolume") {
			t.Errorf("in its place: %v", err)
		}
		if err := errors.Join(tree.Close(), os.Remove(filepath.Join(dir, "out"))); err != nil {
			t.Error(err)
		}
		tree, err = merging(dir, os.Geteuid(), "file")
		if err != nil {
			t.Error(err)
			return
		}
		defer tree.Close()
		subvolume("out/sub")
		if err := os.Mkdir(filepath.Join(PartPath(filepath.Join(dir, "out")), "sub"), 0o700); err != nil {
			t.Error(err)
		}
		if err := tree.Seal(ctx, func(*os.File) error { return nil }); !errkindIs(err, "output-subvolume") {
			t.Errorf("below it: %v", err)
		}
	})
	if err != nil {
		loopdev.Cannot(t, "btrfs: %v", err)
	}
}

func errkindIs(err error, kind errkind.Kind) bool {
	got, _ := errkind.Of(err)
	return got == kind
}
