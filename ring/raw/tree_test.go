package raw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

var treeEntries = []string{"a", "top"}

// plant makes a directory of files.
func plant(o TargetOptions, fsys durable.FS, files map[string]string) error {
	target, err := newTarget(func() (durable.FS, error) { return fsys, nil }, o)
	if err != nil {
		return err
	}
	t := &Tree{t: target, top: treeEntries}
	return errors.Join(fill(t, files), t.Close())
}

func fill(t *Tree, files map[string]string) error {
	ctx := context.Background()
	if _, err := t.Check(); err != nil {
		return err
	}
	if err := t.Begin(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := t.Put(ctx, name, strings.NewReader(files[name]), int64(len(files[name]))); err != nil {
			return err
		}
	}
	if err := t.Commit(ctx); err != nil {
		return err
	}
	return t.Publish(ctx)
}

// treeRig is a place for a directory, sub/out below dir, and two contents for it.
type treeRig struct {
	*testing.T
	out      string
	o        TargetOptions
	one, two map[string]string
}

func newTreeRig(t *testing.T) *treeRig {
	dir := t.TempDir()
	return &treeRig{
		T:   t,
		out: filepath.Join(dir, "sub", "out"),
		o:   TargetOptions{Dir: dir, Name: "sub/out", Mkdir: true, Mode: 0o640},
		one: map[string]string{"top": "1", "a/b/c": "deep", "a/b/d": strings.Repeat("x", 3<<20)},
		two: map[string]string{"top": "2", "a/e": "other"},
	}
}

// put places a directory of files.
func (r *treeRig) put(files map[string]string) error {
	tree, err := NewTree(r.o, treeEntries)
	if err != nil {
		return err
	}
	return errors.Join(fill(tree, files), tree.Close())
}

func (r *treeRig) mustPut(files map[string]string) {
	r.Helper()
	if err := r.put(files); err != nil {
		r.Fatal(err)
	}
}

// want holds that files, with the modes asked for, are there and nothing is beside them.
func (r *treeRig) want(files map[string]string) {
	r.Helper()
	have := map[string]string{}
	err := filepath.WalkDir(r.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o640)
		if d.IsDir() {
			mode = 0o750 | fs.ModeDir
		} else {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(r.out, path)
			have[rel] = string(b)
		}
		if info, err := d.Info(); err != nil || info.Mode() != mode {
			r.Errorf("%s: mode %v, want %v", path, info.Mode(), mode)
		}
		return nil
	})
	if err != nil || !maps.Equal(have, files) {
		r.Errorf("%d files, %v; want %d", len(have), err, len(files))
	}
	if names, _ := os.ReadDir(filepath.Dir(r.out)); len(names) != 1 {
		r.Errorf("beside it: %v", names)
	}
}

func (r *treeRig) fails(err error, text string) {
	r.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		r.Errorf("%v, want %q", err, text)
	}
}

func TestTree(t *testing.T) {
	r := newTreeRig(t)
	r.mustPut(r.one)
	r.want(r.one)
	r.fails(r.put(r.two), "directory already exists")
	r.want(r.one)
	r.o.Overwrite = true
	r.mustPut(r.two)
	r.want(r.two)
}

// What is not ours is not lost.
func TestTreeWithForeignFile(t *testing.T) {
	r := newTreeRig(t)
	r.o.Overwrite = true
	r.mustPut(r.two)
	mine := filepath.Join(r.out, "thesis.tex")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.fails(r.put(r.one), "thesis.tex is in it")
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	r.want(r.two)
}

// A part that a killed process left is no obstacle, one that is being filled is.
func TestTreePart(t *testing.T) {
	r := newTreeRig(t)
	r.o.Overwrite = true
	r.mustPut(r.two)
	part := PartPath(r.out)
	if err := os.MkdirAll(filepath.Join(part, "a", "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := NewTree(r.o, treeEntries)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.put(r.one); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	if gone, err := RemovePart(part); gone || err == nil {
		t.Errorf("a part that is being filled: removed %v, %v", gone, err)
	}
	r.fails(first.Put(t.Context(), "b", strings.NewReader(""), 0), "no name for a file")
	r.fails(first.Put(t.Context(), "a/../../x", strings.NewReader(""), 0), "no name for a file")
	r.fails(first.Put(t.Context(), "top", strings.NewReader("short"), 9), "5 bytes written, 9 expected")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(r.two)
	if err := os.MkdirAll(filepath.Join(part, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if gone, err := RemovePart(part); !gone || err != nil {
		t.Errorf("a part of nobody: removed %v, %v", gone, err)
	}
}

// A link in the place of a part is refused, and what it leads to stays.
func TestTreePartIsLink(t *testing.T) {
	r := newTreeRig(t)
	r.o.Overwrite = true
	r.mustPut(r.two)
	part, elsewhere := PartPath(r.out), t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, part); err != nil {
		t.Fatal(err)
	}
	r.fails(r.put(r.one), "not a part file of ours")
	if err := os.Remove(part); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "keep")); err != nil {
		t.Error(err)
	}
	r.mustPut(r.one)
	r.want(r.one)
}

func TestTreeCrashSweep(t *testing.T) {
	before, after := map[string]string{"top": "old", "a/x": "of the old"}, map[string]string{"top": "new", "a/y": "of the new"}
	o := TargetOptions{Name: "out", Overwrite: true}
	same := func(f *crashfs.FS, files map[string]string) bool {
		if names, err := f.Names("out/a"); err != nil || len(names) != len(files)-1 {
			return false
		}
		for name, text := range files {
			if got, err := readAll(f, "out/"+name); err != nil || !bytes.Equal(got, []byte(text)) {
				return false
			}
		}
		return true
	}
	sweep := func(old map[string]string, prepare func(*crashfs.FS)) error {
		work := func(f *crashfs.FS) error { return plant(o, f, after) }
		return crashfs.Sweep(func() (*crashfs.FS, error) {
			f := crashfs.New()
			var err error
			if old != nil {
				err = plant(o, f, old)
			}
			prepare(f)
			return f, err
		}, work, func(f *crashfs.FS, worked error) error {
			_, err := f.Lstat("out")
			isOld := old != nil && same(f, old) || old == nil && errors.Is(err, fs.ErrNotExist)
			switch isNew := same(f, after); {
			case !isNew && !isOld:
				return errors.New("neither the old directory nor the new one")
			case worked == nil && !isNew:
				return errors.New("work succeeded, the directory is the old one")
			}
			if err := work(f); err != nil {
				return fmt.Errorf("again: %w", err)
			}
			if !same(f, after) {
				return errors.New("not the new directory after it was done again")
			}
			return nil
		})
	}
	for _, old := range []map[string]string{nil, before} {
		if err := sweep(old, func(*crashfs.FS) {}); err != nil {
			t.Error(err)
		}
		if sweep(old, func(f *crashfs.FS) { f.IgnoreSync(true, false) }) == nil {
			t.Error("the sweep does not notice: no fsync of files")
		}
		if sweep(old, func(f *crashfs.FS) { f.IgnoreSync(false, true) }) == nil {
			t.Error("the sweep does not notice: no fsync of directories")
		}
	}
}
