package tree

import "encoding/binary"

// header is a block of 512 bytes, as POSIX has it for ustar.
type header struct {
	name, link     string
	kind           byte
	mode, uid, gid uint32
	size, mtime    int64
	major, minor   uint32
}

func appendHeader(b []byte, h *header) []byte {
	at := len(b)
	b = append(b, zeroPage[:block]...)
	to := b[at:]
	octal := func(off, digits int, n int64) {
		for i := off + digits - 1; i >= off; i-- {
			to[i] = '0' + byte(n&7)
			n >>= 3
		}
	}
	copy(to[0:100], h.name)
	octal(100, 7, int64(h.mode))
	octal(108, 7, int64(h.uid))
	octal(116, 7, int64(h.gid))
	octal(124, 11, h.size)
	octal(136, 11, h.mtime)
	copy(to[148:156], "        ")
	to[156] = h.kind
	copy(to[157:257], h.link)
	copy(to[257:], "ustar\x0000")
	octal(329, 7, int64(h.major))
	octal(337, 7, int64(h.minor))
	octal(148, 6, sumOf(to))
	to[154] = 0
	return b
}

// sumOf adds up the bytes of a block, eight at a time.
func sumOf(b []byte) int64 {
	const even = 0x00ff00ff00ff00ff
	lanes := uint64(0) // four sums of 16 bits, of 128 bytes each
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		lanes += w&even + w>>8&even
	}
	return int64(lanes&0xffff + lanes>>16&0xffff + lanes>>32&0xffff + lanes>>48)
}

// number reads octal digits of a header.
func number(b []byte) int64 {
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '7' {
			return -1
		}
		n = n<<3 | int64(c-'0')
	}
	return n
}
