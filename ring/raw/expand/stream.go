package expand

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Buffers of a reader: what is read of the file at once, and what is expanded before it is asked for.
const (
	inputBuffer = 256 << 10
	aheadSize   = 1 << 20
	aheadCount  = 3
)

// wrong is an error about the bytes of an image: those that came before need not be right either.
type wrong struct{ error }

func (wrong) Wrong() bool     { return true }
func (w wrong) Unwrap() error { return w.error }

// input is the file below what expands it. It ends with ctx, and tells an error of the file from one of what is in it.
type input struct {
	ctx    context.Context
	r      io.Reader
	failed atomic.Pointer[error]
	count  func(n int) // of bytes that were read; may be nil
}

func (in *input) Read(b []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		in.failed.Store(&err)
		return 0, err
	}
	n, err := in.r.Read(b)
	if err != nil && err != io.EOF {
		in.failed.Store(&err)
	}
	if in.count != nil {
		in.count(n)
	}
	return n, err
}

// decoders begin to expand, one for each format.
var decoders = map[Format]func(r *bufio.Reader) (io.ReadCloser, error){
	Gzip: newMembers,
	Zstd: newZstd,
	XZ:   newXZ,
	Bzip2: func(r *bufio.Reader) (io.ReadCloser, error) {
		return io.NopCloser(bzip2.NewReader(r)), nil
	},
}

// stream is an image from its first byte on. It is checked at its end: io.EOF is said of a good one only.
type stream struct {
	im *Image
	in *input
	// file is set where nothing is expanded.
	file io.Seeker
	dec  io.ReadCloser
	off  int64
	// The first bytes and the last ones show what an image is. Both are looked at where nobody has said it.
	head []byte
	tail []byte
	err  error
}

// stream begins to expand the file. count may be nil.
func (im *Image) stream(ctx context.Context, count func(n int)) (*stream, error) {
	file := io.NewSectionReader(im.file, 0, im.file.Size())
	s := &stream{im: im, in: &input{ctx: ctx, r: file, count: count}}
	if im.format == Raw {
		s.file, s.dec = file, io.NopCloser(s.in)
		return s, nil
	}
	dec, err := decoders[im.format](bufio.NewReaderSize(s.in, inputBuffer))
	if err != nil {
		return nil, s.explain(err)
	}
	s.dec = dec
	return s, nil
}

func (s *stream) Close() error { return s.dec.Close() }

// skipTo goes forward to off. What is skipped of a raw file is not read.
func (s *stream) skipTo(off int64) error {
	if s.file != nil {
		_, err := s.file.Seek(off, io.SeekStart)
		s.off = off
		return err
	}
	return skip(s, off-s.off)
}

func (s *stream) Read(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.dec.Read(b)
	if s.im.judged {
		if s.err = s.look(b[:n]); s.err != nil {
			return 0, s.err
		}
	}
	s.off += int64(n)
	switch {
	case err == io.EOF:
		err = s.end()
	case err != nil:
		err = s.explain(err)
	case s.im.size >= 0 && s.off > s.im.size:
		err = s.length()
	}
	s.err = err
	return n, err
}

// look looks at what was expanded, and returns an error when it is no raw image.
func (s *stream) look(b []byte) error {
	if room := headSize - len(s.head); room > 0 && len(b) > 0 {
		s.head = append(s.head, b[:min(room, len(b))]...)
		if len(s.head) == headSize {
			if err := s.im.inside(s.head); err != nil {
				return err
			}
		}
	}
	if len(b) >= tailSize {
		s.tail = append(s.tail[:0], b[len(b)-tailSize:]...)
		return nil
	}
	s.tail = append(s.tail, b...)
	s.tail = s.tail[max(0, len(s.tail)-tailSize):]
	return nil
}

// end returns io.EOF for an image that is good.
func (s *stream) end() error {
	if s.im.size >= 0 && s.off != s.im.size {
		return s.length()
	}
	if !s.im.judged {
		return io.EOF
	}
	if len(s.head) < headSize {
		if err := s.im.inside(s.head); err != nil {
			return err
		}
	}
	p, _ := s.im.format.packed()
	if f := foreignOf(nil, s.tail); f != nil {
		return wrong{f.refuseIn(p, s.im.name)}
	}
	return io.EOF
}

// length is the error for an image that is not as long as was known before.
func (s *stream) length() error {
	if s.off > s.im.size {
		return wrong{errkind.Errorf("input-damaged", "input %s has more than the %d bytes that %s", s.im.name, s.im.size, s.im.says)}
	}
	return wrong{errkind.Errorf("input-damaged", "input %s has %d bytes, and %d is what %s", s.im.name, s.off, s.im.size, s.im.says)}
}

// explain says of an error of the decoder what is wrong with the input.
func (s *stream) explain(err error) error {
	if failed := s.in.failed.Load(); failed != nil {
		if errors.Is(*failed, s.in.ctx.Err()) && s.in.ctx.Err() != nil {
			return context.Cause(s.in.ctx)
		}
		return errkind.Errorf("input-unreadable", "input %s: %w", s.im.name, *failed)
	}
	return s.im.explain(err)
}

// explain says what is wrong with the compressed bytes.
func (im *Image) explain(err error) error {
	var kinded interface{ Wrong() bool }
	switch {
	case errors.As(err, &kinded) || errkind.Has(err):
		return fmt.Errorf("input %s: %w", im.name, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errkind.Errorf("input-cut", "input %s is cut off: its %s data do not end", im.name, im.format)
	default:
		err = errkind.Errorf("input-damaged", "input %s is damaged: %s: %w", im.name, im.format, err)
	}
	return wrong{err}
}

// inside returns an error when the image that begins with head is no raw one.
func (im *Image) inside(head []byte) error {
	p, packed := im.format.packed()
	if !packed {
		return nil
	}
	if err := inside(head, p, im.name); err != nil {
		return wrong{err}
	}
	return nil
}

// skip reads n bytes of r and throws them away.
func skip(r io.Reader, n int64) error {
	k, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{io.LimitReader(r, n)}, make([]byte, 128<<10))
	if err == nil && k < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyReader and onlyWriter keep io.CopyBuffer to the buffer that it is given.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
