package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/sif"
)

// direct receives an image whose SIF is written to its output only, for nodes that have no room for a second copy in
// a cache. The manifest and the config, which are a few bytes, go to the cache without a name, where GC removes them
// later.
type direct struct {
	*raw.Target
	rest  *cache.Transfer
	cache *cache.Cache
	meta  *meta.Transfer
	sif   v1.Descriptor
	// inPlace says that the output was right already when it was offered.
	inPlace bool
}

// maxBeside bounds the size of the blobs beside the SIF, in bytes.
const maxBeside = 8 << 20

// newDirect returns a sink for the image of these blobs. The caller closes it.
func newDirect(c *cache.Cache, m *meta.Transfer, blobs []v1.Descriptor, o raw.TargetOptions) (*direct, error) {
	d := &direct{cache: c, meta: m, rest: c.Transfer(cache.LocalRef(m.Output), cache.TransferOptions{})}
	beside := int64(0)
	for _, b := range blobs {
		switch {
		case b.Size < 0 || b.Digest == "":
			return nil, fmt.Errorf("output %s: a blob of the image has no size or digest", m.Output)
		case sif.IsLayer(b.MediaType) && d.sif.Digest == "":
			d.sif = b
		default:
			beside += min(b.Size, maxBeside)
		}
	}
	if d.sif.Digest == "" {
		return nil, fmt.Errorf("output %s: no SIF in the image to make it of", m.Output)
	}
	if beside >= maxBeside {
		return nil, fmt.Errorf("output %s: the image has more beside its SIF than goes without a cache", m.Output)
	}
	var err error
	if d.Target, err = raw.NewTarget(o); err != nil {
		return nil, err
	}
	if !d.placed() {
		if _, err := d.Check(); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// placed reports whether the output has the SIF already, with the mode and the owner that the sender wants.
func (d *direct) placed() bool {
	info, err := d.Standing()
	return err == nil && d.isPlaced(info)
}

// isPlaced reports whether info describes the output that an earlier transfer placed.
func (d *direct) isPlaced(info fs.FileInfo) bool {
	was, ok := d.cache.PlacedAs(d.Path(), info)
	return ok && was == d.sif.Digest && asWanted(info, d.meta)
}

// Offer says what is held: the SIF if the output has it, or the part of it that an earlier transfer left.
func (d *direct) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	at := slices.IndexFunc(blobs, d.isSIF)
	if at < 0 {
		return nil, 0, fmt.Errorf("output %s: other blobs than were asked for", d.meta.Output)
	}
	held, _, err = d.rest.Offer(ctx, slices.Delete(slices.Clone(blobs), at, at+1))
	if err != nil {
		return nil, 0, err
	}
	if d.inPlace = d.placed(); d.inPlace {
		return slices.Insert(held, at, d.sif.Size), -1, nil
	}
	part, free, err := d.Target.Offer(ctx, blobs[at:at+1])
	if err != nil {
		return nil, 0, err
	}
	return slices.Insert(held, at, part[0]), free, nil
}

func (d *direct) isSIF(b v1.Descriptor) bool { return b.Digest == d.sif.Digest }

// Begin returns a writer that continues blob b at off.
func (d *direct) Begin(ctx context.Context, b v1.Descriptor, off int64) (ring.Writer, error) {
	if d.isSIF(b) {
		return d.Target.Begin(ctx, b, off)
	}
	return d.rest.Begin(ctx, b, off)
}

// Compare compares nothing: only raw files are updated, and the Target would take any blob for the SIF.
func (d *direct) Compare(context.Context, v1.Descriptor) (int64, error) { return 0, nil }

// Open reads what is there of blob b, from off on.
func (d *direct) Open(ctx context.Context, b v1.Descriptor, off int64) (io.ReadCloser, error) {
	switch {
	case !d.isSIF(b):
		return d.rest.Open(ctx, b, off)
	case d.inPlace:
		return d.openPlaced(ctx, off)
	}
	return d.Target.Open(ctx, b, off)
}

func (d *direct) openPlaced(ctx context.Context, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, info, err := d.OpenStanding()
	if err != nil {
		return nil, err
	}
	if !d.isPlaced(info) {
		f.Close()
		return nil, d.moved()
	}
	if off < 0 || off > d.sif.Size {
		f.Close()
		return nil, fmt.Errorf("output %s: offset %d is outside its %d bytes", d.Path(), off, d.sif.Size)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, d.sif.Size-off), f}, nil
}

func (d *direct) moved() error {
	return fmt.Errorf("output %s: was changed while the transfer ran", d.Path())
}

// Prepare reports whether the output was right all the time.
func (d *direct) Prepare(ctx context.Context, _ []v1.Descriptor) (inPlace bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if d.inPlace && !d.placed() {
		return false, d.moved()
	}
	return d.inPlace, nil
}

// Switches reports whether the output has to be switched, because it is not what it shall be.
func (d *direct) Switches(context.Context) bool { return !d.placed() }

// Publish switches the output, and records what is there, so that the next transfer need not move the bytes.
func (d *direct) Publish(ctx context.Context) error {
	if d.inPlace {
		return ctx.Err()
	}
	if err := d.Target.Publish(ctx); err != nil {
		return err
	}
	if info, err := d.Placed(); err == nil {
		_ = d.cache.RecordPlaced(d.Path(), info, d.sif.Digest)
	}
	return nil
}

// Keep tells Close to keep what was received for another transfer.
func (d *direct) Keep() {
	d.Target.Keep()
	d.rest.Keep()
}

// Close closes the target and the transfer to the cache.
func (d *direct) Close() error { return errors.Join(d.Target.Close(), d.rest.Close()) }

var (
	_ ring.Opener   = (*direct)(nil)
	_ ring.Preparer = (*direct)(nil)
	_ ring.Switcher = (*direct)(nil)
	_ ring.Keeper   = (*direct)(nil)
	_ io.Closer     = (*direct)(nil)
	_ fmt.Stringer  = (*direct)(nil)
)
