package expand

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// The format of zstd files is that of RFC 8878.
const (
	zstdMagic   = "\x28\xb5\x2f\xfd"
	blockHeader = 3
)

// maxWindow is how many bytes before it what is expanded may refer to.
const maxWindow = 128 << 20

// zstdReader expands all frames.
type zstdReader struct{ *zstd.Decoder }

func (z zstdReader) Close() error {
	z.Decoder.Close()
	return nil
}

func newZstd(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, noEOF(err)
	}
	return zstdReader{d}, nil
}

// isSkippable reports whether a skippable frame begins with b.
func isSkippable(b []byte) bool {
	return len(b) > 3 && b[0]&0xf0 == 0x50 && string(b[1:4]) == zstdSkippable
}

const zstdSkippable = "\x2a\x4d\x18"

// firstFrame returns the magic number behind the skippable frames at the front.
func firstFrame(ctx context.Context, r io.ReaderAt, size int64) (magic string, err error) {
	f := frames{ctx: ctx, r: r, size: size}
	for f.off < size {
		head, err := f.peek(8)
		if err != nil {
			return "", err
		}
		if !isSkippable(head) {
			return string(head[:min(4, len(head))]), nil
		}
		if _, err := f.next(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// zstdLength returns how many bytes all frames of a file have together, or -1 where a frame does not say it. It reads
// the headers of all frames and blocks, and refuses what the decoder could not expand in bounded memory.
func zstdLength(ctx context.Context, r io.ReaderAt, size int64) (length int64, err error) {
	f := frames{ctx: ctx, r: r, size: size}
	for f.off < size {
		n, err := f.next()
		switch {
		case err != nil:
			return 0, err
		case n < 0 || length < 0:
			length = -1
		case n > math.MaxInt64-length:
			return 0, errors.New("its frames say that they have more than 8 EiB")
		default:
			length += n
		}
	}
	return length, nil
}

// frames goes through the frames of a zstd file without expanding them.
type frames struct {
	ctx       context.Context
	r         io.ReaderAt
	size, off int64

	buf []byte // what was read at bufOff
	at  int64
}

// peek returns n bytes at off, or what there is.
func (f *frames) peek(n int64) ([]byte, error) {
	if n = min(n, f.size-f.off); n <= 0 {
		return nil, nil
	}
	if from := f.off - f.at; from >= 0 && from+n <= int64(len(f.buf)) {
		return f.buf[from : from+n], nil
	}
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	// Most blocks are longer than this, so that little is read.
	b, err := readAt(f.r, f.off, min(4<<10, f.size-f.off))
	if err != nil {
		return nil, err
	}
	f.buf, f.at = b, f.off
	return b[:n], nil
}

// skip goes n bytes forward.
func (f *frames) skip(n int64) error {
	if n > f.size-f.off {
		return io.ErrUnexpectedEOF
	}
	f.off += n
	return nil
}

// next goes behind the next frame, and returns how many bytes it has when it is expanded, or -1.
func (f *frames) next() (int64, error) {
	head, err := f.peek(zstd.HeaderMaxSize)
	if err != nil {
		return 0, err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		if errors.Is(err, zstd.ErrMagicMismatch) || f.off > 0 && !isSkippable(head) && !bytes.HasPrefix(head, []byte(zstdMagic)) {
			err = errRubbish
		}
		return 0, err
	}
	if err := f.skip(int64(h.HeaderSize)); err != nil {
		return 0, err
	}
	if h.Skippable {
		return 0, f.skip(int64(h.SkippableSize))
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if window > maxWindow {
		return 0, tooWide(window)
	}
	if h.DictionaryID != 0 {
		return 0, errkind.Errorf("input-dictionary", "it was compressed with a dictionary")
	}
	if err := f.blocks(); err != nil {
		return 0, err
	}
	if h.HasCheckSum {
		if err := f.skip(4); err != nil {
			return 0, err
		}
	}
	if !h.HasFCS {
		return -1, nil
	}
	if h.FrameContentSize > math.MaxInt64 {
		return 0, errors.New("a frame says that it has more than 8 EiB")
	}
	return int64(h.FrameContentSize), nil
}

// blocks goes behind the last block of a frame.
func (f *frames) blocks() error {
	for {
		b, err := f.peek(blockHeader)
		if err != nil {
			return err
		}
		if len(b) < blockHeader {
			return io.ErrUnexpectedEOF
		}
		header := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		n := int64(header >> 3)
		switch header >> 1 & 3 {
		case 1: // one byte that is repeated
			n = 1
		case 3:
			return errors.New("a block has a type that does not exist")
		}
		if err := f.skip(blockHeader + n); err != nil {
			return err
		}
		if header&1 != 0 {
			return nil
		}
	}
}

// tooWide is the error for an image whose window is larger than maxWindow.
func tooWide(window uint64) error {
	return errkind.Errorf("input-window", "to expand it takes a window of %d MiB, and at most %d MiB are used", window>>20, maxWindow>>20)
}
