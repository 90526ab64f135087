package raw

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// calls numbers the operations of file systems and files, and calls before in front of each.
type calls struct {
	n      int
	before func(n int, what string)
}

func (c *calls) call(what string) {
	c.n++
	c.before(c.n, what)
}

type calledFS struct {
	durable.FS
	c *calls
}

func (f calledFS) file(file durable.File, err error) (durable.File, error) {
	if err != nil {
		return nil, err
	}
	return calledFile{file, f.c}, nil
}

func (f calledFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f.c.call("open")
	return f.file(f.FS.OpenFile(name, flag, perm))
}

func (f calledFS) Sub(name string) (durable.FS, error) {
	f.c.call("sub")
	sub, err := f.FS.Sub(name)
	if err != nil {
		return nil, err
	}
	return calledFS{sub, f.c}, nil
}

func (f calledFS) Lstat(name string) (fs.FileInfo, error) {
	f.c.call("lstat")
	return f.FS.Lstat(name)
}

func (f calledFS) Mkdir(name string, perm fs.FileMode) error {
	f.c.call("mkdir")
	return f.FS.Mkdir(name, perm)
}

func (f calledFS) Remove(name string) error    { f.c.call("remove"); return f.FS.Remove(name) }
func (f calledFS) RemoveAll(name string) error { f.c.call("removeall"); return f.FS.RemoveAll(name) }
func (f calledFS) Link(from, to string) error  { f.c.call("link"); return f.FS.Link(from, to) }
func (f calledFS) SyncDir(name string) error   { f.c.call("syncdir"); return f.FS.SyncDir(name) }
func (f calledFS) Rename(from, to string) error {
	f.c.call("rename")
	return f.FS.Rename(from, to)
}
func (f calledFS) RenameNew(from, to string) error {
	f.c.call("rename")
	return f.FS.RenameNew(from, to)
}
func (f calledFS) Exchange(a, b string) error { f.c.call("rename"); return f.FS.Exchange(a, b) }
func (f calledFS) Names(dir string) ([]string, error) {
	f.c.call("names")
	return f.FS.Names(dir)
}

type calledFile struct {
	durable.File
	c *calls
}

func (f calledFile) WriteAt(b []byte, off int64) (int, error) {
	f.c.call("write")
	return f.File.WriteAt(b, off)
}
func (f calledFile) ReadAt(b []byte, off int64) (int, error) {
	f.c.call("read")
	return f.File.ReadAt(b, off)
}
func (f calledFile) Stat() (fs.FileInfo, error)   { f.c.call("stat"); return f.File.Stat() }
func (f calledFile) Truncate(n int64) error       { f.c.call("truncate"); return f.File.Truncate(n) }
func (f calledFile) Chmod(mode fs.FileMode) error { f.c.call("chmod"); return f.File.Chmod(mode) }
func (f calledFile) Chown(uid, gid int) error     { f.c.call("chown"); return f.File.Chown(uid, gid) }
func (f calledFile) Chtimes(a, m time.Time) error {
	f.c.call("chtimes")
	return f.File.Chtimes(a, m)
}
func (f calledFile) Sync() error { f.c.call("sync"); return f.File.Sync() }

// swap is how somebody exchanges the directory alice/sub.
type swap struct {
	name string
	with string // what it is exchanged with, in the directory of alice
	// link says that this is a link to the directory of bob, and otherwise it is a directory like the first one.
	link bool
}

// Whoever exchanges a directory on the way to an output, at any operation of placing it, gets nothing into the directory
// of somebody else, and placing succeeds only if the output got its name where the path leads.
func TestExchangedAtEveryCall(t *testing.T) {
	file := func(t *testing.T, open func() (durable.FS, error), o TargetOptions) error {
		target, err := newTarget(open, o)
		if err != nil {
			return err
		}
		return errors.Join(offerAndPlace(target), target.Close())
	}
	tree := func(t *testing.T, open func() (durable.FS, error), o TargetOptions) error {
		target, err := newTarget(open, o)
		if err != nil {
			return err
		}
		tree := &Tree{t: target, top: treeEntries}
		return errors.Join(fill(tree, treeOfRoot), tree.Close())
	}
	same := func(t *testing.T, open func() (durable.FS, error), o TargetOptions) error {
		target, err := newTarget(open, o)
		if err != nil {
			return err
		}
		_, _, err = target.Offer(ctx, []v1.Descriptor{blob([]byte("before"))})
		if err == nil {
			err = place(target, []byte("before"))
		}
		return errors.Join(err, target.Close())
	}
	owner := &Owner{UID: os.Geteuid(), GID: os.Getegid()}
	for _, tt := range []struct {
		name, file string // file is what is looked for
		o          TargetOptions
		work       func(*testing.T, func() (durable.FS, error), TargetOptions) error
	}{
		{"new file", "out", TargetOptions{Name: "alice/sub/out", Owner: owner, ModTime: time.Unix(9, 0)}, file},
		{"replaced file", "there", TargetOptions{Name: "alice/sub/there", Overwrite: true, Mode: 0o600}, file},
		{"made directories", "made/again/out", TargetOptions{Name: "alice/sub/made/again/out", Mkdir: true}, file},
		{"file that is there", "there", TargetOptions{Name: "alice/sub/there", Mode: 0o600}, same},
		{"new tree", "tree/top", TargetOptions{Name: "alice/sub/tree"}, tree},
		{"replaced tree", "old/top", TargetOptions{Name: "alice/sub/old", Overwrite: true}, tree},
	} {
		for _, s := range []swap{{"link", "link", true}, {"directory", "other", false}} {
			t.Run(tt.name+" by "+s.name, func(t *testing.T) {
				for n := 1; ; n++ {
					x := &exchange{swap: s, file: tt.file, naming: "rename"}
					if tt.name == "file that is there" {
						x.naming = "chmod"
					}
					if last := x.at(t, n, tt.o, tt.work); last {
						t.Logf("%d operations", n-1)
						if n < 10 {
							t.Error("too few: nothing was placed")
						}
						break
					}
				}
			})
		}
	}
}

