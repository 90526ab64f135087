package raw

import (
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// updating does what the ring does with the Target of an update.
type updating struct {
	*testing.T
	dir     string
	target  *Target
	want    []byte
	d       v1.Descriptor
	right   []bool // which leaves were equal when they were compared
	off     int64  // of the first that was not
	written int64  // bytes written to files
}

// countedFS counts what is written to its files.
type countedFS struct {
	durable.FS
	n *int64
}

type countedFile struct {
	durable.File
	syscall.Conn
	n *int64
}

func (c countedFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return countedFile{f, f.(syscall.Conn), c.n}, nil
}

func (c countedFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := c.File.WriteAt(b, off)
	*c.n += int64(n)
	return n, err
}

// begin has a new Target compare what is there.
func (u *updating) begin() {
	u.Helper()
	var err error
	if u.target, err = NewTarget(TargetOptions{Dir: u.dir, Name: "out", Overwrite: true}); err != nil {
		u.Fatal(err)
	}
	u.target.top = countedFS{u.target.top, &u.written}
	u.target.fs = u.target.top
	if _, _, err := u.target.Offer(ctx, []v1.Descriptor{u.d}); err != nil {
		u.Fatal(err)
	}
	n, err := u.target.Compare(ctx, u.d)
	if err != nil {
		u.Fatal(err)
	}
	u.right, u.off, u.written = nil, u.d.Size, 0
	for off := int64(0); off < u.d.Size; off += leaf.Size {
		ok := (off+leaf.Size <= n || n == u.d.Size) && u.sum(off) == sha256.Sum256(u.leaf(off))
		if u.right = append(u.right, ok); !ok {
			u.off = min(u.off, off)
		}
	}
}

func (u *updating) leaf(off int64) []byte { return u.want[off:min(off+leaf.Size, u.d.Size)] }

// sum hashes the leaf at off as the Target has it.
func (u *updating) sum(off int64) [sha256.Size]byte {
	u.Helper()
	r, err := u.target.Open(ctx, u.d, off)
	if err != nil {
		u.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, len(u.leaf(off)))
	if _, err := io.ReadFull(r, b); err != nil {
		u.Fatal(err)
	}
	return sha256.Sum256(b)
}

// bring brings what lacks up to byte end. A leaf that was right and is not any more is brought, too, after the ring went back to it.
func (u *updating) bring(end int64) (w interface{ Abort(int64) error }) {
	u.Helper()
	p, err := u.target.Begin(ctx, u.d, u.off)
	if err != nil {
		u.Fatal(err)
	}
	for off := int64(0); off < end; off += leaf.Size {
		k := off / leaf.Size
		if u.right[k] && (u.target.Same(u.d) || u.sum(off) == sha256.Sum256(u.leaf(off))) {
			continue
		}
		if u.right[k] {
			u.right[k] = false
			if err := p.Abort(off); err != nil {
				u.Fatal(err)
			}
			if p, err = u.target.Begin(ctx, u.d, off); err != nil {
				u.Fatal(err)
			}
		}
		if _, err := p.(io.WriterAt).WriteAt(u.leaf(off), off); err != nil {
			u.Fatal(err)
		}
	}
	if end < u.d.Size {
		return p
	}
	if err := p.Commit(ctx, u.d); err != nil {
		u.Fatal(err)
	}
	if err := u.target.Publish(ctx); err != nil {
		u.Fatal(err)
	}
	if err := u.target.Close(); err != nil {
		u.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(u.dir, "out")); err != nil || !bytes.Equal(got, u.want) {
		u.Errorf("other bytes than the source has: %v", err)
	}
	if names := list(u.T, u.dir); len(names) != 1 {
		u.Errorf("left %q", names)
	}
	return nil
}

// An update writes the leaves that differ and, where the file system shares no blocks, those that it copies, once each. What is
// written to the old file meanwhile is found; and an update that was broken off goes on from the leaves that it had, of which none is
// brought again.
func TestUpdateCopies(t *testing.T) {
	t.Run("copied", func(t *testing.T) { testUpdateCopies(t, t.TempDir(), false) })
	t.Run("shared", func(t *testing.T) {
		loopdev.Need(t, "mkfs.xfs")
		disk := loopdev.New(t, t.TempDir(), 400<<20, loopdev.Options{})
		loopdev.Run(t, "mkfs.xfs", "-q", "-m", "reflink=1", disk.Path)
		if err := disk.Mount(t, disk.Path, "xfs", 0, func(dir string) { testUpdateCopies(t, dir, true) }); err != nil {
			loopdev.Cannot(t, "no xfs can be mounted: %v", err)
		}
	})
}

func testUpdateCopies(t *testing.T, top string, shares bool) {
	want := random(3*leaf.Size + 100)
	old := bytes.Clone(want)
	old[7] ^= 1
	whole := int64(len(want))
	for name, c := range map[string]struct {
		old            []byte
		broken         int64 // where the first attempt ends
		before, after  int64 // what is written to meanwhile, before the copy begins and after that; 0: nothing
		copied, shared int64 // bytes written
	}{
		"a leaf differs":       {old: old, copied: whole, shared: leaf.Size},
		"it is shorter":        {old: want[:2*leaf.Size+5], copied: whole, shared: leaf.Size + 100},
		"it is longer":         {old: append(bytes.Clone(old), 1, 2, 3), copied: whole, shared: leaf.Size},
		"it is empty":          {old: nil, copied: whole, shared: whole},
		"changed before":       {old: old, before: 2 * leaf.Size, copied: whole + leaf.Size, shared: 2 * leaf.Size},
		"changed afterwards":   {old: old, after: leaf.Size + 1, copied: whole + leaf.Size, shared: leaf.Size},
		"broken off":           {old: old, broken: 2 * leaf.Size, copied: leaf.Size + 100, shared: 0},
		"broken off and short": {old: want[:leaf.Size], broken: 2 * leaf.Size, copied: leaf.Size + 100, shared: leaf.Size + 100},
	} {
		dir, err := os.MkdirTemp(top, "update-")
		if err != nil {
			t.Error(err)
			return
		}
		path := filepath.Join(dir, "out")
		if err := os.WriteFile(path, c.old, 0o644); err != nil {
			t.Error(err)
			return
		}
		u := &updating{T: t, dir: dir, want: want, d: v1.Descriptor{MediaType: leaf.MediaType, Size: whole}}
		u.begin()
		if c.broken > 0 {
			if err := u.bring(c.broken).Abort(c.broken); err != nil {
				t.Error(err)
			}
			u.target.Keep()
			u.target.Close()
			if got, _ := os.ReadFile(path); !bytes.Equal(got, c.old) {
				t.Errorf("%s: the old file changed", name)
			}
			u.begin()
			for k, ok := range u.right[:c.broken/leaf.Size] {
				if !ok {
					t.Errorf("%s: leaf %d is lost", name, k)
				}
			}
		}
		if c.before > 0 {
			poke(t, c.before)(path)
		}
		if c.after > 0 {
			u.target.Begin(ctx, u.d, u.off)
			poke(t, c.after)(path)
		}
		u.bring(whole)
		most := c.copied
		if shares {
			most = c.shared
		}
		if u.written != most {
			t.Errorf("%s: %d bytes were written of %d, want %d", name, u.written, whole, most)
		}
		os.RemoveAll(dir)
	}
}
