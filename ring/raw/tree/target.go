package tree

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// TargetOptions say which directory a Target makes and how.
type TargetOptions struct {
	// Place says where. Of its Owner what is not -1 owns all of the directory; what is -1, or nil, is as the stream says. Mode
	// and ModTime are not used.
	Place raw.TargetOptions
	// Special lets a stream have devices and named pipes.
	Special bool
	// InPlace has files be replaced one by one, in the directory that is there, and nothing be removed. If that is interrupted,
	// the directory is partly the new one.
	InPlace bool
	// Explain returns an error of Begin, a Writer or Publish with what to do about it. It may be nil.
	Explain func(err error) error
	// Records remembers what was put in place, so that the same stream is held the next time. It may be nil.
	Records Records
}

// Records remembers a digest for a path, as long as the file system says the same of what is there.
type Records interface {
	PlacedAs(path string, info fs.FileInfo) (digest.Digest, bool)
	RecordPlaced(path string, info fs.FileInfo, d digest.Digest) error
}

// Target is a directory that a node makes of a stream: a ring.Sink of one blob. The directory that was there before is
// untouched until Publish, and removed by Close, unless it is to be replaced in place.
type Target struct {
	o      TargetOptions
	tree   *raw.Tree
	syncfs func(fd int) error // syncfs(2), but in tests
	every  int64              // syncEvery, but in tests

	mu        sync.Mutex
	x         *extractor // nil: nothing has been begun
	s         *syncer    // of what x unpacks
	q         queue
	good      int64 // bytes of the stream that are known to be right
	complete  bool
	held      bool          // what is there is what the stream would make; Prepare makes sure of it again
	asked     bool          // held is known
	record    digest.Digest // of what was made; "" where none is kept
	published bool
}

// NewTarget checks the names and opens the permitted directory. Close frees it.
func NewTarget(o TargetOptions) (*Target, error) {
	t, err := raw.NewWholeTree(o.Place)
	if err != nil {
		return nil, err
	}
	if o.InPlace {
		t.InPlace()
		o.Records = nil // what else is there makes another stream
	}
	return &Target{o: o, tree: t, syncfs: unix.Syncfs, every: syncEvery}, nil
}

// String is the path, for logs.
func (t *Target) String() string { return t.tree.Title() }

// Offer holds the whole stream where the directory is what the stream has made before, and nothing otherwise. It refuses
// what could not be published, and tells the free bytes.
func (t *Target) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if len(blobs) != 1 || blobs[0].Size < 0 {
		return nil, 0, fmt.Errorf("output %s: takes one blob whose size is known", t)
	}
	free, err = t.tree.Check()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.asked {
		t.held, t.asked = t.stands(blobs[0].Digest, time.Now().Add(lookTime)), true
	}
	if t.held {
		return []int64{blobs[0].Size}, -1, nil
	}
	if err != nil {
		return nil, 0, err
	}
	need := leaf.Data(blobs[0])
	if free, err = t.tree.Room(ctx, need, free); err != nil {
		return nil, 0, err
	}
	if free >= 0 && need > free {
		return nil, 0, fmt.Errorf("output %s: needs %s, %s are free in %s: %w",
			t, bytesize.Text(need), bytesize.Text(free), path.Dir(t.String()), syscall.ENOSPC)
	}
	return []int64{0}, free, nil
}

// lookTime is how long Offer looks at what is there, since a sender does not wait longer than 5 s for nodes that do not answer.
// What is known by then not to be held is sent.
const lookTime = 2 * time.Second

// stands reports whether the directory that is there is one that the stream with this digest has made, and was not
// changed since. After until, unless that is zero, it says no.
func (t *Target) stands(stream digest.Digest, until time.Time) bool {
	if t.o.Records == nil || stream == "" || t.o.Place.Owner != nil {
		return false
	}
	top, err := t.tree.OpenStanding()
	if err != nil {
		return false
	}
	defer top.Close()
	info, err := top.Stat()
	if err != nil {
		return false
	}
	was, ok := t.o.Records.PlacedAs(t.String(), info)
	if !ok {
		return false
	}
	mark, err := lookAt(top, until)
	return err == nil && was == recordOf(stream, mark)
}

// Begin makes the part directory, or goes on where the writer before was aborted.
func (t *Target) Begin(ctx context.Context, d v1.Descriptor, off int64) (_ ring.Writer, err error) {
	defer t.explain(&err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.complete || t.held {
		return nil, fmt.Errorf("output %s: begun again after it was complete", t)
	}
	if off != t.q.end {
		return nil, fmt.Errorf("output %s: cannot go from byte %d of the stream to byte %d", t, t.q.end, off)
	}
	if t.x == nil {
		top, err := t.tree.BeginOpen(ctx)
		if err != nil {
			return nil, err
		}
		defer top.Close()
		fd, err := unix.FcntlInt(top.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", t, err)
		}
		if t.s, err = newSyncer(fd, t.every, t.syncfs); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("output %s: %w", t, err)
		}
		t.x = newExtractor(fd, t.String(), t.o.Special, t.o.Place.Owner)
	}
	t.good = max(t.good, off)
	return (*writer)(t), nil
}