// exchange is one run in which the directory is exchanged in front of one operation.
type exchange struct {
	swap
	file   string
	naming string // the operation from which on the output is there
	dir    string // the permitted one

	renamed bool // the output had its name before
}

// at places an output while the directory is exchanged in front of operation n. It returns true if there are less.
func (x *exchange) at(t *testing.T, n int, o TargetOptions, work func(*testing.T, func() (durable.FS, error), TargetOptions) error) bool {
	x.dir = exchanged(t)
	for _, sub := range []string{"alice/sub", "alice/other", "bob"} {
		x.furnish(t, sub)
	}
	strangers := []string{"bob"}
	if !x.link {
		strangers = append(strangers, "alice/sub") // where the other one is, once they are exchanged
	}
	before := map[string]string{}
	c, done := &calls{}, false
	c.before = func(i int, what string) {
		if i != n {
			x.renamed = x.renamed || !done && what == x.naming
			return
		}
		done = true
		alice := filepath.Join(x.dir, "alice")
		if err := unix.Renameat2(unix.AT_FDCWD, alice+"/sub", unix.AT_FDCWD, alice+"/"+x.with, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
		for _, dir := range strangers {
			before[dir] = describe(t, filepath.Join(x.dir, dir))
		}
	}
	o.Dir = x.dir
	err := work(t, func() (durable.FS, error) {
		root, err := durable.OpenRoot(x.dir)
		return calledFS{root, c}, err
	}, o)
	if !done {
		if err != nil {
			t.Fatalf("undisturbed: %v", err)
		}
		return true
	}
	x.judge(t, fmt.Sprintf("exchanged in front of operation %d of it", n), err, before)
	return false
}

// furnish puts into a directory what may be in it before.
func (x *exchange) furnish(t *testing.T, dir string) {
	dir = filepath.Join(x.dir, dir)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "old"), 0o755), os.WriteFile(filepath.Join(dir, "old", "top"), []byte("before"), 0o644),
		os.WriteFile(filepath.Join(dir, "there"), []byte("before"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (x *exchange) judge(t *testing.T, when string, err error, before map[string]string) {
	named := filepath.Join(x.dir, "alice/sub", x.file)
	b, _ := os.ReadFile(named)
	there := bytes.Equal(b, fileOfRoot) || string(b) == treeOfRoot["top"] && strings.HasSuffix(x.file, "top")
	if info, serr := os.Lstat(named); serr == nil && string(b) == "before" && info.Mode().Perm() == 0o600 {
		there = true
	}
	for dir, was := range before {
		if now := describe(t, filepath.Join(x.dir, dir)); now != was && (dir == "bob" || err != nil) {
			t.Errorf("%s: %s was\n%s and is\n%s", when, dir, was, now)
		}
	}
	if err == nil && !there && !x.renamed {
		t.Errorf("%s: success, and it is not there", when)
	}
	if err != nil && !x.renamed && !strings.Contains(err.Error(), "alice/sub") {
		t.Errorf("%s: the error does not name the directory: %v", when, err)
	}
}

// describe is all that can be seen of a directory and what is in it.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		text := ""
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text = string(b)
		}
		fmt.Fprintf(&all, "%s %v %d %v %q\n", rel, info.Mode(), info.Size(), info.ModTime(), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// A transfer that fails removes the directories that it made, and not those that somebody has put in their place.
func TestUnmakeExchanged(t *testing.T) {
	for _, how := range []string{"link", "directory"} {
		t.Run(how, func(t *testing.T) {
			permitted := exchanged(t)
			target, err := NewTarget(TargetOptions{Dir: permitted, Name: "alice/made/x/out", Mkdir: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := target.Begin(ctx, blob(fileOfRoot), 0); err != nil {
				t.Fatal(err)
			}
			made, theirs := filepath.Join(permitted, "alice/made"), filepath.Join(permitted, "alice/theirs")
			err = errors.Join(os.Rename(made, made+"2"), os.Mkdir(theirs, 0o755), os.WriteFile(filepath.Join(theirs, "x"), nil, 0o644))
			if how == "link" {
				err = errors.Join(err, os.Symlink("theirs", made))
			} else {
				err = errors.Join(err, os.Rename(theirs, made))
			}
			if err != nil {
				t.Fatal(err)
			}
			target.Close()
			if _, err := os.Stat(filepath.Join(made, "x")); err != nil {
				t.Error(err)
			}
		})
	}
}
