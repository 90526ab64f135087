package expand

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// blockMap writes a map of the ranges of an image as bmaptool does. A range is "first-last" or one block.
func blockMap(version string, b []byte, block int, ranges ...string) []byte {
	attribute, own, newHash, kind := "chksum", "BmapFileChecksum", sha256.New, "<ChecksumType> sha256 </ChecksumType>"
	if version == "1.3" {
		attribute, own, newHash, kind = "sha1", "BmapFileSHA1", sha1.New, ""
	}
	sum := func(h hash.Hash, b []byte) string {
		h.Write(b)
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	var s strings.Builder
	mapped := 0
	for _, r := range ranges {
		first, last := 0, 0
		if n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); n == 1 {
			last = first
		}
		mapped += last - first + 1
		fmt.Fprintf(&s, "<Range %s=%q> %s </Range>\n", attribute, sum(newHash(), b[first*block:min(len(b), (last+1)*block)]), r)
	}
	zero := strings.Repeat("0", 2*newHash().Size())
	text := fmt.Sprintf(`<?xml version="1.0" ?>
<!-- a comment of bmaptool -->
<bmap version=%q>
<ImageSize> %d </ImageSize><BlockSize> %d </BlockSize><BlocksCount> %d </BlocksCount><MappedBlocksCount> %d </MappedBlocksCount>
%s<%s> %s </%s>
<BlockMap>
%s</BlockMap>
</bmap>
`, version, len(b), block, (len(b)+block-1)/block, mapped, kind, own, zero, own, s.String())
	return []byte(strings.Replace(text, zero, sum(newHash(), []byte(text)), 1))
}

// signed gives a map that was edited the checksum that it should have.
func signed(m []byte, edits ...string) []byte {
	text := strings.NewReplacer(edits...).Replace(string(m))
	_, rest, _ := strings.Cut(text, "<BmapFileChecksum> ")
	old, _, _ := strings.Cut(rest, " </BmapFileChecksum>")
	zeroed := strings.Replace(text, old, strings.Repeat("0", len(old)), 1)
	return []byte(strings.Replace(text, old, fmt.Sprintf("%x", sha256.Sum256([]byte(zeroed))), 1))
}

// mappedDisk is an image whose file has rubbish in the blocks that the map of it leaves out, and what it has to be.
func mappedDisk() (stored, want []byte, ranges []string) {
	const block = 4096
	stored = disk(300*block + 777)
	want = bytes.Clone(stored)
	clear(want[2*block : 10*block])
	clear(want[11*block : 100*block])
	clear(want[200*block : 300*block])
	return stored, want, []string{"0-1", "10", "100-199", "300"}
}

// An image with a map is a source like any other, in every version of maps and, with the newest, in every compression.
func TestMapped(t *testing.T) {
	stored, want, ranges := mappedDisk()
	for _, version := range []string{"1.3", "1.4", "2.0"} {
		formats := []Format{Raw}
		if version == "2.0" {
			formats = []Format{Raw, Gzip, XZ}
		}
		for _, f := range formats {
			t.Run(version+" "+string(f), func(t *testing.T) {
				m, err := ParseMap(blockMap(version, stored, 4096, ranges...))
				if err != nil {
					t.Fatal(err)
				}
				packed := pack(t, f, stored)
				ringtest.TestSource(t, func(t *testing.T) ring.Source {
					im, err := opened(t, packed, Options{Format: Auto, Map: m, Measuring: func(int64, int64) { t.Error("measured") }})
					if err != nil {
						t.Fatal(err)
					}
					return im
				}, want)
			})
		}
	}
}

