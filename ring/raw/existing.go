package raw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// A file that stands under the target's name already and is as long as the blob may be the same,
// as after a transfer that some nodes finished. It is claimed like a part: what the source says of
// its bytes judges it, what is beyond the claim is compared as it comes, and nothing is written. On
// Publish it gets the mode and the owner that were asked for, if it has others; its time stays.

// existing is such a file.
type existing struct {
	f    durable.File
	info fs.FileInfo // of f, when it was opened
	// begun says that Begin was called, and claim where that was first: in front of it are the bytes that
	// were claimed, and that marks judge.
	begun bool
	claim int64
	// equal is the end of the bytes that were claimed, or are equal to what came, without a gap. No others are
	// replayed: a good mark in front of which the file differs judges what came, and not the file.
	equal atomic.Int64
	// same says that all of it is the blob.
	same bool
	// update says that an update compares it, which may replace it and gives it also the time that was asked for.
	update bool
}

// settle has each write from now on change the times of the file, as they are in info: also one in the step of time in which it
// was changed last, and one through a mapping, which changes them only where its page was not written to since it was made durable.
func (s *existing) settle() error {
	WaitTick(time.Unix(stat(s.info).Ctim.Unix()))
	return s.f.Sync()
}

// openToCompare opens the file under the final name where it may be the blob d, and nil where there is none. One
// that cannot be it is an error, as is whatever is no regular file. What may be replaced is not
// looked at.
func (t *Target) openToCompare(d v1.Descriptor) (*existing, error) {
	if t.o.Overwrite || d.Size < 0 {
		return nil, nil
	}
	if _, err := t.freeSpace(); err != nil {
		return nil, err // as where no file stands
	}
	info, err := t.look(t.name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // who replaces it will say what is wrong
	}
	if info.Size() != d.Size {
		return nil, t.exists()
	}
	if err := t.dressable(info); err != nil {
		return nil, err
	}
	f, err := t.fs.OpenFile(t.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil, t.exists() // not ours to compare
	}
	if err != nil {
		return nil, t.fail("compare", err)
	}
	s := &existing{f: f}
	if s.info, err = f.Stat(); err == nil && !unchanged(info, s.info) {
		err = errReplaced
	}
	if err != nil {
		f.Close()
		return nil, t.fail("compare", err)
	}
	return s, nil
}

// offerExisting is the Offer of a target whose file stands already; ok is false for none.
func (t *Target) offerExisting(d v1.Descriptor) (held []int64, ok bool, err error) {
	s, err := t.openToCompare(d)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.existing != nil { // of an Offer before
		t.existing.f.Close()
	}
	t.existing = s
	if s == nil {
		return nil, false, err
	}
	claim := d.Size
	if d.Digest != "" {
		claim = max(0, claim-1) // all of it would vouch for it
	}
	return []int64{claim}, true, nil
}

// errReplaced says that a file is not the one that was looked at, or was written to.
var errReplaced = errors.New("was changed while the transfer ran")

// changed says why the file is no longer what it was when it was opened.
func (t *Target) changed(s *existing) error {
	now, err := t.fs.Lstat(t.name)
	if err == nil && !unchanged(now, s.info) {
		err = errReplaced
	}
	if err != nil {
		return t.fail("compare", err)
	}
	return t.stays(wroteNothing)
}

// dressed says whether mode and owner of a file are those that were asked for.
func (t *Target) dressed(info fs.FileInfo) bool {
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	st, o := info.Sys().(*syscall.Stat_t), t.o.Owner
	return info.Mode()&bits == t.o.Mode.Perm() &&
		(o == nil || (o.UID < 0 || o.UID == int(st.Uid)) && (o.GID < 0 || o.GID == int(st.Gid)))
}

// dressable refuses a file that has another mode or owner and cannot be given those that were asked for.
func (t *Target) dressable(info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	why := ""
	switch {
	case t.dressed(info):
		return nil
	case st.Nlink > 1:
		why = "has other names"
	case t.uid != 0 && t.uid != int(st.Uid):
		why = "is another user's"
	default:
		return nil
	}
	return errkind.Errorf("output-attributes", "output %s: %w, and %s: its mode %04o and owner %d:%d are not what was asked for",
		t.title, fs.ErrExist, why, info.Mode().Perm(), st.Uid, st.Gid)
}

// asAsked says whether the file has the mode, the owner and the time that it shall have.
func (t *Target) asAsked(s *existing) bool {
	return t.dressed(s.info) && s.info.ModTime().Equal(t.dates(s))
}

// dates is the modification time that the file shall have.
func (t *Target) dates(s *existing) time.Time {
	if s.update && !t.o.ModTime.IsZero() {
		return t.o.ModTime
	}
	return s.info.ModTime()
}

