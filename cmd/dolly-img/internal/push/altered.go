package push

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// altered is a source whose bytes are changed on the way, such as compressed. The result is a stream, which is kept in a
// temporary file.
type altered struct {
	*raw.Spool
	from  ring.Source
	bytes io.Closer
}

// alter makes a source of what through writes of the bytes of from. It closes from if there is an error, else Close of the
// source does.
func alter(ctx context.Context, from ring.Source, through func(w io.Writer, r io.Reader) error) (ring.Source, error) {
	s := &altered{from: from}
	blobs, err := from.Blobs(ctx)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	r, err := from.Open(ctx, blobs[0], 0)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	pr, pw := io.Pipe()
	if s.Spool, err = raw.Stream(pr, os.TempDir()); err != nil {
		return nil, errors.Join(err, r.Close(), s.Close())
	}
	s.bytes = pr
	go func() {
		err := through(pw, r)
		pw.CloseWithError(errors.Join(err, r.Close())) // nil is the end
	}()
	return s, nil
}

// Unchanged is that of what the bytes come from.
func (s *altered) Unchanged(ctx context.Context) error {
	if u, ok := s.from.(ring.Unchanged); ok {
		return u.Unchanged(ctx)
	}
	return nil
}

// Close ends the stream, and closes what it comes from.
func (s *altered) Close() error {
	var errs []error
	if s.bytes != nil {
		errs = append(errs, s.bytes.Close())
	}
	if s.Spool != nil {
		errs = append(errs, s.Spool.Close())
	}
	if c, ok := s.from.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// compress writes r in gzip.
func compress(w io.Writer, r io.Reader) error {
	z := gzip.NewWriter(w)
	if _, err := io.Copy(z, r); err != nil {
		return err
	}
	return z.Close()
}

// uncompress writes what is in r, which is in gzip.
func uncompress(w io.Writer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err == nil {
		_, err = io.Copy(w, z)
	}
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return errkind.Errorf("input-damaged", "input: gzip: %w", err)
	}
	return err
}

// Dummy is random bytes, which measure a ring without disks.
type Dummy struct {
	Bytes int64         // 0 is no limit
	Time  time.Duration // the same
}

// Open makes the source.
func (d Dummy) Open(context.Context, *Push, *meta.Transfer) (ring.Source, error) {
	r := &dummy{left: d.Bytes, endless: d.Bytes == 0, time: d.Time}
	rand.Read(r.block[:])
	return raw.Stream(r, "")
}

// dummy returns one block of random bytes again and again: nothing on the way can make it shorter, and it costs the
// server no more than a copy.
type dummy struct {
	block   [1 << 20]byte
	left    int64
	endless bool
	time    time.Duration // 0 is no limit
	end     time.Time     // once it began
	at      int
}

func (d *dummy) Read(b []byte) (int, error) {
	if d.time > 0 {
		if d.end.IsZero() {
			d.end = time.Now().Add(d.time)
		}
		if !time.Now().Before(d.end) {
			return 0, io.EOF
		}
	}
	if !d.endless {
		if d.left == 0 {
			return 0, io.EOF
		}
		b = b[:min(int64(len(b)), d.left)]
	}
	n := copy(b, d.block[d.at:])
	d.at = (d.at + n) % len(d.block)
	d.left -= int64(n)
	return n, nil
}