// What a map leaves out is skipped, and counts in the SHA-256 as the zeros that it is.
func TestMappedZeros(t *testing.T) {
	stored, want, ranges := mappedDisk()
	m, err := ParseMap(blockMap("2.0", stored, 4096, ranges...))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []Format{Raw, Zstd} {
		im, err := opened(t, pack(t, f, stored), Options{Format: f, Map: m})
		if err != nil {
			t.Fatal(err)
		}
		im.WantSHA256()
		r, err := im.Open(t.Context(), v1.Descriptor{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got []byte
		var skipped int64
		for {
			n, err := r.(ring.ZeroSkipper).SkipZeros(100_000)
			if err != nil || n > 100_000 {
				t.Fatalf("skipped %d: %v", n, err)
			}
			got = append(got, make([]byte, n)...)
			skipped += n
			b := make([]byte, 5000)
			k, err := r.Read(b)
			got = append(got, b[:k]...)
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) || skipped < 600_000 {
			t.Errorf("%s: %d bytes, %d skipped", f, len(got), skipped)
		}
		if im.SHA256() != digest.FromBytes(want) {
			t.Errorf("%s: SHA-256 %s", f, im.SHA256())
		}
	}
}

// bmaptool's own maps fit the images that it made them of.
func TestBmaptool(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse.img")
	want := make([]byte, 5<<20+1234)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int{0, 1 << 20, 3<<20 + 8192, 5 << 20} {
		copy(want[off:], disk(9000)[:min(9000, len(want)-off)])
		if _, err := f.WriteAt(want[off:min(len(want), off+9000)], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"create", path}, {"create", "--no-checksum", path}} {
		text := program(t, nil, "bmaptool", args...)
		m, err := ParseMap(text)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if len(m.ranges) != 4 || m.Checked() != (len(args) == 2) {
			t.Errorf("%d ranges, checked %v", len(m.ranges), m.Checked())
		}
		im, err := opened(t, pack(t, Gzip, want), Options{Format: Auto, Map: m})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := all(t.Context(), im); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the image: %v", err)
		}
	}
}

// A wrong byte in a range is found, also if the transfer read only what is behind it; one elsewhere is not sent.
func TestMappedDamage(t *testing.T) {
	stored, want, ranges := mappedDisk()
	m, err := ParseMap(blockMap("2.0", stored, 4096, ranges...))
	if err != nil {
		t.Fatal(err)
	}
	for at, bad := range map[int]bool{0: true, 8191: true, 8192: false, 10*4096 + 5: true, 150 * 4096: true, 250 * 4096: false, len(stored) - 1: true} {
		b := bytes.Clone(stored)
		b[at]++
		im, err := opened(t, pack(t, Gzip, b), Options{Format: Auto, Map: m})
		if err != nil {
			t.Fatal(err)
		}
		r, err := im.Open(t.Context(), v1.Descriptor{}, im.Size()-1)
		if err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 1))
		r.Close()
		if err := im.Unchanged(t.Context()); (err != nil) != bad || damaged(err) != bad {
			t.Errorf("byte %d: %v at the end", at, err)
		}
		got, err := all(t.Context(), im)
		if bad != (err != nil) || !bad && !bytes.Equal(got, want) {
			t.Errorf("byte %d: %v", at, err)
		}
		if bad && (!damaged(err) || !strings.Contains(err.Error(), "than its block map")) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	// The map is of an image of another length.
	for name, b := range map[string][]byte{
		"raw": stored[1:], "xz": pack(t, XZ, stored[1:]), "gzip": pack(t, Gzip, stored[1:]), "longer": pack(t, Gzip, append(bytes.Clone(stored), 0)),
	} {
		im, err := opened(t, b, Options{Format: Auto, Map: m})
		if early := err != nil; early != (name == "raw" || name == "xz") {
			t.Errorf("%s: at once: %v", name, err)
		}
		if err == nil {
			_, err = all(t.Context(), im)
		}
		if err == nil {
			t.Errorf("%s: of another length, and no error", name)
		}
	}
}

func TestParseMap(t *testing.T) {
	b := disk(10*4096 - 1)
	good := blockMap("2.0", b, 4096, "0-1", "5", "8-9")
	if _, err := ParseMap(good); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseMap(signed(good, "<BlockMap>", "<Later> 1 </Later><BlockMap>")); err != nil {
		t.Errorf("an element of a later version: %v", err)
	}
	for _, tt := range []struct {
		edits []string
		want  string
	}{
		{[]string{`"2.0"`, `"3.0"`}, `version "3.0"`},
		{[]string{`sha256 <`, `md5 <`}, `type "md5"`},
		{[]string{`8-9`, `8-10`}, "in the image of 10 blocks"},
		{[]string{`> 5 <`, `> 1 <`}, "is not behind the one before it"},
		{[]string{`> 5 <`, `> x <`}, `a range is "x"`},
		{[]string{`> 5 <`, `> -5 <`}, `a range is "-5"`},
		{[]string{`8-9`, `9-8`}, "is not behind the one before it"},
		{[]string{`> 5 <`, `> 99999999999999999999 <`}, "a range is"},
		{[]string{`40959 `, `40961 `}, "are no image of 40961 bytes"},
		{[]string{`40959 `, `-1 `}, "ImageSize is"},
		{[]string{` 4096 `, ` 0 `}, "BlockSize is"},
		{[]string{`> 5 <`, `> 6-7 <`}, "its ranges have 6 blocks, and MappedBlocksCount is"},
		{[]string{`<BlockMap>`, `<BlockMap></BlockMap><BlockMap>`}, "two elements BlockMap"},
		{[]string{`<BlockMap>`, `<ImageSize>1</ImageSize><BlockMap>`}, "two elements ImageSize"},
		{[]string{`<bmap `, `<!DOCTYPE x [<!ENTITY e "8-9">]><bmap `}, "document type"},
		{[]string{`8-9`, `&e;`}, "invalid character entity"},
		{[]string{`</bmap>`, ``}, "unexpected EOF"},
		{[]string{`<BlockMap>`, `<a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a><BlockMap>`}, "too deep"},
		{[]string{`<Range chksum="`, `<Range chksum="0`}, "has the checksum"},
	} {
		if _, err := ParseMap(signed(good, tt.edits...)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.edits, err)
		}
	}
	if _, err := ParseMap(bytes.Replace(good, []byte("8-9"), []byte("7-8"), 1)); err == nil || !strings.Contains(err.Error(), "its own checksum is wrong") {
		t.Errorf("edited: %v", err)
	}
	if _, err := ParseMap([]byte("BMAP")); err == nil {
		t.Error("no XML at all")
	}
	if _, err := ReadMap(filepath.Join(t.TempDir(), "missing")); err == nil || !errkind.Has(err) {
		t.Errorf("missing: %v", err)
	}
}

func TestMapBeside(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a.raw.xz.bmap", "a.raw.bmap", "b.wic.bmap"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for image, want := range map[string]string{"a.raw.xz": at("a.raw.xz.bmap"), "a.raw": at("a.raw.bmap"), "b.wic.gz": at("b.wic.bmap"), "b": "", "c.xz": ""} {
		if got := MapBeside(at(image)); got != want {
			t.Errorf("%s: %q", image, got)
		}
	}
}
