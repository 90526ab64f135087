package push

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
)

// beginning is how much is read of an image that has to be expanded, in bytes: its partition table, and the beginning of a
// partition that begins at 1 MiB, as the first one usually does.
const beginning = 2 << 20

// sectored is a source that is a device itself, with logical sectors of so many bytes.
type sectored interface{ Sector() int64 }

// toDevice notes in m what the nodes have to know of a source that comes to devices, and tells note what is wrong with its
// partition table. It returns what the source holds, in the words in which nodes say that of their devices.
func toDevice(ctx context.Context, s ring.Source, m *meta.Transfer, note func(error)) (holds string, err error) {
	m.Mode, m.Mtime = 0, time.Time{}
	blobs, err := s.Blobs(ctx)
	if err != nil {
		return "", err
	}
	size := blobs[0].Size
	if size < 0 {
		return "", errkind.Errorf("device-length", "the length of the input is not known before it was read, and a device has to be as long")
	}
	image, err := readable(ctx, s, blobs[0])
	if err != nil {
		return "", err
	}
	var sector int64
	if d, ok := s.(sectored); ok {
		sector = d.Sector()
	}
	if holds, err = held(image, size, sector, m.Device.AnyKind); err != nil {
		return "", err
	}
	kind, err1 := gpt.KindOf(image, size)
	needs, err2 := gpt.Inside(image, size, sector)
	m.Device.Brings(kind, needs)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	if _, cut := image.(zerosBehind); cut {
		return holds, nil
	}
	notes, err := gpt.Notes(image, size)
	for _, n := range notes {
		note(errors.New("partition table: " + n))
	}
	return holds, err
}

// smallest is the size in bytes from which on a source that holds nothing known may come to a device: whoever sends less has
// probably named the wrong file.
const smallest = 1 << 20

// held says what an image and its partitions hold, as a node says it of its device. A small one has to hold something known, unless
// any is allowed. Sector is that of the device which the image is, in bytes, and 0 of a file.
func held(image io.ReaderAt, size, sector int64, any bool) (string, error) {
	found, err := disk.Signatures(image, size)
	if err != nil {
		return "", err
	}
	if !any && slices.ContainsFunc(found, func(s disk.Signature) bool { return s.Type == disk.HalfWrittenType }) {
		return "", errkind.Errorf("input-half-written", "the input holds what a transfer has half-written: it is no whole image")
	}
	known := func(s disk.Signature) bool { return s.Type != disk.UnknownType }
	if size < smallest && !any && !slices.ContainsFunc(found, known) {
		return "", errkind.Errorf("input-no-image", "the input, of %s, is no image of a disk: it holds neither a partition table nor a known file system", bytesize.Text(size))
	}
	facts := disk.Facts{Holds: found}
	partitions, err := gpt.Partitions(image, size, sector)
	if err != nil {
		return "", err
	}
	for _, p := range partitions {
		if begins, cut := image.(zerosBehind); cut && p.Start >= int64(len(begins)) {
			facts.More = true // nobody knows what: it was not expanded
			continue
		}
		n := min(p.Size, size-p.Start)
		inside, err := disk.Signatures(io.NewSectionReader(image, p.Start, n), n)
		if err != nil {
			return "", err
		}
		facts.Holds = append(facts.Holds, inside...)
	}
	return facts.Held(), nil
}

// readable returns what reads the source at any offset, as far as that costs little.
func readable(ctx context.Context, s ring.Source, d v1.Descriptor) (io.ReaderAt, error) {
	if image, ok := s.(io.ReaderAt); ok {
		return image, nil
	}
	r, err := s.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, min(d.Size, beginning))
	_, err = io.ReadFull(r, b)
	return zerosBehind(b), err
}

// zerosBehind are bytes that are known, with zeros behind them.
type zerosBehind []byte

func (b zerosBehind) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	copy(p, b[min(off, int64(len(b))):])
	return len(p), nil
}