// Prepare says whether there is nothing to switch, and does nothing else: Commit made everything durable.
func (t *Target) Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held && !t.stands(blobs[0].Digest, time.Time{}) {
		return false, fmt.Errorf("output %s: was changed while the transfer ran", t)
	}
	return t.held, nil
}

// Switches reports whether Publish would switch the directory.
func (t *Target) Switches(context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.held
}

// Publish puts the directory in the place of the one that is there, in one step, or what is in it into that one.
func (t *Target) Publish(ctx context.Context) (err error) {
	defer t.explain(&err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held {
		return nil
	}
	if err := t.tree.Publish(ctx); err != nil {
		return err
	}
	t.published = true
	if t.record == "" {
		return nil
	}
	// Without a record the next transfer brings all of it again, which is no failure of this one.
	if top, err := t.tree.OpenStanding(); err == nil {
		defer top.Close()
		if info, err := top.Stat(); err == nil {
			_ = t.o.Records.RecordPlaced(t.String(), info, t.record)
		}
	}
	return nil
}

// explain adds to an error what to do about it.
func (t *Target) explain(err *error) {
	if *err != nil && t.o.Explain != nil {
		*err = t.o.Explain(*err)
	}
}

// Close removes what was not published, or the directory that was there before.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop()
	return t.tree.Close()
}

// stop ends unpacking. What was unpacked stays until the tree drops it.
func (t *Target) stop() {
	if t.x != nil {
		t.x.close()
		t.s.close()
		t.x, t.s = nil, nil
	}
	t.q = queue{}
}

// writer is a Target that takes the stream.
type writer Target

// ahead is how many bytes are held in memory, but for those of one frame: four marks, so that the next bytes can come while
// the mark of those before them is on its way.
const ahead = 16 << 20

// Ahead is how many bytes are held until they are known to be right.
func (w *writer) Ahead() int64 { return ahead }

// Good says that the bytes before off are right. They are unpacked with the next ones that come.
func (w *writer) Good(off int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.good = max(w.good, off)
}

// next takes what comes at off with add, and unpacks what is known to be right.
func (w *writer) next(off int64, add func()) (err error) {
	defer (*Target)(w).explain(&err)
	w.mu.Lock()
	good := w.good
	if w.x == nil {
		w.mu.Unlock()
		return fmt.Errorf("output %s: written after its end", w.tree.Title())
	}
	if off >= 0 && off != w.q.end {
		w.mu.Unlock()
		return fmt.Errorf("output %s: byte %d comes before byte %d", w.tree.Title(), off, w.q.end)
	}
	add()
	w.mu.Unlock()
	if err := w.q.drain(good, w.x); err != nil { // without the lock, since Good must not wait
		return err
	}
	if err := w.s.unpacked(w.q.begin); err != nil {
		return fmt.Errorf("output %s: make durable: %w", w.tree.Title(), err)
	}
	return nil
}

func (w *writer) Write(b []byte) (int, error) { return w.put(b, -1) }

// WriteAt is Write at an offset, which is where the call before has ended.
func (w *writer) WriteAt(b []byte, off int64) (int, error) { return w.put(b, off) }

func (w *writer) put(b []byte, off int64) (int, error) {
	if err := w.next(off, func() { w.q.write(b) }); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Zero is WriteAt of n zeros.
func (w *writer) Zero(off, n int64) error {
	return w.next(off, func() { w.q.add(n, true) })
}

// Commit does what Flush does, unless that was called, and makes the directory ready to be put in place.
func (w *writer) Commit(ctx context.Context, final v1.Descriptor) (err error) {
	t := (*Target)(w)
	defer t.explain(&err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.x == nil || final.Size != t.q.end {
		return fmt.Errorf("output %s: %d bytes of the stream came, %d expected", t, t.q.end, final.Size)
	}
	if err := t.settle(ctx, nil); err != nil {
		return err
	}
	x := *t.x
	if t.o.Records != nil {
		mark, err := x.mark()
		if err != nil {
			return err
		}
		if mark != "" {
			t.record = recordOf(final.Digest, mark)
		}
	}
	dress := func(top *os.File) error {
		return x.dress(int(top.Fd()), x.top, new(unix.Stat_t))
	}
	if err := t.tree.Seal(ctx, dress); err != nil {
		return err
	}
	t.stop()
	t.complete = true
	return nil
}

// Abort keeps so many bytes of the stream. What was unpacked is never less than is known to be right, so it cannot be
// taken back but as a whole.
func (w *writer) Abort(keep int64) error {
	t := (*Target)(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	if keep >= t.q.begin {
		t.q.cut(keep)
		t.good = min(t.good, keep) // what comes in its place is not judged yet
		return nil
	}
	if keep > 0 {
		return fmt.Errorf("output %s: byte %d of the stream is unpacked and cannot be taken back", t, keep)
	}
	t.stop()
	t.good = 0
	return t.tree.Drop()
}

var (
	_ ring.Sink     = (*Target)(nil)
	_ ring.Preparer = (*Target)(nil)
	_ ring.Switcher = (*Target)(nil)
	_ io.Closer     = (*Target)(nil)
	_ ring.Holding  = (*writer)(nil)
	_ ring.Placer   = (*writer)(nil)
)
