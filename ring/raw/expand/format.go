package expand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Format is how an image is stored.
type Format string

// The formats that are read. Auto stands for the one that the bytes say.
const (
	Auto  Format = "auto"
	Raw   Format = "raw" // as it is
	Gzip  Format = "gzip"
	Zstd  Format = "zstd"
	XZ    Format = "xz"
	Bzip2 Format = "bzip2"
)

// Formats are all that can be asked for.
var Formats = []Format{Auto, Raw, Gzip, Zstd, XZ, Bzip2}

// packing is a format of one compressed file.
type packing struct {
	format   Format
	suffixes []string
	is       func(head []byte) bool
	// expand is the program that writes the expanded bytes to standard output.
	expand string
}

var packings = []packing{
	{Gzip, []string{".gz"}, func(b []byte) bool { // RFC 1952: the method is deflate, and three flags are reserved
		return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) && len(b) > 3 && b[3]&0xe0 == 0
	}, "gzip -dc"},
	{Zstd, []string{".zst", ".zstd"}, func(b []byte) bool {
		return bytes.HasPrefix(b, []byte(zstdMagic))
	}, "zstd -dc"},
	{XZ, []string{".xz"}, func(b []byte) bool { return bytes.HasPrefix(b, []byte(xzMagic)) }, "xz -dc"},
	{Bzip2, []string{".bz2"}, func(b []byte) bool { // a block begins, or the stream ends
		return len(b) > 9 && string(b[:3]) == "BZh" && b[3] >= '1' && b[3] <= '9' &&
			(string(b[4:10]) == "1AY&SY" || string(b[4:10]) == "\x17\x72\x45\x38\x50\x90")
	}, "bzip2 -dc"},
}

// packed returns the format of compressed files that f is.
func (f Format) packed() (packing, bool) {
	i := slices.IndexFunc(packings, func(p packing) bool { return p.format == f })
	if i < 0 {
		return packing{}, false
	}
	return packings[i], true
}

// Expanded returns the name of a file without the suffix of the format, or of any one for Auto.
func (f Format) Expanded(name string) string {
	for _, p := range packings {
		if f != p.format && f != Auto {
			continue
		}
		for _, suffix := range p.suffixes {
			if base, ok := strings.CutSuffix(name, suffix); ok && base != "" && !strings.HasSuffix(base, "/") {
				return base
			}
		}
	}
	return name
}

const (
	headSize = 4 << 10 // of a file, in which its format shows
	tailSize = 512     // of a file, in which images that are raw but for their end have a footer
)

// Detect returns the format of the size bytes of r, which is never Auto. name is the name of the file, for the
// command that an error advises. It refuses images that another program has to convert first.
func Detect(ctx context.Context, r io.ReaderAt, size int64, name string) (Format, error) {
	head, err := readAt(r, 0, min(size, headSize))
	if err != nil {
		return "", fmt.Errorf("input %s: %w", name, err)
	}
	// A skippable frame can be of lz4, too: what follows it says which.
	if isSkippable(head) {
		if first, err := firstFrame(ctx, r, size); err != nil {
			return "", fmt.Errorf("input %s: %w", name, err)
		} else if first == zstdMagic {
			return Zstd, nil
		}
	}
	for _, p := range packings {
		if p.is(head) {
			return p.format, nil
		}
	}
	tail, err := readAt(r, max(0, size-tailSize), min(size, tailSize))
	if err != nil {
		return "", fmt.Errorf("input %s: %w", name, err)
	}
	if f := foreignOf(head, tail); f != nil {
		return "", f.refuse(name)
	}
	return Raw, nil
}

