package raw

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// lockAsReader locks a file or directory as everybody can who may read it.
func lockAsReader(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// What was left when it was about to get its name, and a directory that was switched away, can be read by everybody. Who
// locks one holds up no transfer.
func TestLeftLockedByReader(t *testing.T) {
	for _, tt := range []struct {
		name string
		tree bool
	}{{"file", false}, {"tree", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := TargetOptions{Dir: t.TempDir(), Name: "out"}
				part := filepath.Join(o.Dir, partName("out"))
				place, left := func() error { return placeNew(o, "new") }, os.WriteFile(part, []byte("old"), 0o644)
				if tt.tree {
					rig := &treeRig{T: t, o: o}
					place, left = func() error { return rig.put(treeOfRoot) }, errors.Join(left, os.Remove(part), os.MkdirAll(filepath.Join(part, "a"), 0o755))
				}
				if left != nil {
					t.Fatal(left)
				}
				lockAsReader(t, part)
				start := time.Now()
				if err := place(); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > 2*lockPatience {
					t.Errorf("held up for %v", took)
				}
				if names := list(t, o.Dir); len(names) != 1 || names[0] != "out" {
					t.Errorf("there is %v", names)
				}
			})
		})
	}
}

// placeNew places a file after it was offered.
func placeNew(o TargetOptions, text string) error {
	target, err := NewTarget(o)
	if err != nil {
		return err
	}
	_, _, err = target.Offer(ctx, []v1.Descriptor{blob([]byte(text))})
	if err == nil {
		err = place(target, []byte(text))
	}
	return errors.Join(err, target.Close())
}

// The daemon removes such a part, too, once it is too old.
func TestRemovePartLockedByReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		part := filepath.Join(t.TempDir(), partName("out"))
		if err := os.WriteFile(part, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		lockAsReader(t, part)
		if gone, err := RemovePart(part); !gone || err != nil {
			t.Errorf("%v, %v", gone, err)
		}
	})
}

// Until it gets its name nobody else can open what is complete, so that nobody else can hold its lock.
func TestSealedUntilPublish(t *testing.T) {
	o := TargetOptions{Dir: t.TempDir(), Name: "out", Mode: 0o644}
	target, err := NewTarget(o)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	w, err := target.Begin(ctx, blob([]byte("abc")), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("abc"))
	if err := w.Commit(ctx, blob([]byte("abc"))); err != nil {
		t.Fatal(err)
	}
	o.Name = "tree"
	tree, err := NewTree(o, treeEntries)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := errors.Join(tree.Begin(ctx), tree.Put(ctx, "top", strings.NewReader("1"), 1), tree.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{partName("out"), partName("tree")} {
		if info, err := os.Lstat(filepath.Join(o.Dir, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := errors.Join(target.Publish(ctx), tree.Publish(ctx)); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"out": 0o644, "tree": 0o755 | os.ModeDir, "tree/top": 0o644} {
		if info, err := os.Lstat(filepath.Join(o.Dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// Whom a part is given to can write to it before it has its name. Then it does not get its name.
func TestGivenAwayAndChanged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	o := TargetOptions{Dir: t.TempDir(), Name: "out", Owner: &Owner{UID: alice, GID: -1}, ModTime: time.Unix(9, 0)}
	target, err := NewTarget(o)
	if err != nil {
		t.Fatal(err)
	}
	w, err := target.Begin(ctx, blob([]byte("abc")), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("abc"))
	if err := w.Commit(ctx, blob([]byte("abc"))); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(o.Dir, partName("out"))
	before, err := os.Lstat(part)
	if err != nil {
		t.Fatal(err)
	}
	for !ctimeMoved(t, part, before) { // the clock of the file system has a tick of some milliseconds
		if err := os.WriteFile(part, []byte("abX"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(part, time.Now(), o.ModTime); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Publish(ctx); !errors.Is(err, errReplaced) {
		t.Errorf("published: %v", err)
	}
	if err := target.Close(); err != nil {
		t.Error(err)
	}
	if names := list(t, o.Dir); len(names) != 0 {
		t.Errorf("there is %v", names)
	}
}

func ctimeMoved(t *testing.T, path string, before os.FileInfo) bool {
	t.Helper()
	now, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return stat(now).Ctim != stat(before).Ctim
}

// A directory that was switched away and not removed, because a process was killed, has the owner of the one before. It is
// in nobody's way.
func TestLeftTreeOfOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	rig := &treeRig{T: t, o: TargetOptions{Dir: t.TempDir(), Name: "out", Owner: &Owner{UID: alice, GID: -1}}}
	part := filepath.Join(rig.o.Dir, partName("out"))
	if err := errors.Join(os.MkdirAll(filepath.Join(part, "a"), 0o755), os.Chown(part, alice, -1)); err != nil {
		t.Fatal(err)
	}
	if err := rig.put(treeOfRoot); err != nil {
		t.Error(err)
	}
	if names := list(t, rig.o.Dir); len(names) != 1 || names[0] != "out" {
		t.Errorf("there is %v", names)
	}
}
