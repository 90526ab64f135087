package device

import (
	"io"
	"unsafe"
)

// Device is an opened block device. Offsets and lengths are multiples of Sector, and memory begins at a multiple of 4 KiB.
// Several goroutines may use it at once.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes n bytes from off on read as zeros.
	Zero(off, n int64) error
	// Flush returns when all writes that had returned before are on the medium.
	Flush() error
	// Size is the length of the device in bytes.
	Size() int64
	// Sector is the size of a logical sector in bytes, which is a power of two of at most 4 KiB.
	Sector() int64
	// Close gives the device back.
	Close() error
	// String names the device as the user knows it.
	String() string
}

// page is what memory for direct transfers is aligned to, and the unit in which the beginning of a device is written.
const page = 4096

// aligned returns n zero bytes that begin at a multiple of page.
func aligned(n int) []byte {
	b := make([]byte, n+page-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (page - 1) // memory of this size never moves
	return b[skip : skip+n : skip+n]
}

// isAligned reports whether b begins at a multiple of page.
func isAligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(page-1) == 0
}

// down and up round off to a multiple of unit, a power of two.
func down(off, unit int64) int64 { return off &^ (unit - 1) }
func up(off, unit int64) int64   { return down(off+unit-1, unit) }
