package raw

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

var ctx = context.Background()

func blob(b []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    TargetOptions
		old  []byte
		size int
	}{
		{"new", TargetOptions{Name: "out"}, nil, 9<<20 + 3}, // beyond one writeback
		{"over a longer one", TargetOptions{Name: "out", Overwrite: true}, random(3 << 20), 2<<20 + 3},
		{"in new directories", TargetOptions{Name: "a/b/out", Mkdir: true}, nil, 1<<20 + 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := random(tt.size)
			ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
				tt.o.Dir = t.TempDir()
				path := filepath.Join(tt.o.Dir, tt.o.Name)
				if tt.old != nil {
					os.WriteFile(path, tt.old, 0o644)
				}
				return ringtest.Sink{
					Compares: true, Renews: tt.o.Overwrite,
					New: func() ring.Sink {
						target, err := NewTarget(tt.o)
						if err != nil {
							t.Fatal(err)
						}
						return target
					},
					Blobs: []v1.Descriptor{blob(want)},
					Bytes: [][]byte{want},
					Published: func(t *testing.T) bool {
						got, err := os.ReadFile(path)
						if err == nil && !bytes.Equal(got, want) && !bytes.Equal(got, tt.old) {
							t.Error("neither the old file nor the new one")
						}
						return bytes.Equal(got, want)
					},
					Left: func(t *testing.T) (left []string) {
						filepath.WalkDir(tt.o.Dir, func(path string, d fs.DirEntry, err error) error {
							if strings.Contains(path, ".dolly-img-part") {
								left = append(left, path)
							}
							return nil
						})
						return left
					},
				}
			})
		})
	}
}

func TestDiscard(t *testing.T) {
	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
		return ringtest.Sink{
			New:   func() ring.Sink { return Discard{} },
			Blobs: []v1.Descriptor{blob([]byte("one")), blob([]byte("two"))},
			Bytes: [][]byte{[]byte("one"), []byte("two")},
		}
	})
}

func TestStdout(t *testing.T) {
	want := random(100000)
	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
		var out bytes.Buffer
		t.Cleanup(func() {
			if !bytes.HasPrefix(want, out.Bytes()) {
				t.Error("other bytes came out")
			}
		})
		return ringtest.Sink{
			New:    func() ring.Sink { return Stdout(&out) },
			Blobs:  []v1.Descriptor{blob(want)},
			Bytes:  [][]byte{want},
			OneWay: true,
		}
	})
}

// place does what the ring does with a Sink of one blob.
func place(t *Target, b []byte) error {
	d := blob(b)
	if _, _, err := t.Offer(ctx, []v1.Descriptor{d}); err != nil {
		return err
	}
	w, err := t.Begin(ctx, d, 0)
	if err != nil {
		return err
	}
	for rest := b; len(rest) > 0; {
		n := min(len(rest), 1+len(b)/3)
		if _, err := w.Write(rest[:n]); err != nil {
			return errors.Join(err, w.Abort(0))
		}
		rest = rest[n:]
	}
	if err := w.Commit(ctx, d); err != nil {
		return errors.Join(err, w.Abort(0))
	}
	return t.Publish(ctx)
}