// readAt reads n bytes at off. That there are fewer is an io.ErrUnexpectedEOF.
func readAt(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	k, err := r.ReadAt(b, off)
	if int64(k) == n {
		return b, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, errkind.Errorf("input-unreadable", "%w", err)
}

// foreign is a format that another program turns into a raw image.
type foreign struct {
	name string
	at   int    // where its magic is in the first bytes of a file; from the end if it is negative
	mark string // the magic
	// convert is the command, in which IN stands for the file and OUT for the raw image.
	convert string
}

const qemu = "qemu-img convert -O raw -f "

// foreigns has the formats with their magic numbers. Those of virtual disks are in the documentation of QEMU's
// block drivers, those of archives in file(1).
var foreigns = []foreign{
	{"a qcow2 image", 0, "QFI\xfb", qemu + "qcow2 IN OUT"},
	{"a QED image", 0, "QED\x00", qemu + "qed IN OUT"},
	{"a VMDK image", 0, "KDMV", qemu + "vmdk IN OUT"},
	{"a VMDK image", 0, "COWD", qemu + "vmdk IN OUT"},
	{"a descriptor of a VMDK image", 0, "# Disk DescriptorFile", qemu + "vmdk IN OUT"},
	{"a VDI image", 0x40, "\x7f\x10\xda\xbe", qemu + "vdi IN OUT"},
	{"a VHDX image", 0, "vhdxfile", qemu + "vhdx IN OUT"},
	{"a VHD image", 0, "conectix", qemu + "vpc IN OUT"},
	{"a VHD image", -512, "conectix", qemu + "vpc IN OUT"},
	{"a VHD image", -511, "conectix", qemu + "vpc IN OUT"}, // of Virtual PC before 2004
	{"a DMG image", -512, "koly", qemu + "dmg IN OUT"},
	{"an image of Parallels", 0, "WithoutFreeSpace", qemu + "parallels IN OUT"},
	{"an image of Parallels", 0, "WithouFreSpacExt", qemu + "parallels IN OUT"},
	{"an image of partclone", 0, "partclone-image", "partclone.restore -W -s IN -o OUT"},
	{"an image of ntfsclone", 0, "\x00ntfsclone-image", "ntfsclone --restore-image --overwrite OUT IN"},
	{"an Android sparse image", 0, "\x3a\xff\x26\xed", "simg2img IN OUT"},
	{"a WIM archive", 0, "MSWIM\x00\x00\x00", "wimapply IN OUT"},
	{"a tar archive", 257, "ustar", "tar -xOf IN NAME > OUT"},
	{"a zip archive", 0, "PK\x03\x04", "unzip -p IN > OUT"},
	{"a zip archive", 0, "PK\x05\x06", "unzip -p IN > OUT"},
	{"a 7z archive", 0, "7z\xbc\xaf\x27\x1c", "7z x -so IN > OUT"},
	{"a RAR archive", 0, "Rar!\x1a\x07", "unrar p -inul IN > OUT"},
	{"compressed with lz4", 0, "\x04\x22\x4d\x18", "lz4 -dc IN > OUT"},
	{"compressed with lz4", 0, "\x02\x21\x4c\x18", "lz4 -dc IN > OUT"},
	{"compressed with lzip", 0, "LZIP\x01", "lzip -dc IN > OUT"},
	{"compressed with lzop", 0, "\x89LZO\x00\x0d\x0a\x1a\x0a", "lzop -dc IN > OUT"},
	{"compressed with compress", 0, "\x1f\x9d\x90", "gzip -dc IN > OUT"},
	{"compressed with lzma", 0, "\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00", "xz -dc --format=lzma IN > OUT"},
}

// foreignOf returns the format that the first and the last bytes of a file have, or nil.
func foreignOf(head, tail []byte) *foreign {
	for i, f := range foreigns {
		in, at := head, f.at
		if at < 0 {
			in, at = tail, at+len(tail)
		}
		if at >= 0 && len(in) >= at && bytes.HasPrefix(in[at:], []byte(f.mark)) {
			return &foreigns[i]
		}
	}
	return nil
}

// refuse returns the error for a file of this format.
func (f *foreign) refuse(file string) error {
	return errkind.About("input-foreign", f.command(file), "input %s is %s, which has to be made a raw image first", file, f.name)
}

// refuseIn returns the error for a file that is this format once it is expanded.
func (f *foreign) refuseIn(p packing, file string) error {
	inner := p.format.Expanded(file)
	if inner == file {
		inner += ".expanded"
	}
	first := p.expand + " " + quoted(file) + " > " + quoted(inner)
	return errkind.About("input-foreign", first+" && "+f.command(inner),
		"input %s is, once it is expanded, %s, which has to be made a raw image first", file, f.name)
}

// command returns the command that makes a raw image of a file.
func (f *foreign) command(file string) string {
	out := strings.TrimSuffix(file, path.Ext(file)) + ".img"
	if out == file {
		out += ".raw"
	}
	return strings.NewReplacer("IN", quoted(file), "OUT", quoted(out)).Replace(f.convert)
}

// quoted returns a word of a shell command.
func quoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_./:=+@%,", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// inside returns the error for an image that, once it is expanded, begins with head, or nil for what may be a raw
// image.
func inside(head []byte, p packing, file string) error {
	for _, again := range packings {
		if again.is(head) {
			twice := &foreign{name: "compressed again", convert: again.expand + " IN > OUT"}
			return twice.refuseIn(p, file)
		}
	}
	if f := foreignOf(head, nil); f != nil {
		return f.refuseIn(p, file)
	}
	return nil
}
