package raw

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// stalled is a part whose transfer stands still between its mode and its name: the file system is busy, or the process
// is stopped. Meanwhile others do something.
type stalled struct {
	durable.File
	meanwhile func()
}

func (f stalled) Chmod(mode os.FileMode) error {
	err := f.File.Chmod(mode)
	f.meanwhile()
	return err
}

// While a transfer is about to give its part the final name, and stands still for however long, another one to the same
// target begins, or a daemon that starts cleans up. What has the final name is whole at every instant, and the other
// transfer's bytes are its own.
func TestStalledPublish(t *testing.T) {
	for name, run := range map[string]func(*testing.T, TargetOptions, func(string) error){"file": stalledFile, "tree": stalledTree} {
		t.Run(name, func(t *testing.T) {
			for name, cleanUp := range map[string]func(part string) error{
				"transfer": nil, "clean-up": RemoveAside, "half a clean-up": halfCleanUp,
			} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						o := TargetOptions{Dir: t.TempDir(), Name: "out", Overwrite: true}
						run(t, o, cleanUp)
						if err := RemoveAside(PartPath(filepath.Join(o.Dir, o.Name))); err != nil {
							t.Error(err)
						}
						onlyOut(t, o.Dir)
					})
				})
			}
		})
	}
}

// halfway is a directory in which only so many files and directories can be removed with what is in them.
type halfway struct {
	durable.FS
	more *int
}

var errHalfway = errors.New("killed")

func (h halfway) Sub(name string) (durable.FS, error) {
	sub, err := h.FS.Sub(name)
	return halfway{sub, h.more}, err
}

func (h halfway) RemoveAll(name string) error {
	if *h.more--; *h.more < 0 {
		return errHalfway
	}
	return h.FS.RemoveAll(name)
}

// halfCleanUp is RemoveAside of a daemon that is killed after it removed one of the two things in a directory.
func halfCleanUp(part string) error {
	t, err := leftAt(part)
	if err != nil {
		return err
	}
	defer t.closeDirs()
	more := 1
	t.fs = halfway{t.fs, &more}
	if err := t.dropAside(lockLeft); !errors.Is(err, errHalfway) {
		return err
	}
	return nil
}

func stalledFile(t *testing.T, o TargetOptions, cleanUp func(string) error) {
	out := filepath.Join(o.Dir, o.Name)
	whole := func(texts ...string) {
		t.Helper()
		b, err := os.ReadFile(out)
		for _, text := range texts {
			if string(b) == text {
				return
			}
		}
		t.Errorf("the output is %q, %v, and none of %q", b, err, texts)
	}
	if err := placeNew(o, "the old file"); err != nil {
		t.Fatal(err)
	}
	first, second := newFile(t, o), newFile(t, o)
	w, err := first.Begin(ctx, blob([]byte("first")), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("first"))
	if err := w.Commit(ctx, blob([]byte("first"))); err != nil {
		t.Fatal(err)
	}
	first.part.File = stalled{first.part.File, func() {
		if cleanUp != nil {
			if err := cleanUp(PartPath(out)); err != nil {
				t.Error(err)
			}
		}
		if _, err := second.Check(); err != nil {
			t.Fatal(err)
		}
		if w, err = second.Begin(ctx, blob([]byte("second")), 0); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("sec"))
		whole("the old file")
	}}
	if err := first.Publish(ctx); err != nil && cleanUp == nil {
		t.Error(err)
	} else if err == nil {
		whole("first")
	}
	whole("the old file", "first")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	w.Write([]byte("ond"))
	if err := errors.Join(w.Commit(ctx, blob([]byte("second"))), second.Publish(ctx), second.Close()); err != nil {
		t.Error(err)
	}
	whole("second")
}

