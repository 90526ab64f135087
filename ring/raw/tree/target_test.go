package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// records is what a cache keeps.
type records map[string]digest.Digest

func (r records) PlacedAs(path string, info fs.FileInfo) (digest.Digest, bool) {
	d, ok := r[path]
	return d, ok
}

func (r records) RecordPlaced(path string, info fs.FileInfo, d digest.Digest) error {
	r[path] = d
	return nil
}

// place is a directory on a node, below one that is permitted.
type place struct {
	dir, out string
	o        TargetOptions
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	return &place{dir, filepath.Join(dir, "out"), TargetOptions{
		Place: raw.TargetOptions{Dir: dir, Name: "out", Overwrite: true}, Special: true, Records: records{},
	}}
}

func (p *place) target(t *testing.T) *Target {
	t.Helper()
	target, err := NewTarget(p.o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// blobOf describes a stream whose digest is known.
func blobOf(stream []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: MediaType, Size: int64(len(stream)), Digest: digest.FromBytes(stream)}
}

// send has a sink take the stream, and tells it at each 64 KiB that all before is right.
func send(ctx context.Context, sink *Target, stream []byte) error {
	d := blobOf(stream)
	held, _, err := sink.Offer(ctx, []v1.Descriptor{d})
	if err != nil {
		return err
	}
	if held[0] < d.Size {
		w, err := sink.Begin(ctx, d, 0)
		if err != nil {
			return err
		}
		for off, rest := 0, stream; len(rest) > 0; {
			n, err := w.Write(rest[:min(len(rest), 64<<10)])
			if err != nil {
				return errors.Join(err, w.Abort(0))
			}
			off, rest = off+n, rest[n:]
			w.(ring.Holding).Good(int64(off))
		}
		if err := w.Commit(ctx, d); err != nil {
			return errors.Join(err, w.Abort(0))
		}
	}
	if _, err := sink.Prepare(ctx, []v1.Descriptor{d}); err != nil {
		return err
	}
	return sink.Publish(ctx)
}

func TestSink(t *testing.T) {
	dir := plant(t)
	stream := streamOf(t, dir, Options{Special: true})
	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
		p := newPlace(t)
		if err := os.Mkdir(p.out, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.out+"/old", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return ringtest.Sink{
			New:   func() ring.Sink { return p.target(t) },
			Blobs: []v1.Descriptor{blobOf(stream)},
			Bytes: [][]byte{stream},
			Published: func(t *testing.T) bool {
				if _, err := os.Lstat(p.out + "/old"); err == nil {
					return false
				}
				return listing(t, p.out) == listing(t, dir)
			},
			Left: func(t *testing.T) []string { return namesBelow(t, p.dir) },
		}
	})
}

