package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Source is what the blobs of an image are read from: the Image itself, or something that keeps them.
type Source interface {
	Blobs(ctx context.Context) ([]v1.Descriptor, error)
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
	io.Closer
}

// CheckOptions says what Check compares. Zero values are good.
type CheckOptions struct {
	// Layers unpacks and compares the compressed layers of any image. Those of a docker save
	// archive are always compared, because nothing else says what their bytes are.
	Layers bool
	// Known returns what remembers the layers that were found right, so that they are not
	// unpacked again. It is called only if layers have to be unpacked. It may return nil, and
	// may be nil itself.
	Known func() Known
}

// Known remembers, longer than a process lives, that a blob unpacks to the bytes of a diff_id.
type Known interface {
	LayerChecked(blob, diff digest.Digest) bool
	RecordLayer(blob, diff digest.Digest)
}

// Check returns an error if the manifest and the config of the image do not agree. Else it
// returns the source to send the image from, which is from itself if no layer has to be
// unpacked. From reads the blobs of the image. Closing the source closes from.
//
// Layers are unpacked while the image is sent, several at once, from the moment when
// the source is read first. The source gives the last byte of a blob only after its check has ended
// well, so that nobody has a whole wrong blob. Unchanged waits for all checks.
func (i *Image) Check(ctx context.Context, from Source, o CheckOptions) (Source, error) {
	layers, err := i.agree(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.asked, err)
	}
	_, saved := i.store.(*dockerArchive)
	if !o.Layers && !saved || len(layers) == 0 {
		return from, nil
	}
	var known Known
	if o.Known != nil {
		known = o.Known()
	}
	c := &checked{Source: from, known: known, image: i.asked, readers: i.readers(), byBlob: map[digest.Digest][]*layerCheck{}}
	for _, l := range layers {
		if known != nil && known.LayerChecked(l.Digest, l.diff) || c.has(l) {
			continue
		}
		check := &layerCheck{layer: l, done: make(chan struct{})}
		c.list = append(c.list, check)
		c.byBlob[l.Digest] = append(c.byBlob[l.Digest], check)
	}
	if len(c.list) == 0 {
		return from, nil
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return c, nil
}

// checked is a Source whose layers are unpacked and compared while it is read.
type checked struct {
	Source
	known   Known
	image   string
	readers int // how many layers are checked at once
	list    []*layerCheck
	byBlob  map[digest.Digest][]*layerCheck

	begin  sync.Once
	ctx    context.Context // the context of all checks; its cause is the first error
	cancel context.CancelCauseFunc
	work   sync.WaitGroup
}

// layerCheck is the check of one layer. Done is closed when the layer was found right.
type layerCheck struct {
	layer
	done chan struct{}
}

// readers returns how many blobs are worth reading at once.
func (i *Image) readers() int {
	if s, ok := i.store.(interface{ readers() int }); ok {
		return s.readers()
	}
	return runtime.GOMAXPROCS(0)
}

func (c *checked) has(l layer) bool {
	for _, other := range c.byBlob[l.Digest] {
		if other.diff == l.diff {
			return true
		}
	}
	return false
}

// start begins the checks.
func (c *checked) start() {
	c.begin.Do(func() {
		c.work.Go(func() {
			var group errgroup.Group
			group.SetLimit(c.readers)
			for _, l := range c.list {
				group.Go(func() error {
					if err := c.check(l); err != nil {
						c.cancel(err) // the first one counts
						return err
					}
					close(l.done)
					return nil
				})
			}
			_ = group.Wait() // the error is the cause of ctx
		})
	})
}

