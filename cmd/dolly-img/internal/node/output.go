package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/sif"
)

// output is what a node makes of an image beside its cache: a SIF, an archive or a directory.
type output interface {
	// Check returns an error if the output cannot be made, and else the free bytes of its file system; -1 is
	// unknown.
	Check() (free int64, err error)
	// size returns how many bytes the output will have.
	size() int64
	// make makes all of it durable, under a name that nobody looks at.
	make(ctx context.Context, blobs blobOpener) error
	// Device tells the file system that the output goes to.
	Device() (uint64, error)
	// recorded returns the path of the file of the output that the cache keeps a record of.
	recorded() string
	// standing describes the file that is there now.
	standing() (fs.FileInfo, error)
	// mark returns what the record has to say if the output that is there now is the right one: a digest of all that its
	// bytes depend on. It returns an error if the output is not there.
	mark() (digest.Digest, error)
	// Publish switches to what was made.
	Publish(ctx context.Context) error
	// placed describes the recorded file and returns the mark of what Publish has switched to, whatever is there now.
	placed() (fs.FileInfo, digest.Digest, error)
	Close() error
}

// blobOpener opens a blob of the image. Its bytes are known to be right.
type blobOpener func(v1.Descriptor) (*os.File, error)

// newOutput returns the output for the image of these blobs, where o says. The caller closes it.
func newOutput(m *meta.Transfer, blobs []v1.Descriptor, o raw.TargetOptions) (output, error) {
	var of v1.Descriptor // the SIF, or else the root of the image, which is the manifest that comes last
	what := "manifest"
	if m.Format == "" {
		what = "SIF"
	}
	for _, d := range blobs {
		switch {
		case d.Size < 0:
			return nil, fmt.Errorf("output %s: a blob of the image has no size", m.Output)
		case m.Format == "" && sif.IsLayer(d.MediaType) && of.Digest == "",
			m.Format != "" && cache.IsManifest(d.MediaType):
			of = d
		}
	}
	if of.Digest == "" {
		return nil, fmt.Errorf("output %s: no %s in the image to make it of", m.Output, what)
	}
	if m.Format == meta.FormatLayout {
		l, err := newLayout(m.Ref, blobs, of)
		if err != nil {
			return nil, err
		}
		tree, err := raw.NewTree(o, []string{"blobs", v1.ImageIndexFile, v1.ImageLayoutFile})
		if err != nil {
			return nil, err
		}
		return &layoutOutput{tree, l, m.Output}, nil
	}
	target, err := raw.NewTarget(o)
	if err != nil {
		return nil, err
	}
	if m.Format == "" {
		return &sifOutput{target, of}, nil
	}
	l, err := newLayout(m.Ref, blobs, of)
	if err != nil {
		return nil, errors.Join(err, target.Close())
	}
	return &archiveOutput{target, l}, nil
}

// sifOutput is the SIF of the image as a file.
type sifOutput struct {
	*raw.Target
	blob v1.Descriptor
}

func (o *sifOutput) size() int64 { return o.blob.Size }

func (o *sifOutput) recorded() string { return o.Path() }

func (o *sifOutput) standing() (fs.FileInfo, error) { return o.Standing() }

func (o *sifOutput) mark() (digest.Digest, error) { return o.blob.Digest, nil }

func (o *sifOutput) placed() (fs.FileInfo, digest.Digest, error) {
	info, err := o.Placed()
	return info, o.blob.Digest, err
}

func (o *sifOutput) make(ctx context.Context, open blobOpener) error {
	blob, err := open(o.blob)
	if err != nil {
		return err
	}
	defer blob.Close()
	return o.Clone(ctx, blob, o.blob.Size)
}

// archiveOutput is the image in a tar.
type archiveOutput struct {
	*raw.Target
	layout *layout
}

func (o *archiveOutput) size() int64 { return o.layout.tarSize() }

func (o *archiveOutput) recorded() string { return o.Path() }

func (o *archiveOutput) standing() (fs.FileInfo, error) { return o.Standing() }

func (o *archiveOutput) mark() (digest.Digest, error) { return digest.FromBytes(o.layout.index), nil }

func (o *archiveOutput) placed() (fs.FileInfo, digest.Digest, error) {
	info, err := o.Placed()
	return info, digest.FromBytes(o.layout.index), err
}

func (o *archiveOutput) make(ctx context.Context, open blobOpener) error {
	final := v1.Descriptor{Size: o.size()}
	w, err := o.Begin(ctx, final, 0)
	if err != nil {
		return err
	}
	if err := o.layout.writeTar(ctx, w, open); err != nil {
		return errors.Join(err, w.Abort(0))
	}
	return w.Commit(ctx, final)
}

