package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// ErrBusy is part of the error of a target that another transfer writes to.
var ErrBusy = errors.New("another transfer writes to it")

// TargetOptions say which file a Target makes and how.
type TargetOptions struct {
	Dir  string // the existing directory that policy allows; nothing outside is touched
	Name string // the file's name, relative to Dir and slash-separated

	Mode    fs.FileMode // permission bits; 0 is 0644
	Owner   *Owner      // nil: whoever runs this
	ModTime time.Time   // zero: when it was written

	Overwrite bool // replace an existing regular file
	Mkdir     bool // make missing directories below Dir, mode 0755
	Shared    bool // allow a network file system, which all nodes may share
	NoSync    bool // make nothing durable: a power loss may take what was published
}

// Owner is whom a file is given to; -1 leaves one of the two alone.
type Owner struct{ UID, GID int }

// Target is the one file that a node writes: a Sink of exactly one blob, an
// Opener of what it has stored of it, and a placer of a local file (Clone). Its
// part file is locked from Begin to Close, so there is one writer of a target.
type Target struct {
	o     TargetOptions
	open  func() (durable.FS, error) // opens o.Dir by its path
	top   durable.FS                 // o.Dir
	dirs  []string                   // the names of the directories from there to the file
	fs    durable.FS                 // the directory of the file once walk has opened it, or the last one that exists
	depth int                        // how many of dirs lead to fs
	name  string                     // of the file, in its directory
	temp  string                     // of the part file, in the same: that of partName until it is set aside
	title string                     // for errors: the path as the user knows it

	uid int // whose our files are on this file system

	sweeping chan struct{} // closed when what was left aside is removed; nil: it was not looked for yet

	mu        sync.Mutex
	part      *durable.Part // nil: none
	existing  *existing     // the file that is there already and may be the same; nil: none
	update    *update       // nil: none
	made      []madeDir     // directories that Begin made, from above downwards
	complete  fs.FileInfo   // of the part when it was complete and durable; nil: it is not
	published bool
	kept      bool // Close leaves the part for another transfer

	above durable.FS // the directory in which Begin made the first one; nil: none
}

// NewTarget checks the names and opens Dir; Close frees it.
func NewTarget(o TargetOptions) (*Target, error) {
	return newTarget(func() (durable.FS, error) {
		root, err := durable.OpenRoot(o.Dir)
		if errors.Is(err, durable.ErrUntrustedLink) {
			return nil, errkind.Errorf("output-link", "output directory %s: %w", o.Dir, err)
		}
		if err != nil {
			return nil, fmt.Errorf("output directory: %w", err)
		}
		return root, nil
	}, o)
}

func newTarget(open func() (durable.FS, error), o TargetOptions) (*Target, error) {
	title := path.Join(o.Dir, o.Name)
	name := path.Clean(o.Name)
	if strings.HasSuffix(o.Name, "/") || name == "." || !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("output %s/%s: not the name of a file below that directory", o.Dir, o.Name)
	}
	dirs := strings.Split(name, "/")
	dirs, base := dirs[:len(dirs)-1], dirs[len(dirs)-1]
	temp := partName(base)
	if len(temp) > 255 {
		return nil, errkind.Errorf("output-long", "output %s: the name is too long", title)
	}
	if o.Mode == 0 {
		o.Mode = 0o644
	}
	top, err := open()
	if err != nil {
		return nil, err
	}
	return &Target{o: o, open: open, top: top, fs: top, dirs: dirs, name: base, temp: temp, title: title, uid: os.Geteuid()}, nil
}

// Path is the final name, as NewTarget was given it.
func (t *Target) Path() string { return t.title }

// String is the path, for logs.
func (t *Target) String() string { return t.title }

// Offer refuses what could not be published, and tells the free bytes: what
// the file system has, and what a part that was left behind will give back. It
// holds what that part has, or a file that is there and may be the same: one of
// equal length, where it must not be replaced.
func (t *Target) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if len(blobs) != 1 {
		return nil, 0, fmt.Errorf("output %s: takes one blob, not %d", t.title, len(blobs))
	}
	if held, ok, err := t.offerExisting(blobs[0]); err != nil || ok {
		return held, -1, err // nothing will be written
	}
	free, part, err := t.check()
	if err != nil {
		return nil, 0, err
	}
	if blobs[0].Digest != "" {
		part = max(0, min(part, blobs[0].Size-1)) // all of it would vouch for it
	}
	need := min(blobs[0].Size-part, leaf.Data(blobs[0]))
	if free, err = t.room(ctx, need, free); err != nil {
		return nil, 0, err
	}
	if free >= 0 && need > free && !t.mayUpdate(blobs[0]) {
		return nil, 0, t.tooSmall(need, free)
	}
	return []int64{part}, free, nil
}

// tooSmall says how much there would have to be where the output goes, and how much there is.
func (t *Target) tooSmall(need, free int64) error {
	return fmt.Errorf("output %s: needs %s, %s are free in %s: %w",
		t.title, bytesize.Text(need), bytesize.Text(free), path.Dir(t.title), syscall.ENOSPC)
}

