package raw

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// alice owns a directory below the permitted one, and bob another; alice cannot write to that of bob.
const alice, bob = 12345, 12346

var (
	fileOfRoot = []byte("root's")
	treeOfRoot = map[string]string{"top": "1", "a/b": "2"}
)

func offerAndPlace(target *Target) error {
	if _, _, err := target.Offer(ctx, []v1.Descriptor{blob(fileOfRoot)}); err != nil {
		return err
	}
	return place(target, fileOfRoot)
}

// exchanged makes a permitted directory in which alice has a directory with sub, which is a directory, and link, which is a
// symbolic link to the directory of bob.
func exchanged(t *testing.T) (permitted string) {
	t.Helper()
	permitted = t.TempDir()
	for _, dir := range []string{"alice", "alice/sub", "bob"} {
		if err := os.Mkdir(filepath.Join(permitted, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../bob", filepath.Join(permitted, "alice/link")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return permitted
	}
	for name, uid := range map[string]int{"alice": alice, "alice/sub": alice, "alice/link": alice, "bob": bob} {
		if err := os.Lchown(filepath.Join(permitted, name), uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	return permitted
}

// exchangeAsAlice exchanges sub and link all the time until ctx ends, with the rights of alice if the test is run by root.
func exchangeAsAlice(ctx context.Context, dir string) <-chan error {
	ended := make(chan error, 1)
	go func() {
		// The rights are of this thread alone, and it ends with the goroutine because it stays locked.
		runtime.LockOSThread()
		d, err := os.Open(dir) // because alice cannot reach it by its path
		if err != nil {
			ended <- err
			return
		}
		defer d.Close()
		if os.Geteuid() == 0 {
			if _, err := unix.SetfsuidRetUid(alice); err != nil {
				ended <- err
				return
			}
		}
		for ctx.Err() == nil {
			if err := unix.Renameat2(int(d.Fd()), "sub", int(d.Fd()), "link", unix.RENAME_EXCHANGE); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	return ended
}

// While alice exchanges a directory of hers with a link to that of bob, nothing of what is written to hers gets
// into bob's, also not for a moment.
func TestRace(t *testing.T) {
	files := func(o TargetOptions) error {
		target, err := NewTarget(o)
		if err != nil {
			return err
		}
		return errors.Join(offerAndPlace(target), target.Close())
	}
	trees := func(o TargetOptions) error {
		tree, err := NewTree(o, treeEntries)
		if err != nil {
			return err
		}
		return errors.Join(fill(tree, treeOfRoot), tree.Close())
	}
	parts := func(o TargetOptions) error {
		_, err := RemovePart(PartPath(filepath.Join(o.Dir, o.Name)))
		return err
	}
	for _, tt := range []struct {
		name string
		o    TargetOptions
		work func(TargetOptions) error
	}{
		{"file", TargetOptions{Name: "alice/sub/out", Overwrite: true}, files},
		{"file and directory", TargetOptions{Name: "alice/sub/made/out", Overwrite: true, Mkdir: true}, files},
		{"tree", TargetOptions{Name: "alice/sub/out", Overwrite: true}, trees},
		{"part", TargetOptions{Name: "alice/sub/kept"}, parts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Dir = exchanged(t)
			kept := filepath.Join(tt.o.Dir, "bob", partName("kept"))
			if err := os.WriteFile(kept, []byte("of another transfer"), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			ended := exchangeAsAlice(ctx, filepath.Join(tt.o.Dir, "alice"))
			tries, placed, wrong := 0, 0, 0
			others := filepath.Join(tt.o.Dir, "bob")
			for ; ctx.Err() == nil; tries++ {
				if tt.work(tt.o) == nil {
					placed++
				}
				if names := list(t, others); len(names) != 1 {
					wrong++
					for _, name := range names {
						os.RemoveAll(filepath.Join(others, name))
					}
					os.WriteFile(kept, []byte("of another transfer"), 0o600)
				}
			}
			if err := <-ended; err != nil {
				t.Fatal("exchange:", err)
			}
			t.Logf("%d tries, %d succeeded", tries, placed)
			if wrong > 0 {
				t.Errorf("in %d of %d tries something was changed in the directory of bob", wrong, tries)
			}
			if tries == 0 {
				t.Error("nothing was tried")
			}
		})
	}
}
