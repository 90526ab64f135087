package expand

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/internal/ahead"
	"github.com/dolly-img/dolly-img/ring/raw/internal/whole"
)

// File is what an image is stored in: a file that can be told from a changed one.
type File interface {
	io.ReaderAt
	io.Closer
	// Size is the length of the file in bytes.
	Size() int64
	// Unchanged returns an error when the file is not what it was when it was opened.
	Unchanged(ctx context.Context) error
}

// Options say how an image is stored in its file.
type Options struct {
	// Name is what errors call the file. Its base, without the suffix of the compression, is the title of the blob.
	Name string
	// Format is how the file is compressed, or Raw. Auto lets its bytes say it, and refuses what is no raw image once it is
	// expanded; any other format is taken as said.
	Format Format
	// Map is a block map (bmap) of the image, or nil.
	Map *Map
	// Measuring is called while a file is expanded once to find out how long it is, with how many bytes of it were
	// read and how many it has: before the first of them, about every MiB, and at its end. It may be nil.
	Measuring func(read, size int64)
}

// Image is an image in a file as a source of one blob, whose length is known. Closing it closes the file.
type Image struct {
	file   File
	name   string
	format Format
	judged bool // what is expanded is looked at
	blocks *Map
	size   int64  // of the image, or -1 while it is not known
	says   string // what says the size, as in "the file has more bytes than its index says"

	skips chan struct{} // has room for one that expands what is before the bytes that are asked for

	reading whole.Reading
}

// Open makes a source of the image in file, which is closed if there is an error. It reads as much as it takes to know
// how long the image is: all of the file where nothing in it says that.
func Open(ctx context.Context, file File, o Options) (*Image, error) {
	im := &Image{file: file, name: o.Name, format: o.Format, blocks: o.Map, size: -1, skips: make(chan struct{}, 1)}
	if err := im.open(ctx, o.Measuring); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if !leaf.In(im.blob()) {
		im.reading.Want()
	}
	return im, nil
}

func (im *Image) open(ctx context.Context, measuring func(read, size int64)) (err error) {
	found, err := Detect(ctx, im.file, im.file.Size(), im.name)
	switch {
	case im.format == Auto && err != nil:
		return err
	case im.format == Auto:
		im.format, im.judged = found, found != Raw
	case im.format != Raw && found != im.format:
		return errkind.Errorf("input-format", "input %s is not compressed with %s", im.name, im.format)
	}
	if err := im.length(ctx); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return im.explain(err)
	}
	if im.blocks != nil {
		if im.size >= 0 && im.size != im.blocks.size {
			return im.blocks.otherImage(im.name, im.size)
		}
		im.size, im.says = im.blocks.size, "its block map says"
	}
	if err := im.begins(ctx); err != nil || im.size >= 0 {
		return err
	}
	return im.measure(ctx, measuring)
}

// length finds out the length of the image where the file says it.
func (im *Image) length(ctx context.Context) (err error) {
	switch im.format {
	case Raw:
		im.size, im.says = im.file.Size(), "the file had"
	case XZ:
		im.says = "its index says"
		im.size, err = xzLength(ctx, im.file, im.file.Size())
	case Zstd:
		im.says = "its frames say"
		im.size, err = zstdLength(ctx, im.file, im.file.Size())
	}
	return err
}

// begins expands the first bytes of the image, so that what is none is refused at once.
func (im *Image) begins(ctx context.Context) error {
	s, err := im.stream(ctx, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := io.ReadFull(s, make([]byte, headSize)); err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	return nil
}

// measure expands the file once to find out how long the image is.
func (im *Image) measure(ctx context.Context, measuring func(read, size int64)) error {
	var read, said int64
	count := func(n int) {
		if read += int64(n); measuring != nil && (said == 0 || read-said >= 1<<20 || read == im.file.Size()) {
			said = read
			measuring(read, im.file.Size())
		}
	}
	count(0)
	s, err := im.stream(ctx, count)
	if err != nil {
		return err
	}
	defer s.Close()
	n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{s}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	im.size, im.says = n, "it had when it was measured"
	return nil
}

// Format is how the file is compressed, or Raw.
func (im *Image) Format() Format { return im.format }

// Size is the length of the image in bytes.
func (im *Image) Size() int64 { return im.size }

// Blobs is the image.
func (im *Image) Blobs(context.Context) ([]v1.Descriptor, error) {
	return []v1.Descriptor{im.blob()}, nil
}

func (im *Image) blob() v1.Descriptor { return raw.Describe(im.format.Expanded(im.name), im.size) }

// Open reads the image from off on. The file is expanded again from its front, unless it is not compressed: bytes
// before off are thrown away, and one reader does that at a time.
func (im *Image) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > im.size {
		return nil, fmt.Errorf("input %s: offset %d is outside its %d bytes", im.name, off, im.size)
	}
	open := im.ahead
	if im.blocks != nil {
		open = im.mapped
	}
	r, err := open(ctx, off)
	if err == nil && off == 0 {
		return im.reading.Watch(r), nil
	}
	return r, err
}

// ahead expands the image from off on, beside who reads it.
func (im *Image) ahead(ctx context.Context, off int64) (io.ReadCloser, error) {
	return ahead.New(ctx, aheadSize, aheadCount, func(ctx context.Context) (io.ReadCloser, error) {
		s, err := im.stream(ctx, nil)
		if err != nil {
			return nil, err
		}
		if err := im.skip(ctx, s, off); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}), nil
}

// skip goes forward to off, which is what a replay does and one does at a time. Who reads from the first byte on waits
// for none.
func (im *Image) skip(ctx context.Context, s *stream, off int64) error {
	if off == 0 {
		return nil
	}
	select {
	case im.skips <- struct{}{}:
		defer func() { <-im.skips }()
		return s.skipTo(off)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// WantSHA256 has SHA256 computed by what reads the image, also for one that travels in leaves. It is called before Open.
func (im *Image) WantSHA256() { im.reading.Want() }

// SHA256 returns the digest of the image as sha256sum has it, once all of it was read, or "" where nobody wanted it.
func (im *Image) SHA256() digest.Digest { return im.reading.Sum() }

// Unchanged returns an error when the file was changed since it was opened, or the image is not good. An image that was
// not read to its end is read once for this.
func (im *Image) Unchanged(ctx context.Context) error {
	if !im.reading.Done() {
		r, err := im.Open(ctx, v1.Descriptor{}, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.Copy(onlyWriter{io.Discard}, onlyReader{r}); err != nil {
			return err
		}
	}
	return im.file.Unchanged(ctx)
}

// Close ends the source and every reader of it.
func (im *Image) Close() error { return im.file.Close() }
