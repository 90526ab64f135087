package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// Clone makes the complete and durable part from the first size bytes of a local
// file, sharing its blocks where the file system can; Publish then switches.
// It does not verify what it copies.
func (t *Target) Clone(ctx context.Context, src io.ReaderAt, size int64) error {
	p, err := t.begin(ctx, 0)
	if err != nil {
		return err
	}
	w := &targetWriter{t: t, p: p}
	if err := t.fill(ctx, w, src, size); err != nil {
		return errors.Join(err, w.Abort(0))
	}
	return nil
}

func (t *Target) fill(ctx context.Context, w *targetWriter, src io.ReaderAt, size int64) error {
	if err := t.copyInto(ctx, w.p, src, size); err != nil {
		return err
	}
	return w.Commit(ctx, v1.Descriptor{Size: size})
}

// copyInto fills the empty p with the first size bytes of src.
func (t *Target) copyInto(ctx context.Context, p *durable.Part, src io.ReaderAt, size int64) error {
	if p.Clone(src) == nil {
		if p.Written() != size {
			return t.wrongSize(p.Written(), size)
		}
		return nil
	}
	if err := p.File.Truncate(0); err != nil {
		return t.fail("copy", err)
	}
	if err := p.Reserve(size); err != nil {
		return t.fail("reserve "+bytesize.Text(size), err)
	}
	r := io.NewSectionReader(src, 0, size)
	for buf := make([]byte, min(size+1, chunk)); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if _, werr := p.Write(buf[:n]); werr != nil {
			return t.fail("write", werr)
		}
		switch {
		case err == io.EOF && p.Written() != size:
			return t.wrongSize(p.Written(), size)
		case err == io.EOF:
			return nil
		case err != nil:
			return t.fail("copy", err)
		}
	}
}

func (t *Target) wrongSize(have, want int64) error {
	return fmt.Errorf("output %s: %d bytes written, %d expected", t.title, have, want)
}

// targetWriter is the Writer of the part. Its errors name the output.
type targetWriter struct {
	t *Target
	p *durable.Part
	c *copier // copies what an update leaves out; nil: nothing has to be copied
}

func (w *targetWriter) Write(b []byte) (int, error) {
	n, err := w.p.Write(b)
	if err != nil {
		err = w.t.fail("write", err)
	}
	return n, err
}

// WriteAt stores bytes behind those that were stored last; see ring.Placer.
func (w *targetWriter) WriteAt(b []byte, off int64) (int, error) {
	w.c.wrote(off, int64(len(b)))
	n, err := w.p.WriteAt(b, off)
	if err != nil {
		err = w.t.fail("write", err)
	}
	return n, err
}

// Zero makes a hole; see ring.Placer.
func (w *targetWriter) Zero(off, n int64) error {
	w.c.wrote(off, n)
	if err := w.p.Zero(off, n); err != nil {
		return w.t.fail("write zeros", err)
	}
	return nil
}

// Flush waits until the device has what was written; see ring.Flusher.
func (w *targetWriter) Flush(ctx context.Context, done func(bytes int64)) error {
	if w.t.o.NoSync {
		return nil
	}
	if err := w.p.Flush(ctx, done); err != nil {
		return w.t.fail("write", err)
	}
	return nil
}

// Commit gives the part its length, owner and time, and makes it durable.
func (w *targetWriter) Commit(ctx context.Context, final v1.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, f := w.t, w.p.File
	if err := w.c.rest(ctx); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return t.fail("commit", err)
	}
	n := w.p.Written()
	if w.p.IsAhead() {
		n = min(w.p.Readable(), final.Size) // what is behind the last byte that was written was there before
	}
	if n != final.Size || info.Size() < n {
		return t.wrongSize(min(n, info.Size()), final.Size)
	}
	if info.Size() > final.Size {
		if err := f.Truncate(final.Size); err != nil {
			return t.fail("commit", err)
		}
	}
	// The part keeps its mode until Publish: whoever can open it for reading can lock it, and what is left of a
	// transfer would be busy for as long as he likes.
	if err := t.own(f); err != nil {
		return err
	}
	if !t.o.ModTime.IsZero() {
		if err := f.Chtimes(time.Now(), t.o.ModTime); err != nil {
			return t.fail("modification time", err)
		}
	}
	if !t.o.NoSync {
		if err := f.Sync(); err != nil {
			return t.fail("make durable", err)
		}
	}
	if info, err = f.Stat(); err != nil {
		return t.fail("commit", err)
	}
	t.mu.Lock()
	t.complete = info
	t.mu.Unlock()
	return nil
}

// own gives f the owner that was asked for.
func (t *Target) own(f durable.File) error {
	if o := t.o.Owner; o != nil {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return t.fail("owner", err)
		}
	}
	return nil
}

// unseal gives f the mode that was asked for.
func (t *Target) unseal(f durable.File) error {
	if err := f.Chmod(t.o.Mode.Perm()); err != nil {
		return t.fail("mode", err)
	}
	return nil
}

// settleMode makes owner and mode of f durable.
func (t *Target) settleMode(f durable.File) error {
	if err := f.Sync(); err != nil {
		return t.fail("make mode and owner durable", err)
	}
	return nil
}

// Abort keeps the part for a Begin of this Target, or with keep 0 removes it.
func (w *targetWriter) Abort(keep int64) error {
	if keep == 0 && !w.p.IsAhead() {
		return w.t.drop()
	}
	if err := w.p.Cut(keep); err != nil {
		return w.t.fail("abort", err)
	}
	return nil
}
