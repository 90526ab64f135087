package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// Begin opens blob d at off and reserves its space. Off is 0, or at most as much as an earlier Abort kept or Offer
// claimed. If the digest of d is "", Commit names it.
func (t *Transfer) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := t.begin(d, off)
	if err != nil {
		return nil, t.fail(d.Digest, "begin", err)
	}
	w := &blobWriter{t, p}
	if err := t.makeRoom(ctx); err != nil {
		return nil, errors.Join(t.fail(d.Digest, "begin", err), w.Abort(0))
	}
	if err := p.Reserve(d.Size); err != nil {
		return nil, errors.Join(t.fail(d.Digest, "reserve "+bytesize.Text(d.Size), err), w.Abort(0))
	}
	return w, nil
}

func (t *Transfer) begin(d v1.Descriptor, off int64) (*part, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parts {
		if p.d.Digest == d.Digest && d.Digest != "" || p.d.Digest == "" && off > 0 && d.Digest == "" {
			p.begun = true
			return p, p.Cut(off)
		}
	}
	if off != 0 {
		return nil, fmt.Errorf("nothing is kept to go on from byte %d", off)
	}
	if err := t.ensureLease(); err != nil {
		return nil, err
	}
	// While the lease is locked, the maker of its parts lives. The parts have the mode of blobs from the start, which
	// keeps other processes from opening them for writing.
	name := t.partName(d)
	f, err := t.c.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, blobMode)
	if err != nil {
		return nil, err
	}
	p := newPart(f, 0, d, name)
	p.begun = true
	t.parts = append(t.parts, p)
	return p, nil
}

// partName returns the name of a new part. It has the lease and the blob in it, so that the part can be used
// if its maker is killed. The caller holds mu.
func (t *Transfer) partName(d v1.Descriptor) string {
	name := "ingest/" + path.Base(t.lease.name) + "."
	if d.Digest != "" {
		return name + flat(d.Digest)
	}
	t.begun++
	return fmt.Sprint(name, t.begun)
}

// blobWriter writes a part.
type blobWriter struct {
	t *Transfer
	p *part
}

func (w *blobWriter) Write(b []byte) (int, error) {
	n, err := w.p.Write(b)
	if err != nil {
		err = w.t.fail(w.p.d.Digest, "write", err)
	}
	return n, err
}

// Flush waits until the device has what was written; see ring.Flusher.
func (w *blobWriter) Flush(ctx context.Context, done func(bytes int64)) error {
	if err := w.p.Flush(ctx, done); err != nil {
		return w.t.fail(w.p.d.Digest, "write", err)
	}
	return nil
}

// Commit makes the blob durable and gives it the name of its digest. The name is durable after Prepare.
func (w *blobWriter) Commit(ctx context.Context, final v1.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, t := w.p.d, w.t
	if n := w.p.Written(); n != final.Size {
		return t.fail(d.Digest, "commit", fmt.Errorf("%d bytes written, %d expected", n, final.Size))
	}
	if d.Digest != "" && d.Digest != final.Digest {
		return t.fail(d.Digest, "commit", fmt.Errorf("digest is %s", final.Digest))
	}
	if err := t.put(ctx, w.p, final.Digest); err != nil {
		return t.fail(final.Digest, "commit", err)
	}
	return nil
}

// put makes a complete part durable and renames it to its digest. If a trusted blob is there already, that one stays,
// because others may be reading it and its inode is recorded.
func (t *Transfer) put(ctx context.Context, p *part, d digest.Digest) error {
	have, err := t.c.move(ctx, p, d)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !have {
		info, err := p.File.Stat() // the rename has changed the ctime
		if err != nil {
			return err
		}
		t.c.trust(d, info)
	}
	t.vouched[d] = true
	if p.d.Digest == "" {
		t.unnamed = d
		if t.lease != nil {
			if err := t.lease.add(d); err != nil {
				return err
			}
		}
	}
	t.parts = slices.DeleteFunc(t.parts, func(q *part) bool { return q == p })
	return p.release()
}

// blobMode is the mode of every blob, unless SetAccess says otherwise.
const blobMode = 0o444

// move makes part p durable and renames it to digest d. If it finds a trusted blob there, it removes the part and
// returns true.
func (c *Cache) move(ctx context.Context, p *part, d digest.Digest) (have bool, err error) {
	name, err := blobName(d)
	if err != nil {
		return false, err
	}
	info, err := p.File.Stat()
	if err != nil {
		return false, err
	}
	if n := p.Written(); info.Size() != n {
		return false, fmt.Errorf("%s has %d bytes, not the %d written", p.name, info.Size(), n)
	}
	if err := c.access.apply(p.File, info, blobMode); err != nil {
		return false, err
	}
	if err := p.File.Sync(); err != nil {
		return false, err
	}
	err = c.fs.RenameNew(p.name, name)
	if errors.Is(err, fs.ErrNotExist) { // this is the first blob of its algorithm
		if err := mkdirs(c.fs, path.Dir(name)); err != nil {
			return false, err
		}
		if err := c.fs.SyncDir("blobs"); err != nil {
			return false, err
		}
		err = c.fs.RenameNew(p.name, name)
	}
	if err == nil {
		return false, nil
	}
	// Something is there, or the file system has no RenameNew. Under the lock, nobody takes the blob that is put there
	// now for the one that was there before.
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, have := c.trusted(d); have {
		return true, c.fs.Remove(p.name)
	}
	return false, c.fs.Rename(p.name, name)
}

// Abort keeps the leading bytes for another Begin of this Transfer. If keep is 0, it
// removes what was written.
func (w *blobWriter) Abort(keep int64) error {
	t, p := w.t, w.p
	if keep > 0 {
		if err := p.Cut(keep); err != nil {
			return t.fail(p.d.Digest, "abort", err)
		}
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.parts, p) {
		return nil
	}
	t.parts = slices.DeleteFunc(t.parts, func(q *part) bool { return q == p })
	if err := errors.Join(t.c.fs.Remove(p.name), p.release()); err != nil {
		return t.fail(p.d.Digest, "abort", err)
	}
	return nil
}

// hash reads the whole blob, compares it with d, and makes its bytes durable. It returns errWrong if the bytes are wrong.
// With errWrong and without an error, the info is from before the read, and the blob was not changed meanwhile.
func (c *Cache) hash(ctx context.Context, d digest.Digest, read func(bytes int)) (fs.FileInfo, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	v := d.Verifier()
	r := io.NewSectionReader(f, 0, info.Size())
	for buf := make([]byte, min(info.Size()+1, 1<<20)); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.Read(buf)
		_, _ = v.Write(buf[:n]) // a hash never fails
		read(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil { // whoever put it there may not have; if he has, this costs nothing
		return nil, err
	}
	after, err := c.fs.Lstat(name)
	if err != nil {
		return nil, err
	}
	if stampOf(after) != stampOf(info) {
		return nil, errors.New("was changed while it was read")
	}
	if !v.Verified() {
		c.log.Warn("blob of the cache has other bytes than its digest says; is the disk failing?", "file", c.dir+"/"+name)
		return info, errWrong
	}
	return info, nil
}