// blobFile returns the path of a blob in a layout.
func blobFile(d v1.Descriptor) string {
	return path.Join("blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

// placing receives an image into the cache, and then makes an output of it.
type placing struct {
	*cache.Transfer
	cache *cache.Cache
	out   output
	meta  *meta.Transfer
	// free is how many bytes are free where the output goes; -1 is unknown, or not asked for yet.
	free int64
	// made says that the output was made and has to be published.
	made bool
}

// String names both places, for the log.
func (p *placing) String() string { return p.meta.Output + " and " + p.Transfer.String() }

// begin checks that the output can be made.
func (p *placing) begin() (err error) {
	if p.free = -1; !p.placed() {
		p.free, err = p.out.Check()
	}
	return err
}

// placed reports whether the output already is what this transfer would make. It looks at the rest of an output only if
// the file of which there is a record is the one that was placed.
func (p *placing) placed() bool {
	info, err := p.out.standing()
	if err != nil {
		return false
	}
	was, ok := p.cache.PlacedAs(p.out.recorded(), info)
	if !ok || !asWanted(info, p.meta) {
		return false
	}
	mark, err := p.out.mark()
	return err == nil && was == mark
}

// asWanted reports whether a file has the mode and the owner that m wants.
func asWanted(info fs.FileInfo, m *meta.Transfer) bool {
	mode := fs.FileMode(m.Mode)
	if mode == 0 {
		mode = 0o644
	}
	owner, err := resolveOwner(m.Owner)
	st := info.Sys().(*syscall.Stat_t)
	return err == nil && info.Mode().Perm() == mode &&
		(owner == nil || (owner.UID < 0 || uint32(owner.UID) == st.Uid) && (owner.GID < 0 || uint32(owner.GID) == st.Gid))
}

// Switches reports whether the reference or the output has to be switched, because it is not what it shall be.
func (p *placing) Switches(ctx context.Context) bool {
	return p.Transfer.Switches(ctx) || !p.placed()
}

// Offer is that of the cache, and checks that the output has room beside it.
func (p *placing) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	held, free, err = p.Transfer.Offer(ctx, blobs)
	if err != nil || p.placed() {
		return held, free, err
	}
	need := p.out.size()
	if p.free >= 0 && p.free < need {
		return nil, 0, p.tooSmall(need, p.free)
	}
	if free >= 0 && p.free >= 0 && p.sameFileSystem() {
		// A reflink may need less, but nobody knows that before. The output is not subject to the cache's limits.
		both := need
		for i, d := range blobs {
			both += max(0, d.Size-held[i])
		}
		if both > p.free {
			return nil, 0, fmt.Errorf("output %s and the image in the cache %s, on one file system: need %s, %s are free: %w",
				p.meta.Output, p.cache.Dir(), bytesize.Text(both), bytesize.Text(p.free), syscall.ENOSPC)
		}
		free = min(free, p.free-need)
	}
	return held, free, nil
}

// tooSmall returns the error that says how many bytes the output needs and how many are free there.
func (p *placing) tooSmall(need, free int64) error {
	return fmt.Errorf("output %s: needs %s, %s are free in %s: %w",
		p.meta.Output, bytesize.Text(need), bytesize.Text(free), filepath.Dir(p.meta.Output), syscall.ENOSPC)
}

// sameFileSystem reports whether the output goes to the file system of the cache.
func (p *placing) sameFileSystem() bool {
	info, err := os.Stat(p.cache.Dir())
	if err != nil {
		return false
	}
	dev, err := p.out.Device()
	return err == nil && dev == info.Sys().(*syscall.Stat_t).Dev
}

// Prepare makes the output durable under another name, unless the output is in place already.
func (p *placing) Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error) {
	inPlace, err = p.Transfer.Prepare(ctx, blobs)
	if err != nil || p.placed() {
		return inPlace, err
	}
	err = p.out.make(ctx, func(d v1.Descriptor) (*os.File, error) {
		path, err := p.cache.BlobPath(d.Digest)
		if err != nil {
			return nil, err
		}
		return os.Open(path)
	})
	p.made = err == nil
	return false, err
}

// Publish switches the output and then the reference. It records that the output is in place, which spares the next
// transfer a copy; an error of that is no failure of this transfer.
func (p *placing) Publish(ctx context.Context) error {
	if p.made {
		if err := p.out.Publish(ctx); err != nil {
			return err
		}
		if info, mark, err := p.out.placed(); err == nil {
			_ = p.cache.RecordPlaced(p.out.recorded(), info, mark)
		}
	}
	return p.Transfer.Publish(ctx)
}

// Close closes the output and the transfer to the cache.
func (p *placing) Close() error { return errors.Join(p.out.Close(), p.Transfer.Close()) }

var (
	_ io.Closer = (*placing)(nil)
	_ output    = (*sifOutput)(nil)
	_ output    = (*archiveOutput)(nil)
	_ output    = (*layoutOutput)(nil)
)
