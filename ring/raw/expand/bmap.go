package expand

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// maxMap is the most bytes that a block map may have.
const maxMap = 32 << 20

// Map is a block map as bmaptool makes it (https://github.com/yoctoproject/bmaptool): which blocks of an image have data,
// with a checksum for each range of them. All other blocks are zeros.
type Map struct {
	name   string
	size   int64 // of the image, in bytes
	ranges []blockRange
	hash   func() hash.Hash // of the checksums of ranges
}

// blockRange is a run of bytes that have data. sum is nil in a map that was made without checksums.
type blockRange struct {
	off, end int64
	sum      []byte
}

// MapBeside returns the path of the block map beside an image, or "" where there is none: the path of the image, or the
// same without the suffix of its compression, and ".bmap" behind it.
func MapBeside(path string) string {
	for _, base := range []string{path, Auto.Expanded(path)} {
		if _, err := os.Stat(base + ".bmap"); err == nil {
			return base + ".bmap"
		}
	}
	return ""
}

// ReadMap reads the block map in a file.
func ReadMap(path string) (*Map, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errkind.Errorf("input-bmap", "block map: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMap+1))
	if err != nil {
		return nil, fmt.Errorf("block map %s: %w", path, err)
	}
	m, err := ParseMap(b)
	if err != nil {
		return nil, errkind.Errorf("input-bmap", "block map %s: %w", path, err)
	}
	m.name = path
	return m, nil
}

// ParseMap reads a block map of version 1.3, 1.4 or 2.0, and checks its own checksum.
func ParseMap(b []byte) (*Map, error) {
	if len(b) > maxMap {
		return nil, fmt.Errorf("it has more than %d bytes", maxMap)
	}
	p := mapParser{fields: map[string]string{}}
	if err := p.parse(b); err != nil {
		return nil, err
	}
	return p.build(b)
}

// Checked reports whether the ranges have checksums.
func (m *Map) Checked() bool { return len(m.ranges) == 0 || m.ranges[0].sum != nil }

// at returns the first range that ends behind off.
func (m *Map) at(off int64) int {
	return sort.Search(len(m.ranges), func(i int) bool { return m.ranges[i].end > off })
}

// otherImage is the error for an image that is not as long as the map says.
func (m *Map) otherImage(name string, size int64) error {
	return errkind.About("input-other-bmap", m.name, "block map %s is for an image of %d bytes, and input %s has %d", m.name, m.size, name, size)
}

// mapParser reads the XML of a block map, and knows nothing of what its values mean.
type mapParser struct {
	version string
	fields  map[string]string // of the elements below bmap, but BlockMap
	ranges  []mapRange
}

// mapRange is an element Range of a block map.
type mapRange struct{ blocks, sum, sha1 string }

// mapFields are the elements below bmap that are read. A newer minor version may have others.
var mapFields = []string{"ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount", "ChecksumType", "BmapFileChecksum", "BmapFileSHA1"}

func (p *mapParser) parse(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	var path []string
	var text strings.Builder
	maps := 0
	for {
		token, err := d.Token()
		if err == io.EOF && maps > 0 && p.version != "" {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
		switch t := token.(type) {
		case xml.Directive:
			return errors.New("it has a document type, which no block map has")
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if len(path) > 8 {
				return errors.New("its elements are too deep in each other")
			}
			text.Reset()
			switch at := strings.Join(path, "/"); at {
			case "bmap":
				if p.version != "" {
					return errors.New("it has two elements bmap")
				}
				p.version = attribute(t, "version")
			case "bmap/BlockMap":
				if maps++; maps > 1 {
					return errors.New("it has two elements BlockMap")
				}
			case "bmap/BlockMap/Range":
				p.ranges = append(p.ranges, mapRange{sum: attribute(t, "chksum"), sha1: attribute(t, "sha1")})
			}
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if err := p.end(strings.Join(path, "/"), strings.TrimSpace(text.String())); err != nil {
				return err
			}
			path = path[:len(path)-1]
			text.Reset()
		}
	}
}

// end takes the text of an element.
func (p *mapParser) end(at, text string) error {
	if at == "bmap/BlockMap/Range" {
		p.ranges[len(p.ranges)-1].blocks = strings.Clone(text)
		return nil
	}
	name, ok := strings.CutPrefix(at, "bmap/")
	if !ok || !slices.Contains(mapFields, name) {
		return nil
	}
	if _, twice := p.fields[name]; twice {
		return fmt.Errorf("it has two elements %s", name)
	}
	p.fields[name] = text
	return nil
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// number returns a field that is a number.
func (p *mapParser) number(name string, least int64) (int64, error) {
	n, err := strconv.ParseInt(p.fields[name], 10, 64)
	if err != nil || n < least || n > 1<<62 {
		return 0, fmt.Errorf("%s is %.40q", name, p.fields[name])
	}
	return n, nil
}

// build makes the map of what was parsed, which was all of b.
func (p *mapParser) build(b []byte) (*Map, error) {
	m := &Map{}
	own, kind := "BmapFileChecksum", p.fields["ChecksumType"]
	switch p.version {
	case "1.3":
		own, kind = "BmapFileSHA1", "sha1"
	case "1.4", "2.0":
	default:
		return nil, fmt.Errorf("it has version %.20q, and 1.3, 1.4 and 2.0 are read", p.version)
	}
	switch strings.ToLower(kind) {
	case "sha1":
		m.hash = sha1.New
	case "sha256":
		m.hash = sha256.New
	case "sha512":
		m.hash = sha512.New
	default:
		return nil, fmt.Errorf("its checksums are of type %.40q, and sha1, sha256 and sha512 are known", kind)
	}
	if err := checkOwn(b, p.fields[own], m.hash()); err != nil {
		return nil, err
	}
	size, err := p.number("ImageSize", 0)
	if err != nil {
		return nil, err
	}
	block, err := p.number("BlockSize", 1)
	if err != nil {
		return nil, err
	}
	blocks, err := p.number("BlocksCount", 0)
	if err != nil {
		return nil, err
	}
	if block > 1<<30 || blocks != size/block+min(1, size%block) {
		return nil, fmt.Errorf("%d blocks of %d bytes are no image of %d bytes", blocks, block, size)
	}
	m.size = size
	return m, p.place(m, block, blocks)
}

// place fills in the ranges of m.
func (p *mapParser) place(m *Map, block, blocks int64) error {
	var last, mapped int64 = -1, 0
	m.ranges = make([]blockRange, 0, len(p.ranges))
	for i, r := range p.ranges {
		from, to, pair := strings.Cut(r.blocks, "-")
		if !pair {
			to = from
		}
		first, err := strconv.ParseInt(strings.TrimSpace(from), 10, 64)
		if err != nil {
			return fmt.Errorf("a range is %.40q", r.blocks)
		}
		end, err := strconv.ParseInt(strings.TrimSpace(to), 10, 64)
		if err != nil || first <= last || end < first || end >= blocks {
			return fmt.Errorf("range %.40q is not behind the one before it and in the image of %d blocks", r.blocks, blocks)
		}
		sum := r.sum
		if p.version == "1.3" {
			sum = r.sha1
		}
		b, err := hex.DecodeString(sum)
		if err != nil || len(b) != 0 && len(b) != m.hash().Size() {
			return fmt.Errorf("range %.40q has the checksum %.140q", r.blocks, sum)
		}
		if len(b) == 0 {
			b = nil
		}
		if i > 0 && (b == nil) != (m.ranges[0].sum == nil) {
			return errors.New("some of its ranges have checksums and some have none")
		}
		last, mapped = end, mapped+end-first+1
		m.ranges = append(m.ranges, blockRange{first * block, min((end+1)*block, m.size), b})
	}
	if n, err := p.number("MappedBlocksCount", 0); err != nil || n != mapped {
		return fmt.Errorf("its ranges have %d blocks, and MappedBlocksCount is %.40q", mapped, p.fields["MappedBlocksCount"])
	}
	return nil
}

// checkOwn checks the checksum of the map: it is that of the file in which zeros stand in its place.
func checkOwn(b []byte, sum string, h hash.Hash) error {
	want, err := hex.DecodeString(sum)
	if err != nil || len(want) != h.Size() {
		return fmt.Errorf("its own checksum is %.140q", sum)
	}
	before, after, _ := bytes.Cut(b, []byte(sum))
	h.Write(before)
	h.Write(bytes.Repeat([]byte("0"), len(sum)))
	h.Write(after)
	if !bytes.Equal(h.Sum(nil), want) {
		return errors.New("its own checksum is wrong: it is damaged or was edited")
	}
	return nil
}
