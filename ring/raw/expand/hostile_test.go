package expand

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// neverWrong opens and reads what is in b, and reports an error of either. Without one it has to be want.
func neverWrong(t *testing.T, what string, f Format, b, want []byte) error {
	t.Helper()
	im, err := opened(t, b, Options{Format: f})
	if err != nil {
		return err
	}
	got, err := all(t.Context(), im)
	if err == nil && !bytes.Equal(got, want) {
		t.Errorf("%s: %d wrong bytes without an error", what, len(got))
	}
	if err != nil && !damaged(err) {
		t.Errorf("%s: what came before would be kept: %v", what, err)
	}
	return err
}

// xzRecord is a record of an index: the size of a block without its padding, and how many bytes it has when it is expanded.
type xzRecord struct{ unpadded, expanded uint64 }

// reindexed replaces the index of an xz file of one stream by another one, with sums that are right.
func reindexed(b []byte, edit func(r []xzRecord) []xzRecord) []byte {
	le := binary.LittleEndian
	footer := b[len(b)-xzHeaderSize:]
	at := len(b) - xzHeaderSize - int(le.Uint32(footer[4:])+1)*4
	in := b[at+1:]
	number := func() uint64 {
		n, k := binary.Uvarint(in)
		in = in[k:]
		return n
	}
	var records []xzRecord
	for range number() {
		records = append(records, xzRecord{number(), number()})
	}
	records = edit(records)
	index := binary.AppendUvarint([]byte{0}, uint64(len(records)))
	for _, r := range records {
		index = binary.AppendUvarint(binary.AppendUvarint(index, r.unpadded), r.expanded)
	}
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = le.AppendUint32(index, crc32.ChecksumIEEE(index))
	footer = bytes.Clone(footer)
	le.PutUint32(footer[4:], uint32(len(index)/4-1))
	le.PutUint32(footer, crc32.ChecksumIEEE(footer[4:10]))
	return slices.Concat(b[:at], index, footer)
}

// An index of xz whose sums are right, and that lies, makes no wrong bytes.
func TestXZIndexLies(t *testing.T) {
	want := disk(128<<10 + 100)
	var packed bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 64 << 10, BlockSize: 64 << 10}.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	good := packed.Bytes()
	if err := neverWrong(t, "as it is", XZ, reindexed(good, func(r []xzRecord) []xzRecord {
		if len(r) != 3 {
			t.Fatalf("%d blocks", len(r))
		}
		return r
	}), want); err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string]func(r []xzRecord) []xzRecord{
		"one byte more":      func(r []xzRecord) []xzRecord { r[1].expanded++; return r },
		"one byte less":      func(r []xzRecord) []xzRecord { r[2].expanded--; return r },
		"nothing":            func(r []xzRecord) []xzRecord { r[0].expanded = 0; return r },
		"as much in another": func(r []xzRecord) []xzRecord { r[0].expanded++; r[1].expanded--; return r },
		"4 EiB":              func(r []xzRecord) []xzRecord { r[0].expanded = 1 << 62; return r },
		"12 EiB": func(r []xzRecord) []xzRecord {
			r[0].expanded, r[1].expanded, r[2].expanded = 1<<62, 1<<62, 1<<62
			return r
		},
		"a block less":          func(r []xzRecord) []xzRecord { return r[:2] },
		"a block more":          func(r []xzRecord) []xzRecord { return append(r, r[2]) },
		"no block":              func([]xzRecord) []xzRecord { return nil },
		"blocks of other sizes": func(r []xzRecord) []xzRecord { r[0].unpadded += 4; r[1].unpadded -= 4; return r },
		"a block of 8 EiB":      func(r []xzRecord) []xzRecord { r[1].unpadded = 1<<63 - 4; return r },
		"blocks whose sum is right but for 16 EiB": func(r []xzRecord) []xzRecord {
			rest := (r[1].unpadded+3)&^3 + (r[2].unpadded+3)&^3
			return []xzRecord{r[0], {1<<63 - 4, 1}, {1<<63 - 4, 1}, {rest + 8, 1}}
		},
	} {
		if err := neverWrong(t, what, XZ, reindexed(good, edit), want); err == nil && what != "as much in another" {
			t.Errorf("%s: no error", what)
		} else if err != nil && strings.Contains(err.Error(), "offset") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// zstdFrame is a frame that says that it has so many bytes, with one block in which n are.
func zstdFrame(says uint64, content []byte) []byte {
	b := append([]byte(zstdMagic), 0xc0, 0x70) // eight bytes of size, and a window of 16 MiB
	b = binary.LittleEndian.AppendUint64(b, says)
	block := uint32(len(content))<<3 | 1
	return append(append(b, byte(block), byte(block>>8), byte(block>>16)), content...)
}

// skippable is a frame that is to be skipped and says that it has so many bytes.
func skippable(says uint32, content string) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte("\x5a"+zstdSkippable), says), content...)
}