func namesBelow(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// What was put in place is held until anything in it is changed, by whomever and with whatever times.
func TestHeld(t *testing.T) {
	dir := plant(t)
	stream := streamOf(t, dir, Options{Special: true})
	p := newPlace(t)
	offered := func() bool {
		t.Helper()
		sink := p.target(t)
		defer sink.Close()
		held, _, err := sink.Offer(t.Context(), []v1.Descriptor{blobOf(stream)})
		if err != nil {
			t.Fatal(err)
		}
		return held[0] == int64(len(stream))
	}
	put := func() {
		t.Helper()
		sink := p.target(t)
		if err := errors.Join(send(t.Context(), sink, stream), sink.Close()); err != nil {
			t.Fatal(err)
		}
		if !offered() {
			t.Fatal("is not held")
		}
	}
	put()
	again := p.target(t)
	if _, _, err := again.Offer(t.Context(), []v1.Descriptor{blobOf(stream)}); err != nil {
		t.Fatal(err)
	}
	sink := again.Sink()
	for _, off := range []int{0, 777, len(stream) - 5} {
		r, err := sink.(ring.Opener).Open(t.Context(), blobOf(stream), int64(off))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, stream[off:]) {
			t.Errorf("from byte %d on it makes another stream: %v", off, err)
		}
		r.Close()
	}
	if inPlace, err := sink.(ring.Preparer).Prepare(t.Context(), []v1.Descriptor{blobOf(stream)}); !inPlace || err != nil {
		t.Errorf("prepare: %v, %v", inPlace, err)
	}
	if err := errors.Join(sink.Publish(t.Context()), sink.(io.Closer).Close()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func() error{
		"a byte": func() error {
			var st unix.Stat_t
			name := p.out + "/a/b/c/deep"
			return errors.Join(unix.Stat(name, &st), os.WriteFile(name, []byte("DEEP"), 0o400),
				unix.UtimesNano(name, []unix.Timespec{st.Atim, st.Mtim}))
		},
		"a byte, through another name": func() error { return os.WriteFile(p.out+"/z", []byte("B"), 0o600) },
		"a name":                       func() error { return os.WriteFile(p.out+"/nothing/new", nil, 0o600) },
		"a mode":                       func() error { return os.Chmod(p.out+"/large", 0o600) },
		"an attribute":                 func() error { return unix.Setxattr(p.out+"/large", "user.x", nil, 0) },
		"the mode of the top":          func() error { return os.Chmod(p.out, 0o700) },
		"an attribute of it":           func() error { return unix.Setxattr(p.out, "user.x", nil, 0) },
		"a directory":                  func() error { return errors.Join(os.Rename(p.out, p.dir+"/x"), os.Mkdir(p.out, 0o700)) },
		"a directory like that":        func() error { return errors.Join(os.RemoveAll(p.out), os.CopyFS(p.out, os.DirFS(dir+"/many"))) },
	} {
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if offered() {
			t.Errorf("held after a change of %s", name)
		}
		put()
	}
}

// A place that cannot get a directory is refused before anything is made there.
func TestRefusedPlace(t *testing.T) {
	stream := streamWith(top(), fileEntry("a"))
	for name, setup := range map[string]func(p *place) error{
		"a file":   func(p *place) error { return os.WriteFile(p.out, nil, 0o600) },
		"a link":   func(p *place) error { return os.Symlink("/etc", p.out) },
		"existing": func(p *place) error { p.o.Place.Overwrite = false; return os.Mkdir(p.out, 0o700) },
		"parent":   func(p *place) error { p.o.Place.Name = "none/out"; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			if err := setup(p); err != nil {
				t.Fatal(err)
			}
			before := namesBelow(t, p.dir)
			sink := p.target(t)
			err := errors.Join(send(t.Context(), sink, stream))
			if err == nil || strings.Contains(err.Error(), "malformed") {
				t.Errorf("%v", err)
			}
			if err := sink.Close(); err != nil {
				t.Error(err)
			}
			if after := namesBelow(t, p.dir); len(after) != len(before) {
				t.Errorf("left %v, before %v", after, before)
			}
		})
	}
}