// Check is Offer without a blob, for a target that is only to be cloned to.
func (t *Target) Check() (free int64, err error) {
	free, part, err := t.check()
	if free >= 0 {
		free += part // will be written over
	}
	return free, err
}

// freeSpace refuses what has no place, and tells the free bytes there. What was left aside is removed before, as far as that
// takes no time.
func (t *Target) freeSpace() (free int64, err error) {
	if err := t.walk(); err != nil {
		return 0, err
	}
	if !t.missing() {
		t.sweep()
	}
	d, err := t.fs.OpenFile(".", os.O_RDONLY, 0)
	if err != nil {
		return 0, t.fail("read directory", err)
	}
	defer d.Close()
	free, network, err := durable.Space(d)
	if err != nil {
		return 0, t.fail("free space", err)
	}
	if network != "" && !t.o.Shared {
		return 0, errkind.Errorf("output-shared",
			"output %s is on a network file system (%s)", t.title, network)
	}
	return free, nil
}

// check also tells how long a part is that was left behind.
func (t *Target) check() (free, part int64, err error) {
	if free, err = t.freeSpace(); err != nil {
		return 0, 0, err
	}
	if err := t.replaceable(); err != nil {
		return 0, 0, err
	}
	blocks, part, err := t.leftover()
	if err != nil {
		return 0, 0, err
	}
	if free >= 0 {
		free += max(0, blocks-part) // reserved, and not yet written
	}
	return free, part, nil
}

// look is Lstat of a name in the directory of the target, which may not be there yet.
func (t *Target) look(name string) (fs.FileInfo, error) {
	if t.missing() {
		return nil, fs.ErrNotExist
	}
	return t.fs.Lstat(name)
}

// replaceable says why the final name cannot be taken.
func (t *Target) replaceable() error {
	info, err := t.look(t.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return t.fail("look at it", err)
	case info.IsDir():
		return errkind.Errorf("output-directory", "output %s is a directory", t.title)
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("output %s is a symbolic link", t.title)
	case !info.Mode().IsRegular():
		return fmt.Errorf("output %s is not a regular file", t.title)
	case !t.o.Overwrite:
		return t.exists()
	}
	return nil
}

func (t *Target) exists() error {
	return errkind.Errorf("output-exists",
		"output %s: %w", t.title, fs.ErrExist)
}

// existsDir is exists of a directory that shall be replaced by another one.
func (t *Target) existsDir() error {
	return errkind.Errorf("output-exists", "output %s: %w", t.title, dirExists{})
}

// dirExists is fs.ErrExist in the words for a directory.
type dirExists struct{}

func (dirExists) Error() string { return "directory already exists" }

func (dirExists) Is(target error) bool { return target == fs.ErrExist }

// fail names the output, not the part file that the system knows.
func (t *Target) fail(what string, err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("output %s: %s: %w", t.title, what, err)
}

// Begin opens the part file at off, which is 0 or at most what an Abort before
// kept or Offer claimed, and reserves the space. A blob with holes stays sparse, and none is reserved for it: to reserve
// room for the holes, too, would refuse it where it fits, and nobody knows where they are.
func (t *Target) Begin(ctx context.Context, d v1.Descriptor, off int64) (ring.Writer, error) {
	t.mu.Lock()
	file, u := t.existing, t.update
	if u != nil {
		file = t.hold(u, d, off)
	}
	t.mu.Unlock()
	if file != nil {
		w, err := t.beginExisting(ctx, file, off)
		if err != nil {
			return nil, err // not a nil *existingWriter in an interface
		}
		return w, nil
	}
	if u != nil {
		if err := t.beginUpdate(ctx, u, d, off); err != nil {
			return nil, err
		}
	}
	p, err := t.begin(ctx, off)
	if err != nil {
		return nil, err
	}
	if leaf.Data(d) == d.Size && !u.shares() {
		if err := p.Reserve(d.Size); err != nil {
			return nil, errors.Join(t.fail("reserve "+bytesize.Text(d.Size), err), t.drop())
		}
	}
	return &targetWriter{t, p, u.copier()}, nil
}

func (t *Target) begin(ctx context.Context, off int64) (*durable.Part, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.complete != nil {
		return nil, fmt.Errorf("output %s: begun again after it was complete", t.title)
	}
	if t.part == nil {
		if err := t.mkdirs(); err != nil {
			return nil, err
		}
		f, err := t.openPart()
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, t.fail("part file", err)
		}
		t.part = durable.NewPart(f, info.Size())
	}
	if err := t.part.Cut(off); err != nil {
		return nil, t.fail("continue", err)
	}
	return t.part, nil
}

// Open reads what is stored of the blob, from off on, also while it is written.
func (t *Target) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.existing != nil {
		return t.openExisting(ctx, t.existing, off)
	}
	if u := t.update; u != nil && !u.begun {
		return t.openCompared(ctx, u, off)
	}
	if t.part == nil {
		return nil, fmt.Errorf("output %s: nothing is stored", t.title)
	}
	r, err := t.part.Open(ctx, off, nil)
	if err != nil {
		return nil, t.fail("replay", err)
	}
	if c := t.update.copier(); c != nil {
		return &copyingReader{ReadCloser: r, ctx: ctx, c: c, off: off}, nil
	}
	return r, nil
}