// Frames of zstd with and without sizes, with others between them that are skipped, are one image, and sizes that lie make no
// wrong bytes.
func TestZstdFrames(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := disk(100<<10), disk(50 << 10)[20<<10:]
	sized := w.EncodeAll(a, nil)     // says how long it is
	unsized := pack(t, Zstd, b)      // does not
	skip := skippable(5, "skip\x28") // which looks like the beginning of a frame
	both := slices.Concat(a, b)
	for what, tt := range map[string]struct {
		file, want []byte
		bad        string
	}{
		"skipped everywhere":              {slices.Concat(skip, skip, sized, skip, unsized, skip), both, ""},
		"sizes first":                     {slices.Concat(sized, unsized), both, ""},
		"sizes last":                      {slices.Concat(unsized, sized), slices.Concat(b, a), ""},
		"nothing but what is skipped":     {slices.Concat(skip, skip), nil, "is not compressed with zstd"},
		"empty frames":                    {slices.Concat(zstdFrame(0, nil), sized, zstdFrame(0, nil)), a, ""},
		"a frame by hand":                 {zstdFrame(4, []byte("four")), []byte("four"), ""},
		"one byte more than there is":     {zstdFrame(5, []byte("four")), nil, "damaged"},
		"one byte less":                   {zstdFrame(3, []byte("four")), nil, "damaged"},
		"4 EiB":                           {zstdFrame(1<<62, []byte("four")), nil, "damaged"},
		"16 EiB":                          {zstdFrame(1<<64-1, []byte("four")), nil, "damaged"},
		"4 EiB three times":               {slices.Concat(zstdFrame(1<<62, nil), zstdFrame(1<<62, nil), zstdFrame(1<<62, nil)), nil, "damaged"},
		"one lies more, one less":         {slices.Concat(zstdFrame(5, []byte("four")), zstdFrame(3, []byte("four"))), nil, "damaged"},
		"skipped beyond the end":          {slices.Concat(sized, skippable(1<<32-1, "skip")), nil, "cut off"},
		"skipped beyond the end, at once": {skippable(1<<32-1, "skip"), nil, "is not compressed with zstd"},
		"a header of what is skipped":     {slices.Concat(sized, skip[:6]), nil, "cut off"},
		"zeros behind":                    {slices.Concat(sized, make([]byte, 512)), nil, "something else behind"},
		"gzip behind":                     {slices.Concat(sized, pack(t, Gzip, b)), nil, "something else behind"},
		"a block that does not exist":     {append([]byte(zstdMagic), 0xc0, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0), nil, "damaged"},
	} {
		err := neverWrong(t, what, Zstd, tt.file, tt.want)
		if (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: %v, want %q", what, err, tt.bad)
		}
	}
}

// Members of gzip and streams of bzip2 behind each other, and what is between them and behind.
func TestMembers(t *testing.T) {
	a, b := disk(100<<10), disk(50<<10)
	for _, f := range []Format{Gzip, Bzip2} {
		pa, pb := pack(t, f, a), pack(t, f, b)
		empty := pack(t, f, nil)
		for what, tt := range map[string]struct {
			file, want []byte
			bad        string
		}{
			"members":               {slices.Concat(pa, pb), slices.Concat(a, b), ""},
			"many empty ones":       {slices.Concat(bytes.Repeat(empty, 1000), pa, bytes.Repeat(empty, 1000)), a, ""},
			"zeros between":         {slices.Concat(pa, make([]byte, 512), pb), nil, "damaged"},
			"rubbish behind zeros":  {slices.Concat(pa, make([]byte, 512), []byte("x")), nil, "damaged"},
			"the first byte of one": {slices.Concat(pa, pb[:1]), nil, " "},
			"a header of one":       {slices.Concat(pa, pb[:4]), nil, " "},
		} {
			err := neverWrong(t, fmt.Sprint(f, " ", what), f, tt.file, tt.want)
			if (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("%s, %s: %v, want %q", f, what, err, tt.bad)
			}
		}
	}
}