// Where a file system is mounted in the directory that would be replaced, nothing is renamed, and nothing in it is removed.
func TestMounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	p := newPlace(t)
	mounted := p.out + "/a b"
	if err := os.MkdirAll(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	precious := t.TempDir()
	if err := os.WriteFile(precious+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, mounted, "", unix.MS_BIND, ""); err != nil {
		loopdev.Cannot(t, "cannot mount here: %v", err)
	}
	defer unix.Unmount(mounted, unix.MNT_DETACH)
	sink := p.target(t)
	err := send(t.Context(), sink, streamWith(top()))
	if err == nil || !strings.Contains(err.Error(), "mounted at "+mounted) {
		t.Errorf("%v", err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(precious + "/file"); err != nil {
		t.Error(err)
	}
}

// What is made belongs to whom the node is told, and inherits nothing of the directory above.
func TestOwnerAndInheritance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := plant(t)
	p := newPlace(t)
	if err := errors.Join(os.Chown(p.dir, 0, 77), os.Chmod(p.dir, 0o2755|os.ModeSetgid), unix.Setxattr(p.dir, "system.posix_acl_default", acl(9, 9), 0)); err != nil {
		t.Fatal(err)
	}
	stream := streamOf(t, dir, Options{Special: true})
	sink := p.target(t)
	if err := errors.Join(send(t.Context(), sink, stream), sink.Close()); err != nil {
		t.Fatal(err)
	}
	sameTrees(t, dir, p.out)
	p.o.Place.Owner = &raw.Owner{UID: 5, GID: -1}
	sink = p.target(t)
	if err := errors.Join(send(t.Context(), sink, stream), sink.Close()); err != nil {
		t.Fatal(err)
	}
	sameTrees(t, dir, p.out, "--no-o")
	err := filepath.WalkDir(p.out, func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &st)); err != nil || st.Uid != 5 {
			t.Errorf("%s is of %d, %v", path, st.Uid, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A file system that is full in the middle leaves the old directory, and nothing else.
func TestFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	p := newPlace(t)
	if err := unix.Mount("none", p.dir, "tmpfs", 0, "size=2M"); err != nil {
		loopdev.Cannot(t, "cannot mount here: %v", err)
	}
	defer unix.Unmount(p.dir, unix.MNT_DETACH)
	if err := errors.Join(os.Mkdir(p.out, 0o755), os.WriteFile(p.out+"/old", []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	entries := []*entry{top()} // of 5 bytes each, which take a page
	for i := range 700 {
		entries = append(entries, fileEntry(fmt.Sprintf("%04d", i)))
	}
	sink := p.target(t)
	if err := send(t.Context(), sink, streamWith(entries...)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if got := append(namesBelow(t, p.dir), namesBelow(t, p.out)...); !slices.Equal(got, []string{"out", "old"}) {
		t.Errorf("there is %v", got)
	}
}

// Whoever owns the directory above can exchange names in it at any time. Nothing then comes into directories of others, and
// nothing of theirs is lost.
func TestExchanged(t *testing.T) {
	stream := streamWith(top(), dirEntry("a"), fileEntry("a/b"))
	for name, exchange := range map[string]func(dir, victim string) error{
		"the directory above": func(dir, victim string) error {
			return errors.Join(os.Rename(dir+"/sub", dir+"/moved"), os.Symlink(victim, dir+"/sub"))
		},
		"the part": func(dir, victim string) error {
			part := raw.PartPath(dir + "/sub/out")
			return errors.Join(os.Rename(part, dir+"/moved"), os.Rename(victim, part), os.Symlink(part, victim))
		},
		"the part by a link": func(dir, victim string) error {
			part := raw.PartPath(dir + "/sub/out")
			return errors.Join(os.Rename(part, dir+"/moved"), os.Symlink(victim, part))
		},
		"the old one by a link": func(dir, victim string) error {
			return errors.Join(os.Rename(dir+"/sub/out", dir+"/moved"), os.Symlink(victim, dir+"/sub/out"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.o.Place.Name, p.out = "sub/out", p.dir+"/sub/out"
			victim := p.dir + "/victim"
			for _, d := range []string{p.out, victim} {
				if err := errors.Join(os.MkdirAll(d, 0o755), os.WriteFile(d+"/precious", nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			sink := p.target(t)
			d := blobOf(stream)
			if _, _, err := sink.Offer(t.Context(), []v1.Descriptor{d}); err != nil {
				t.Fatal(err)
			}
			w, err := sink.Begin(t.Context(), d, 0)
			if err != nil {
				t.Fatal(err)
			}
			half := len(stream) / 2
			w.(ring.Holding).Good(int64(half))
			if _, err := w.Write(stream[:half]); err != nil {
				t.Fatal(err)
			}
			if err := exchange(p.dir, victim); err != nil {
				t.Fatal(err)
			}
			if _, err = w.Write(stream[half:]); err == nil {
				err = w.Commit(t.Context(), d)
			}
			if err == nil {
				err = sink.Publish(t.Context())
			}
			if err == nil {
				t.Error("was published")
			}
			sink.Close()
			if got := namesBelow(t, victim); !slices.Equal(got, []string{"precious"}) {
				t.Errorf("in the directory of somebody else: %v", got)
			}
		})
	}
}