func TestTargetAttributes(t *testing.T) {
	dir := t.TempDir()
	mtime := time.Unix(1700000000, 5000)
	target, err := NewTarget(TargetOptions{Dir: dir, Name: "out", Mode: 0o640, ModTime: mtime, Owner: &Owner{-1, os.Getgid()}})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := place(target, []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(target.Path())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o640 || !info.ModTime().Equal(mtime) {
		t.Errorf("mode %v, time %v", info.Mode(), info.ModTime())
	}
	if err := target.Publish(ctx); err == nil {
		t.Error("published twice")
	}
}

func TestTargetRefuses(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	os.WriteFile(outside, []byte("mine"), 0o600)
	os.WriteFile(filepath.Join(dir, "file"), []byte("old"), 0o644)
	os.Mkdir(filepath.Join(dir, "dir"), 0o755)
	os.Symlink(outside, filepath.Join(dir, "link"))
	os.Symlink("dir", filepath.Join(dir, "dirlink"))
	os.Symlink(outside, filepath.Join(dir, ".evil.dolly-img-part"))
	os.Symlink("nowhere", filepath.Join(dir, ".dangling.dolly-img-part"))
	os.WriteFile(filepath.Join(dir, ".two.dolly-img-part"), []byte("x"), 0o600)
	os.Link(filepath.Join(dir, ".two.dolly-img-part"), filepath.Join(dir, "otherlink"))
	syscall.Mkfifo(filepath.Join(dir, ".pipe.dolly-img-part"), 0o600)
	syscall.Mkfifo(filepath.Join(dir, "pipe2"), 0o600)
	os.Mkdir(filepath.Join(dir, ".d.dolly-img-part"), 0o755)
	before := list(t, dir)
	for _, tt := range []struct {
		name      string
		overwrite bool
		want      string
		hint      bool
	}{
		{"file", false, "exists", true},
		{"dir", true, "is a directory", true},
		{"link", true, "symbolic link", false},
		{"pipe2", true, "not a regular file", false},
		{"no/file", true, "does not exist", true},
		{"file/file", true, "not a directory", false},
		{"dirlink/file", true, "symbolic link", false},
		{"evil", true, "not a part file of ours", true},
		{"dangling", true, "not a part file of ours", true},
		{"two", true, "not a part file of ours", true},
		{"pipe", true, "not a part file of ours", true},
		{"d", true, "not a part file of ours", true},
		{"../up", true, "not the name", false},
		{"/etc/passwd", true, "not the name", false},
		{"", true, "not the name", false},
		{".", true, "not the name", false},
		{"dir/", true, "not the name", false},
		{"a\x00b", true, "not the name", false},
		{strings.Repeat("n", 250), true, "too long", true},
	} {
		target, err := NewTarget(TargetOptions{Dir: dir, Name: tt.name, Overwrite: tt.overwrite})
		if err == nil {
			_, _, err = target.Offer(ctx, []v1.Descriptor{blob(nil)})
			if w, berr := target.Begin(ctx, blob(nil), 0); berr == nil { // nothing of it may harm
				w.Abort(0)
			}
			target.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || (kindOf(err) != "") != tt.hint {
			t.Errorf("%q: %v (kind %q), want %s", tt.name, err, kindOf(err), tt.want)
		}
	}
	if after := list(t, dir); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("directory was %v, is %v", before, after)
	}
	if b, _ := os.ReadFile(outside); string(b) != "mine" {
		t.Errorf("outside became %q", b)
	}
	if _, err := NewTarget(TargetOptions{Dir: filepath.Join(dir, "no"), Name: "x"}); err == nil {
		t.Error("a directory that is not there was opened")
	}
	target, _ := NewTarget(TargetOptions{Dir: dir, Name: "x"})
	defer target.Close()
	if _, _, err := target.Offer(ctx, make([]v1.Descriptor, 2)); err == nil {
		t.Error("two blobs were taken")
	}
}

// One writer a target; what a killed one left is taken over.
func TestTargetBusy(t *testing.T) {
	dir := t.TempDir()
	o := TargetOptions{Dir: dir, Name: "out"}
	first, _ := NewTarget(o)
	second, _ := NewTarget(o)
	defer second.Close()
	w, err := first.Begin(ctx, blob([]byte("abc")), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("a"))
	if _, _, err := second.Offer(ctx, []v1.Descriptor{blob(nil)}); !errors.Is(err, ErrBusy) {
		t.Errorf("offer: %v", err)
	}
	if _, err := second.Begin(ctx, blob(nil), 0); !errors.Is(err, ErrBusy) {
		t.Errorf("begin: %v", err)
	}
	o.Shared = true // then it may be another node, of this transfer
	third, _ := NewTarget(o)
	defer third.Close()
	if _, err := third.Begin(ctx, blob(nil), 0); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "name one node") {
		t.Errorf("begin in a shared directory: %v", err)
	}
	first.Close()
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	os.WriteFile(filepath.Join(dir, ".out.dolly-img-part"), []byte("left by a process that was killed"), 0o600)
	if err := place(second, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(second.Path()); string(b) != "new" {
		t.Errorf("file is %q", b)
	}
}

// What appears under the final name while we write is not overwritten.
func TestTargetAppears(t *testing.T) {
	dir := t.TempDir()
	target, _ := NewTarget(TargetOptions{Dir: dir, Name: "out"})
	w, _ := target.Begin(ctx, blob(nil), 0)
	if err := w.Commit(ctx, blob(nil)); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(target.Path(), []byte("theirs"), 0o644)
	if err := target.Publish(ctx); !errors.Is(err, fs.ErrExist) || kindOf(err) == "" {
		t.Errorf("publish: %v", err)
	}
	if err := target.fs.RenameNew(".out.dolly-img-part", "out"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename: %v", err)
	}
	target.Close()
	if b, _ := os.ReadFile(filepath.Join(dir, "out")); string(b) != "theirs" {
		t.Errorf("file is %q", b)
	}
}

// A part that somebody moved is not published.
func TestTargetMoved(t *testing.T) {
	dir := t.TempDir()
	target, _ := NewTarget(TargetOptions{Dir: dir, Name: "out"})
	defer target.Close()
	w, _ := target.Begin(ctx, blob(nil), 0)
	w.Commit(ctx, blob(nil))
	part := filepath.Join(dir, ".out.dolly-img-part")
	os.Rename(part, part+"2")
	os.WriteFile(part, []byte("other bytes"), 0o600)
	if err := target.Publish(ctx); err == nil {
		t.Error("published what another put there")
	}
}

func TestTargetMkdirCleansUp(t *testing.T) {
	dir := t.TempDir()
	target, _ := NewTarget(TargetOptions{Dir: dir, Name: "a/b/out", Mkdir: true})
	if _, err := target.Begin(ctx, blob(nil), 0); err != nil {
		t.Fatal(err)
	}
	target.Close()
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func TestClone(t *testing.T) {
	want := random(3<<20 + 1)
	src := filepath.Join(t.TempDir(), "src")
	os.WriteFile(src, want, 0o444)
	f, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		name string
		size int64
		ok   bool
	}{{"whole", int64(len(want)), true}, {"start", 5, true}, {"beyond", int64(len(want)) + 1, false}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			target, _ := NewTarget(TargetOptions{Dir: dir, Name: "out"})
			defer target.Close()
			if err := target.Clone(ctx, f, tt.size); (err == nil) != tt.ok {
				t.Fatal(err)
			}
			if !tt.ok {
				if names := list(t, dir); len(names) != 0 {
					t.Errorf("left: %v", names)
				}
				return
			}
			if _, err := os.Stat(target.Path()); err == nil {
				t.Error("visible before Publish")
			}
			if err := target.Publish(ctx); err != nil {
				t.Fatal(err)
			}
			if b, _ := os.ReadFile(target.Path()); !bytes.Equal(b, want[:tt.size]) {
				t.Error("other bytes")
			}
		})
	}
}

// A file that cannot grow (here by the process's limit) leaves nothing behind.
func TestTargetNoSpace(t *testing.T) {
	dir := t.TempDir()
	target, _ := NewTarget(TargetOptions{Dir: dir, Name: "out"})
	defer target.Close()
	if _, err := target.Begin(ctx, v1.Descriptor{Size: 1 << 60}, 0); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("begin of an exabyte: %v", err)
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if _, free, err := target.Offer(ctx, []v1.Descriptor{blob(nil)}); free <= 0 || err != nil {
		t.Errorf("free is %d, %v", free, err)
	}
}
