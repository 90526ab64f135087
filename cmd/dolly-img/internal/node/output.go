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
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/sif"
)

// output is what a node makes of an image beside its cache.
type output interface {
	// Check refuses what could not be made, and tells the free bytes where it goes, -1 unknown.
	Check() (free int64, err error)
	// size is how many bytes it will have.
	size() int64
	// make makes all of it, durably and not yet visible.
	make(ctx context.Context, blobs blobOpener) error
	// state tells whether what is in place is what was made: the file whose record says so,
	// and all that the bytes of the output depend on. Its error says that it is not.
	state() (path string, mark digest.Digest, err error)
	// Publish switches to what was made.
	Publish(ctx context.Context) error
	Close() error
}

// blobOpener opens a blob of the image, which is known to be right.
type blobOpener func(v1.Descriptor) (*os.File, error)

// newOutput is for the image of these blobs; o says where. What it returns has to be closed.
func newOutput(m *meta.Transfer, blobs []v1.Descriptor, o raw.TargetOptions) (output, error) {
	var of v1.Descriptor // the SIF, or the root: the manifest that comes last
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

// sifOutput is the SIF file.
type sifOutput struct {
	*raw.Target
	blob v1.Descriptor
}

func (o *sifOutput) size() int64 { return o.blob.Size }

func (o *sifOutput) state() (string, digest.Digest, error) { return o.Path(), o.blob.Digest, nil }

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

func (o *archiveOutput) state() (string, digest.Digest, error) {
	return o.Path(), digest.FromBytes(o.layout.index), nil
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

// layoutOutput is the image in a directory.
type layoutOutput struct {
	*raw.Tree
	layout *layout
	dir    string
}

func (o *layoutOutput) size() int64 {
	n := int64(len(o.layout.index) + len(layoutMarker))
	for _, d := range o.layout.blobs {
		n += d.Size
	}
	return n
}

// state sums up what every file looks like: one of them may have been changed or removed.
func (o *layoutOutput) state() (string, digest.Digest, error) {
	mark := digest.Canonical.Digester()
	mark.Hash().Write(o.layout.index)
	err := filepath.WalkDir(o.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if d.IsDir() {
			fmt.Fprintf(mark.Hash(), "\n%q %d", name, st.Ino)
		} else {
			fmt.Fprintf(mark.Hash(), "\n%q %d %d %d %d", name, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		}
		return nil
	})
	return filepath.Join(o.dir, v1.ImageIndexFile), mark.Digest(), err
}

func (o *layoutOutput) make(ctx context.Context, open blobOpener) error {
	if err := o.Begin(ctx); err != nil {
		return err
	}
	for _, d := range o.layout.blobs {
		blob, err := open(d)
		if err != nil {
			return err
		}
		err = o.Put(ctx, blobFile(d), blob, d.Size)
		blob.Close()
		if err != nil {
			return err
		}
	}
	for name, text := range map[string]string{v1.ImageIndexFile: string(o.layout.index), v1.ImageLayoutFile: layoutMarker} {
		if err := o.Put(ctx, name, strings.NewReader(text), int64(len(text))); err != nil {
			return err
		}
	}
	return o.Commit(ctx)
}

// blobFile is where a layout has a blob.
func blobFile(d v1.Descriptor) string {
	return path.Join("blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

// placing is an image on its way to the cache, and from there to an output.
type placing struct {
	*cache.Transfer
	cache *cache.Cache
	out   output
	meta  *meta.Transfer
	free  int64 // bytes free where the output goes; -1 unknown, or not yet asked for
	made  bool  // the output has to be published
}

// String names both places, for the audit line.
func (p *placing) String() string { return p.meta.Output + " and " + p.Transfer.String() }

// begin finds out whether the output can be made.
func (p *placing) begin() (err error) {
	if p.free = -1; !p.placed() {
		p.free, err = p.out.Check()
	}
	return err
}

// placed says whether the output already is what this transfer would make it.
func (p *placing) placed() bool {
	path, mark, err := p.out.state()
	return err == nil && placedAs(p.cache, p.meta, path, mark)
}

// placedAs says whether the cache has a record that the file at path has this mark, and whether its
// mode and owner are those of m.
func placedAs(c *cache.Cache, m *meta.Transfer, path string, mark digest.Digest) bool {
	if !c.Placed(path, mark) {
		return false
	}
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	mode := fs.FileMode(m.Mode)
	if mode == 0 {
		mode = 0o644
	}
	owner, err := resolveOwner(m.Owner)
	st := info.Sys().(*syscall.Stat_t)
	return err == nil && info.Mode().Perm() == mode &&
		(owner == nil || (owner.UID < 0 || uint32(owner.UID) == st.Uid) && (owner.GID < 0 || uint32(owner.GID) == st.Gid))
}

// Switches says whether the reference or the output is not what it shall be.
func (p *placing) Switches(ctx context.Context) bool {
	return p.Transfer.Switches(ctx) || !p.placed()
}

// Offer is the cache's, with room for the output beside it.
func (p *placing) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	held, free, err = p.Transfer.Offer(ctx, blobs)
	if err != nil || p.placed() {
		return held, free, err
	}
	need := p.out.size()
	if p.free >= 0 && p.free < need {
		return nil, 0, p.tooSmall(need, p.free)
	}
	if free >= 0 && p.free >= 0 && sameFileSystem(p.cache.Dir(), filepath.Dir(p.meta.Output)) {
		// A reflink may need less, which nobody knows before. The cache's limits are not the output's.
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

// tooSmall says how much there would have to be where the output goes, and how much there is.
func (p *placing) tooSmall(need, free int64) error {
	return fmt.Errorf("output %s: needs %s, %s are free in %s: %w",
		p.meta.Output, bytesize.Text(need), bytesize.Text(free), filepath.Dir(p.meta.Output), syscall.ENOSPC)
}

// sameFileSystem is about what exists of both paths.
func sameFileSystem(a, b string) bool {
	x, okX := device(a)
	y, okY := device(b)
	return okX && okY && x == y
}

func device(path string) (uint64, bool) {
	for {
		info, err := os.Stat(path)
		if err == nil {
			return info.Sys().(*syscall.Stat_t).Dev, true
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return 0, false
		}
		path = filepath.Dir(path)
	}
}

// Prepare makes the output durable under another name, unless it is in place.
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

// Publish switches the output, then the reference. The record that the output is in
// place spares the next transfer a copy and is worth no failure.
func (p *placing) Publish(ctx context.Context) error {
	if p.made {
		if err := p.out.Publish(ctx); err != nil {
			return err
		}
		if path, mark, err := p.out.state(); err == nil {
			_ = p.cache.RecordPlaced(path, mark)
		}
	}
	return p.Transfer.Publish(ctx)
}

// Close ends both.
func (p *placing) Close() error { return errors.Join(p.out.Close(), p.Transfer.Close()) }

var (
	_ io.Closer = (*placing)(nil)
	_ output    = (*sifOutput)(nil)
	_ output    = (*archiveOutput)(nil)
	_ output    = (*layoutOutput)(nil)
)
