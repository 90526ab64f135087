package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
)

// filled is standard input that must not be empty. If a command in front of the pipe fails, it often writes nothing, and
// an empty file must not replace the file on every node.
type filled struct{ *raw.Spool }

// Unchanged returns an error if the stream was empty. The ring asks at the end of the stream, before any node commits.
func (s filled) Unchanged(context.Context) error {
	if s.Size() > 0 {
		return nil
	}
	return errkind.Errorf("input-empty", "standard input is empty")
}

// File is a file, a device or a stream that is sent as it is, or the image in a file that is stored in fewer bytes.
type File struct {
	// Path is the path of the file or of a block device, or "-" for Stream.
	Path   string
	Stream io.Reader
	// Format is how the file is stored. With Raw, or "", it is sent as it is.
	Format expand.Format
	// Map is the path of a block map of the image, or "".
	Map string
	// Parts says that the file is split in PATH_0, PATH_1 and so on, which are sent as one.
	Parts bool
	// Each has the nodes write a file in parts of so many bytes. 0 is one file.
	Each int64
	// Compress has the nodes get the bytes in gzip.
	Compress bool
	// Measuring is called while the file is expanded once to find out how long it is.
	Measuring func(read, size int64)
	// NoSpool keeps no copy of the stream in a temporary file.
	NoSpool bool
	// SHA256 has the SHA-256 computed of what travels in leaves, too.
	SHA256 bool
	// AllowEmpty sends the stream even if it is empty.
	AllowEmpty bool
	// Note is called with what the user should know though it is no error.
	Note func(note error)
}

// Open opens the file. It notes in m what only the file knows: its time, and its permission bits unless the user set
// others; and in p what the file holds, if it comes to devices.
func (in File) Open(ctx context.Context, p *Push, m *meta.Transfer) (ring.Source, error) {
	s, err := in.open(ctx, p, m)
	if err == nil && in.Each > 0 {
		s, err = split(ctx, s, in.Path, in.Each)
		m.Split = true
	}
	if err != nil || m.Device == nil {
		return s, err
	}
	if p.holds, err = toDevice(ctx, s, m, in.Note); err != nil {
		if c, ok := s.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	return s, nil
}

func (in File) open(ctx context.Context, p *Push, m *meta.Transfer) (ring.Source, error) {
	if in.Compress {
		in.Compress = false
		from, err := in.open(ctx, p, m)
		if err != nil {
			return nil, err
		}
		return alter(ctx, from, compress)
	}
	if in.Parts {
		return in.parts(ctx, m)
	}
	if asIs := in.Path == "-" || raw.IsDevice(in.Path); asIs && in.Format != "" && in.Format != expand.Raw && in.Format != expand.Auto {
		return nil, fmt.Errorf("input %s: only a file is expanded, and this would be sent compressed with %s as it is", in.Path, in.Format)
	}
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
	if raw.IsDevice(in.Path) {
		return in.device(m)
	}
	f, err := raw.OpenFile(in.Path)
	if err != nil {
		return nil, err
	}
	m.KeepMode(f.Mode())
	if in.Format != "" && in.Format != expand.Raw || in.Map != "" {
		if source, err := in.expand(ctx, f, p.Update, m); source != nil || err != nil {
			return source, err
		}
	}
	if in.SHA256 {
		f.WantSHA256()
	}
	if !f.Unsized() {
		m.Mtime = f.ModTime()
		return &growing{f, in}, nil
	}
	in.Note(fmt.Errorf("%s is not as long as its size of %s says: it is read to its end as a stream", in.Path, bytesize.Text(f.Size())))
	s, err := f.Stream(os.TempDir())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// parts opens a file that is split.
func (in File) parts(ctx context.Context, m *meta.Transfer) (ring.Source, error) {
	p, err := raw.OpenParts(in.Path)
	if err != nil {
		return nil, err
	}
	m.KeepMode(p.Mode())
	m.Mtime = p.ModTime()
	if in.Format == expand.Gzip {
		return alter(ctx, p, uncompress)
	}
	return p, nil
}

// deviceMode is that of a file with the bytes of a device, unless the user sets another: whoever may read the file could
// read all files in it.
const deviceMode = 0o600

// device opens a block device.
func (in File) device(m *meta.Transfer) (ring.Source, error) {
	if in.Format != "" && in.Format != expand.Raw && in.Format != expand.Auto || in.Map != "" {
		return nil, errkind.Errorf("input-device-raw", "input %s is a device, which is sent as it is", in.Path)
	}
	d, err := raw.OpenDevice(in.Path)
	if err != nil {
		return nil, err
	}
	m.KeepMode(deviceMode)
	if in.SHA256 {
		d.WantSHA256()
	}
	return device{d}, nil
}

// device is a block device as a source.
type device struct{ *raw.Device }

// sha256 returns the device's digest as sha256sum has it, if it was computed.
func (d device) sha256(context.Context) digest.Digest { return d.SHA256() }

// growing is a file that may become longer while it is sent.
type growing struct {
	*raw.File
	in File
}

// sha256 returns the file's digest as sha256sum has it.
func (g *growing) sha256(ctx context.Context) digest.Digest {
	return g.SHA256(ctx, func() {
		g.in.Note(fmt.Errorf("the nodes have %s; its SHA-256, as sha256sum has it, is still computed: leave the file as it is until then (^C leaves the sum out)", g.in.Path))
	})
}

// Unchanged returns an error if the file was changed while it was read. If it only became longer, that is no error, and a
// note says which bytes the nodes do not get.
func (g *growing) Unchanged(ctx context.Context) error {
	err := g.File.Unchanged(ctx)
	if err == nil && g.Grown() > 0 {
		g.in.Note(fmt.Errorf("%s became longer while it was read: the nodes get the %s that it had when it was opened, without the %s behind them",
			g.in.Path, bytesize.Text(g.Size()), bytesize.Text(g.Grown())))
	}
	return err
}
