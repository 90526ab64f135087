package push

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// filled is standard input that has to bring something: nothing is what a command
// before the pipe leaves that failed, and it must not replace a file everywhere.
type filled struct{ *raw.Spool }

// Unchanged is asked at the end of the stream, before any node commits.
func (s filled) Unchanged(context.Context) error {
	if s.Size() > 0 {
		return nil
	}
	return errkind.Errorf("input-empty", "standard input is empty")
}

// File is a file or a stream as it is.
type File struct {
	Path       string // - for the stream
	Stream     io.Reader
	NoSpool    bool                             // do not keep the stream in a temporary file
	AllowEmpty bool                             // send the stream even if nothing comes on it
	Note       func(format string, args ...any) // says what should be known
}

// Open opens the file, and notes in m what only it knows: its time, and its
// permission bits unless the user set them.
func (in File) Open(_ context.Context, _ *Push, m *meta.Transfer) (ring.Source, error) {
	if in.Path == "-" {
		dir := os.TempDir()
		if in.NoSpool {
			dir = ""
		}
		s, err := raw.Stream(in.Stream, dir)
		if err != nil {
			return nil, err
		}
		if in.AllowEmpty {
			return s, nil
		}
		return filled{s}, nil
	}
	f, err := raw.OpenFile(in.Path)
	if err != nil {
		return nil, err
	}
	m.KeepMode(f.Mode())
	if !f.Unsized() {
		m.Mtime = f.ModTime()
		return &growing{f, in}, nil
	}
	in.Note("%s is not as long as its size of %s says: it is read to its end as a stream", in.Path, bytesize.Text(f.Size()))
	s, err := f.Stream(os.TempDir())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// growing is a file that may become longer while it is sent.
type growing struct {
	*raw.File
	in File
}

// Unchanged is that of the file. It says what the nodes do not have.
func (g *growing) Unchanged(ctx context.Context) error {
	err := g.File.Unchanged(ctx)
	if err == nil && g.Grown() > 0 {
		g.in.Note("%s became longer while it was read: the nodes get the %s that it had when it was opened, without the %s behind them",
			g.in.Path, bytesize.Text(g.Size()), bytesize.Text(g.Grown()))
	}
	return err
}
