package expand

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// The .xz file format 1.2.1 is at https://tukaani.org/xz/xz-file-format.txt; the names of fields here are its own.
const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
	xzHeaderSize  = 12 // of a stream, and of its footer
	lzma2         = 0x21

	// maxBlocks bounds what the decoder keeps of one stream: 16 bytes for each of its blocks. With blocks of 1 MiB
	// these are 4 TiB.
	maxBlocks = 4 << 20
)

// xzChecks are the integrity checks that the decoder computes: none, CRC32, CRC64, SHA-256.
var xzChecks = []byte{0, 1, 4, 10}

// newXZ expands all streams of an xz file.
func newXZ(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := xz.ReaderConfig{DictCap: lzma.MinDictCap}.NewReader(r) // what a block says counts where it is more
	if err != nil {
		return nil, noEOF(err)
	}
	return io.NopCloser(z), nil
}

var (
	errIndex = errors.New("its index is damaged")
	errCheck = errors.New("a checksum of its index is wrong")
)

// xzLength returns how many bytes an xz file has when it is expanded, from the indexes of its streams. It refuses
// what the decoder could not expand in bounded memory, or not at all, from the headers of all blocks.
func xzLength(ctx context.Context, r io.ReaderAt, size int64) (length int64, err error) {
	x := &xzFile{ctx: ctx, r: r}
	end, first := size, true
	for end > 0 || first {
		padded := end
		if end, err = x.padding(end); err != nil {
			return 0, err
		}
		if (padded-end)%4 != 0 {
			return 0, errRubbish
		}
		start, n, err := x.stream(end)
		if err != nil {
			return 0, err
		}
		if n > math.MaxInt64-length {
			return 0, errIndex
		}
		length += n
		end, first = start, false
	}
	return length, nil
}

type xzFile struct {
	ctx context.Context
	r   io.ReaderAt
}

// padding returns where the zeros that end at end begin.
func (x *xzFile) padding(end int64) (int64, error) {
	for end > 0 {
		if err := x.ctx.Err(); err != nil {
			return 0, err
		}
		from := max(0, end-64<<10)
		b, err := readAt(x.r, from, end-from)
		if err != nil {
			return 0, err
		}
		if kept := len(bytes.TrimRight(b, "\x00")); kept > 0 {
			// The footer ends with letters, so that no zero of it is taken for padding.
			return from + int64(kept), nil
		}
		end = from
	}
	return 0, io.ErrUnexpectedEOF
}