func newFile(t *testing.T, o TargetOptions) *Target {
	t.Helper()
	target, err := NewTarget(o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func onlyOut(t *testing.T, dir string) {
	t.Helper()
	if names := list(t, dir); len(names) != 1 || names[0] != "out" {
		t.Errorf("there is %v", names)
	}
}

func stalledTree(t *testing.T, o TargetOptions, cleanUp func(string) error) {
	out := filepath.Join(o.Dir, o.Name)
	whole := func(texts ...string) {
		t.Helper()
		top, err := os.ReadFile(filepath.Join(out, "top"))
		deep, err2 := os.ReadFile(filepath.Join(out, "a/b"))
		for _, text := range texts {
			if string(top) == text && string(deep) == text {
				return
			}
		}
		t.Errorf("in the output are %q and %q, %v, and not twice one of %q", top, deep, errors.Join(err, err2), texts)
	}
	put := func(tree *Tree, name, text string) {
		t.Helper()
		if err := tree.Put(ctx, name, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	trees := [3]*Tree{}
	for i := range trees {
		var err error
		if trees[i], err = NewTree(o, treeEntries); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(fill(trees[0], map[string]string{"top": "old", "a/b": "old"}), trees[0].Close()); err != nil {
		t.Fatal(err)
	}
	first, second := trees[1], trees[2]
	if err := first.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	put(first, "top", "first")
	put(first, "a/b", "first")
	if err := first.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	first.d = stalled{first.d, func() {
		if cleanUp != nil {
			if err := cleanUp(PartPath(out)); err != nil {
				t.Error(err)
			}
		}
		if _, err := second.Check(); err != nil {
			t.Fatal(err)
		}
		if err := second.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		put(second, "top", "second")
		whole("old")
	}}
	if err := first.Publish(ctx); err != nil && cleanUp == nil {
		t.Error(err)
	} else if err == nil {
		whole("first")
	}
	whole("old", "first")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	put(second, "a/b", "second")
	if err := errors.Join(second.Commit(ctx), second.Publish(ctx), second.Close()); err != nil {
		t.Error(err)
	}
	whole("second")
}

// What a killed transfer had set aside goes with the next transfer, or when the daemon starts. Who holds its lock holds
// up no transfer, and keeps it from being removed only until the daemon starts.
func TestLeftAside(t *testing.T) {
	for _, tt := range []struct {
		name         string
		tree, locked bool
	}{{"file", false, false}, {"locked file", false, true}, {"tree", true, false}, {"locked tree", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := TargetOptions{Dir: t.TempDir(), Name: "out"}
				left := filepath.Join(o.Dir, asideName())
				err := os.WriteFile(left, []byte("old"), 0o644)
				if tt.tree {
					err = errors.Join(err, os.Remove(left), os.MkdirAll(filepath.Join(left, "a"), 0o755))
				}
				if err != nil {
					t.Fatal(err)
				}
				if tt.locked {
					lockAsReader(t, left)
				}
				start := time.Now()
				if err := placeNew(o, "new"); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("held up for %v", took)
				}
				if tt.locked {
					if err := RemoveAside(PartPath(filepath.Join(o.Dir, "out"))); err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(start); took > lockPatience+time.Second {
					t.Errorf("held up for %v", took)
				}
				onlyOut(t, o.Dir)
			})
		})
	}
}

// A part that could not get the final name, and is kept, can be gone on from.
func TestKeptAfterPublishFailed(t *testing.T) {
	o := TargetOptions{Dir: t.TempDir(), Name: "out"}
	first := newFile(t, o)
	w, err := first.Begin(ctx, blob([]byte("bytes")), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("bytes"))
	if err := w.Commit(ctx, blob([]byte("bytes"))); err != nil {
		t.Fatal(err)
	}
	first.part.File = stalled{first.part.File, func() {
		os.WriteFile(first.Path(), []byte("theirs"), 0o644)
	}}
	if err := first.Publish(ctx); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	os.Remove(first.Path())
	first.part.File = first.part.File.(stalled).File
	first.Keep()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	part := PartPath(filepath.Join(o.Dir, "out"))
	if info, err := os.Lstat(part); err != nil || info.Mode() != partMode || info.Size() != 5 {
		t.Errorf("%v, %v", info, err)
	}
	if names := list(t, o.Dir); len(names) != 1 {
		t.Errorf("there is %v", names)
	}
}