// publishExisting gives the file its mode, its owner and its time.
func (t *Target) publishExisting(s *existing) error {
	if err := t.changed(s); err != nil || t.asAsked(s) {
		return err
	}
	if at := t.dates(s); !at.Equal(s.info.ModTime()) {
		if err := s.f.Chtimes(time.Now(), at); err != nil {
			return t.fail("modification time", err)
		}
	}
	if err := errors.Join(t.own(s.f), t.unseal(s.f), t.settleMode(s.f)); err != nil {
		return err
	}
	return t.stays(wroteBefore)
}

// differs is the error of a file that is not what is sent. The text is all that the sender sees of a node that fails
// in mid-transfer, so the advice is in it.
func (t *Target) differs() error {
	return fmt.Errorf("output %s: %w, with other bytes (remove it, or set overwrite = true for its directory in the node's policy.toml)", t.title, fs.ErrExist)
}

// existingWriter compares what comes with the file that stands. Whether the bytes that come are the
// right ones is known at Commit only.
type existingWriter struct {
	t   *Target
	s   *existing
	off int64
	buf []byte
}

// Write compares b.
func (w *existingWriter) Write(b []byte) (int, error) {
	if cap(w.buf) < len(b) {
		w.buf = make([]byte, len(b))
	}
	have := w.buf[:len(b)]
	n, err := w.s.f.ReadAt(have, w.off)
	if err != nil && err != io.EOF {
		return 0, w.t.fail("compare", err)
	}
	if w.s.equal.Load() == w.off { // else they differ further up
		w.s.equal.Add(int64(common(have[:n], b)))
	}
	w.off += int64(len(b))
	return len(b), nil
}

// common is how many leading bytes a and b have in common.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return n
	}
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Commit says whether the file is the blob. It is durable, as it was when Begin made it so, and its name becomes so.
func (w *existingWriter) Commit(ctx context.Context, final v1.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.s.equal.Load() != final.Size || w.off != final.Size || w.s.info.Size() != final.Size {
		return w.t.differs()
	}
	// Some file systems tell another length than reading finds.
	if n, err := w.s.f.ReadAt(make([]byte, 1), final.Size); n > 0 {
		return w.t.differs()
	} else if err != io.EOF {
		return w.t.fail("compare", err)
	}
	if err := w.t.changed(w.s); err != nil {
		return err
	}
	if err := w.t.fs.SyncDir("."); err != nil {
		return w.t.fail("make the name durable", err)
	}
	w.t.mu.Lock()
	w.s.same = true
	w.t.mu.Unlock()
	return nil
}

// Abort leaves the file as it is.
func (w *existingWriter) Abort(int64) error { return nil }

// beginExisting continues to compare at off. The bytes in front of off are right: to begin in front of what was
// claimed is to say that the claim was wrong, and to begin behind what is equal that the file is.
func (t *Target) beginExisting(ctx context.Context, s *existing, off int64) (*existingWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !s.begun {
		// Nobody knows who wrote it, and when, so it is made durable. This comes before anything of it is read.
		if err := s.settle(); err != nil {
			return nil, t.fail("make durable", err)
		}
		s.begun, s.claim = true, off
		s.equal.Store(off)
	}
	if off < s.claim || off > s.equal.Load() {
		return nil, t.differs()
	}
	s.equal.Store(off)
	return &existingWriter{t: t, s: s, off: off}, nil
}

// openExisting reads the file from off on, up to where it is known to be equal.
func (t *Target) openExisting(ctx context.Context, s *existing, off int64) (io.ReadCloser, error) {
	if off < 0 || off > s.equal.Load() {
		return nil, t.differs()
	}
	return &existingReader{ctx, t, s, off}, nil
}

type existingReader struct {
	ctx context.Context
	t   *Target
	s   *existing
	off int64
}

func (r *existingReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	have := r.s.equal.Load() - r.off
	switch {
	case len(b) == 0:
		return 0, nil
	case have == 0 && r.off == r.s.info.Size():
		return 0, io.EOF
	case have <= 0:
		return 0, r.t.differs()
	}
	n, err := r.s.f.ReadAt(b[:min(int64(len(b)), have)], r.off)
	r.off += int64(n)
	switch {
	case n > 0 && err == io.EOF:
		err = nil
	case err == io.EOF: // It was cut short.
		err = r.t.fail("compare", errReplaced)
	}
	return n, err
}

func (r *existingReader) Close() error { return nil }

// Prepare says that nothing is to be switched where the file stands already, as it shall be.
func (t *Target) Prepare(ctx context.Context, _ []v1.Descriptor) (inPlace bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.existing != nil && t.existing.same && t.asAsked(t.existing), ctx.Err()
}