func (c *checked) check(l *layerCheck) error {
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	rc, err := c.Source.Open(c.ctx, l.Descriptor, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	in := &watched{Reader: rc}
	got, err := unpackedDigest(c.ctx, in, l.diff.Algorithm())
	switch {
	case in.err != nil: // the layer could not be read, which says nothing about its bytes
		return in.err
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case err != nil:
		return &wrong{fmt.Errorf("image %s: layer %s cannot be unpacked: %w", c.image, l.Digest, noEOF(err))}
	case got != l.diff:
		return &wrong{fmt.Errorf("image %s: layer %s unpacks to %s, but the config of the image says %s", c.image, l.Digest, got, l.diff)}
	}
	if c.known != nil {
		c.known.RecordLayer(l.Digest, l.diff)
	}
	return nil
}

// unpackedDigest returns the digest of the decompressed bytes of r, or of its bytes if they are not compressed. It
// reads all of r.
func unpackedDigest(ctx context.Context, r io.Reader, algorithm digest.Algorithm) (digest.Digest, error) {
	in := bufio.NewReaderSize(&untilDone{ctx, r}, 256<<10)
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return "", err
	}
	plain := io.NopCloser(io.Reader(in))
	if unpack := unpacker(head); unpack != nil {
		if plain, err = unpack(in); err != nil {
			return "", noEOF(err)
		}
	}
	defer plain.Close()
	sum := algorithm.Digester()
	if _, err := io.CopyBuffer(sum.Hash(), plain, make([]byte, 256<<10)); err != nil {
		return "", err
	}
	return sum.Digest(), nil
}

// watched keeps the error with which a Reader failed.
type watched struct {
	io.Reader
	err error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// wait waits until all checks have ended well, or one has failed.
func (c *checked) wait(ctx context.Context, list []*layerCheck) error {
	for _, l := range list {
		select {
		case <-l.done:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Open returns a reader of a blob. The last byte of a layer waits for its check.
func (c *checked) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return c.open(ctx, d, off, c.Source.Open)
}

// OpenUnverified is Open for a reader that compares the bytes with their digest itself.
func (c *checked) OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if i, ok := c.Source.(*Image); ok {
		return c.open(ctx, d, off, i.OpenUnverified)
	}
	return c.Open(ctx, d, off)
}

func (c *checked) open(ctx context.Context, d v1.Descriptor, off int64, open func(context.Context, v1.Descriptor, int64) (io.ReadCloser, error)) (io.ReadCloser, error) {
	checks := c.byBlob[d.Digest]
	if checks != nil {
		c.start()
	}
	if c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	rc, err := open(ctx, d, off)
	if checks != nil && err == nil {
		return &heldBack{rc, c, ctx, checks, d.Size - off}, nil
	}
	return rc, err
}

// heldBack reads a blob whose last byte waits for its checks.
type heldBack struct {
	io.ReadCloser
	c      *checked
	ctx    context.Context
	checks []*layerCheck
	left   int64
}

func (h *heldBack) Read(b []byte) (int, error) {
	if h.left > 1 {
		b = b[:min(int64(len(b)), h.left-1)]
	} else if err := h.c.wait(h.ctx, h.checks); err != nil {
		return 0, err
	}
	n, err := h.ReadCloser.Read(b)
	h.left -= int64(n)
	if h.c.ctx.Err() != nil { // the image is wrong, even if this blob is right
		return 0, context.Cause(h.c.ctx)
	}
	return n, err
}

// Unchanged waits for all checks, also for those of layers that were not sent.
func (c *checked) Unchanged(ctx context.Context) error {
	c.start()
	if err := c.wait(ctx, c.list); err != nil {
		return err
	}
	if u, ok := c.Source.(interface{ Unchanged(context.Context) error }); ok {
		return u.Unchanged(ctx)
	}
	return nil
}

// Planned passes on which blobs the ring will read.
func (c *checked) Planned(read []bool) {
	c.start()
	if p, ok := c.Source.(interface{ Planned([]bool) }); ok {
		p.Planned(read)
	}
}

// Close ends the checks, and closes the source that they read.
func (c *checked) Close() error {
	c.cancel(errors.New("closed"))
	c.work.Wait()
	return c.Source.Close()
}