// stream reads the footer of the stream that ends at end, its index, and the headers of its blocks. It returns where the
// stream begins, and how many bytes it has when it is expanded.
func (x *xzFile) stream(end int64) (start, length int64, err error) {
	if end < 2*xzHeaderSize {
		return 0, 0, io.ErrUnexpectedEOF
	}
	footer, err := readAt(x.r, end-xzHeaderSize, xzHeaderSize)
	if err != nil {
		return 0, 0, err
	}
	if string(footer[10:]) != xzFooterMagic {
		return 0, 0, errors.New("it is cut off, or there is something else behind its end")
	}
	if crc32.ChecksumIEEE(footer[4:10]) != binary.LittleEndian.Uint32(footer) {
		return 0, 0, errCheck
	}
	indexSize := (int64(binary.LittleEndian.Uint32(footer[4:])) + 1) * 4 // Backward Size
	indexAt := end - xzHeaderSize - indexSize
	if indexAt < xzHeaderSize {
		return 0, 0, errIndex
	}
	var packed int64
	err = x.index(indexAt, indexSize, func(unpadded, expanded int64) error {
		if unpadded > indexAt { // or the sum may not be a number any more
			return errIndex
		}
		if packed += (unpadded + 3) &^ 3; packed > indexAt-xzHeaderSize {
			return errIndex
		}
		if expanded > math.MaxInt64-length {
			return errIndex
		}
		length += expanded
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	at := indexAt - packed
	start = at - xzHeaderSize
	header, err := readAt(x.r, start, xzHeaderSize)
	if err != nil {
		return 0, 0, err
	}
	if err := checkStreamHeader(header, footer[8:10]); err != nil {
		return 0, 0, err
	}
	return start, length, x.index(indexAt, indexSize, func(unpadded, _ int64) error {
		err := x.block(at)
		at += (unpadded + 3) &^ 3
		return err
	})
}

// checkStreamHeader checks the header of a stream, whose flags have to be those of its footer.
func checkStreamHeader(header, flags []byte) error {
	switch {
	case string(header[:6]) != xzMagic:
		return errIndex
	case crc32.ChecksumIEEE(header[6:8]) != binary.LittleEndian.Uint32(header[8:]):
		return errCheck
	case !bytes.Equal(header[6:8], flags):
		return errIndex
	case flags[0] != 0 || !slices.Contains(xzChecks, flags[1]):
		return errkind.Errorf("input-filter", "it has a kind of checksum that is not known here")
	}
	return nil
}

// index goes through the records of the index at off, which is size bytes long, and checks it.
func (x *xzFile) index(off, size int64, record func(unpadded, expanded int64) error) error {
	in := &indexReader{r: bufio.NewReaderSize(io.NewSectionReader(x.r, off, size-4), 32<<10), sum: crc32.NewIEEE(), left: size - 4}
	if b := in.byte(); b != 0 && in.err == nil { // Index Indicator
		return errIndex
	}
	n := in.number()
	if n > in.left/2 {
		return errIndex
	}
	if n > maxBlocks {
		return errkind.Errorf("input-filter", "it has %d blocks, and at most %d are read", n, maxBlocks)
	}
	for k := range n {
		if k%1024 == 0 && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		unpadded, expanded := in.number(), in.number()
		if in.err != nil {
			break
		}
		if unpadded < 5 || unpadded > math.MaxInt64-3 {
			return errIndex
		}
		if err := record(unpadded, expanded); err != nil {
			return err
		}
	}
	for in.left > 0 && in.err == nil {
		if in.left > 3 || in.byte() != 0 { // Index Padding
			return errIndex
		}
	}
	if in.err != nil {
		return in.err
	}
	sum, err := readAt(x.r, off+size-4, 4)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(sum) != in.sum.Sum32() {
		return errCheck
	}
	return nil
}

// indexReader reads an index, and computes its checksum. The first error stays.
type indexReader struct {
	r    *bufio.Reader
	sum  hash.Hash32
	left int64
	err  error
}

func (in *indexReader) byte() byte {
	if in.err != nil {
		return 0
	}
	b, err := in.r.ReadByte()
	if err == io.EOF {
		err = errIndex
	}
	if in.err = err; err != nil {
		return 0
	}
	in.left--
	in.sum.Write([]byte{b})
	return b
}

// number reads a multibyte integer, which has at most 63 bits and no needless zeros at its end.
func (in *indexReader) number() int64 {
	var n int64
	for shift := 0; shift < 63; shift += 7 {
		b := in.byte()
		n |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 && in.err == nil {
				break
			}
			return n
		}
	}
	if in.err == nil {
		in.err = errIndex
	}
	return 0
}

// block checks the header of the block at off.
func (x *xzFile) block(off int64) error {
	first, err := readAt(x.r, off, 1)
	if err != nil {
		return err
	}
	size := (int64(first[0]) + 1) * 4
	header, err := readAt(x.r, off, size)
	if err != nil {
		return err
	}
	body, sum := header[:size-4], header[size-4:]
	if first[0] == 0 || crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("the header of a block is damaged")
	}
	flags := body[1]
	in := &indexReader{r: bufio.NewReader(bytes.NewReader(body[2:])), sum: crc32.NewIEEE(), left: size}
	for _, present := range []byte{0x40, 0x80} { // Compressed Size, Uncompressed Size
		if flags&present != 0 {
			in.number()
		}
	}
	id, props, window := in.number(), in.number(), in.byte()
	switch {
	case in.err != nil:
		return errors.New("the header of a block is damaged")
	case flags&0x3f != 0 || id != lzma2 || props != 1: // one filter, and no reserved bit
		return errkind.Errorf("input-filter", "it was compressed with a filter for programs, and only LZMA2 is read")
	case window > 40:
		return errors.New("the header of a block is damaged")
	}
	if dictionary := dictionarySize(window); dictionary > maxWindow {
		return tooWide(dictionary)
	}
	return nil
}

// dictionarySize returns what the properties of LZMA2 say in bytes.
func dictionarySize(bits byte) uint64 {
	if bits == 40 {
		return 1<<32 - 1
	}
	return uint64(2|bits&1) << (bits/2 + 11)
}
