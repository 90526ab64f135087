package device

import "io"

// ReaderAt reads a Device at any offset, and into any memory.
func ReaderAt(d Device) io.ReaderAt { return readerAt{d} }

type readerAt struct{ d Device }

func (r readerAt) ReadAt(p []byte, off int64) (n int, err error) {
	sector, size := r.d.Sector(), r.d.Size()
	buf := aligned(int(min(chunkSize, up(int64(len(p)), sector)+sector)))
	for n < len(p) {
		at := off + int64(n)
		if at < 0 || at >= size {
			return n, io.EOF
		}
		from := down(at, sector)
		b := buf[:min(up(at+int64(len(p)-n), sector)-from, int64(len(buf)), size-from)]
		if _, err := r.d.ReadAt(b, from); err != nil {
			return n, err
		}
		n += copy(p[n:], b[at-from:])
	}
	return n, nil
}
