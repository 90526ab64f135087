package push

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
)

// beginning is how much is read of an image that has to be expanded, in bytes: its partition table, and the beginning of a
// partition that begins at 1 MiB, as the first one usually does.
const beginning = 2 << 20

// sectored is a source that is a device itself, with logical sectors of so many bytes.
type sectored interface{ Sector() int64 }

// toDevice notes in m what the nodes have to know of a source that comes to devices.
func toDevice(ctx context.Context, s ring.Source, m *meta.Transfer) error {
	m.Mode, m.Mtime = 0, time.Time{}
	blobs, err := s.Blobs(ctx)
	if err != nil {
		return err
	}
	size := blobs[0].Size
	if size < 0 {
		return errkind.Errorf("device-length", "the length of the input is not known before it was read, and a device has to be as long")
	}
	image, ok := s.(io.ReaderAt)
	if !ok {
		r, err := s.Open(ctx, blobs[0], 0)
		if err != nil {
			return err
		}
		defer r.Close()
		b := make([]byte, min(size, beginning))
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		image = zerosBehind(b)
	}
	var sector int64
	if d, ok := s.(sectored); ok {
		sector = d.Sector()
	}
	kind, err1 := gpt.KindOf(image, size)
	needs, err2 := gpt.Inside(image, size, sector)
	m.Device.Brings(kind, needs)
	return errors.Join(err1, err2)
}

// zerosBehind are bytes that are known, with zeros behind them.
type zerosBehind []byte

func (b zerosBehind) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	copy(p, b[min(off, int64(len(b))):])
	return len(p), nil
}
