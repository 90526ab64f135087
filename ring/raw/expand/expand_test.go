package expand

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// disk is n bytes that look like a disk: runs of zeros, of text and of noise, with no magic at the front.
func disk(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	for off := 0; off < n; off += 64 << 10 {
		part := b[off:min(n, off+64<<10)]
		switch off >> 16 % 4 {
		case 0:
			r.Read(part)
			part[0] = 0xeb
		case 1:
			copy(part, bytes.Repeat([]byte("some text that is here again and again. "), len(part)/40+1))
		}
	}
	return b
}

// pack compresses in a process, as nobody but Go does it.
func pack(t testing.TB, f Format, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch f {
	case Raw:
		return b
	case Gzip:
		w = gzip.NewWriter(&out)
	case Zstd:
		w, err = zstd.NewWriter(&out) // does not say how long the frame is
	case XZ:
		w, err = xz.WriterConfig{DictCap: 256 << 10, BlockSize: 256 << 10}.NewWriter(&out)
	case Bzip2:
		return program(t, b, "bzip2", "-1c") // blocks of 100 kB
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// program compresses b with a program, which gets it from a pipe.
func program(t testing.TB, b []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") != "" {
			t.Fatal(err)
		}
		t.Skipf("no %s", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out
}

// opened stores b as a file and opens the image in it.
func opened(t testing.TB, b []byte, o Options) (*Image, error) {
	t.Helper()
	if o.Name == "" {
		o.Name = filepath.Join(t.TempDir(), "in.img.x")
	}
	if err := os.WriteFile(o.Name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := raw.OpenFile(o.Name)
	if err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), f, o)
	if err == nil {
		t.Cleanup(func() { im.Close() })
	}
	return im, err
}

// all reads an image as the ring does, and returns what it gave before an error.
func all(ctx context.Context, im *Image) ([]byte, error) {
	r, err := im.Open(ctx, v1.Descriptor{}, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil {
		err = im.Unchanged(ctx)
	}
	return b, err
}

// damaged says of an error whether nodes drop what they got before it.
func damaged(err error) bool {
	var w interface{ Wrong() bool }
	return errors.As(err, &w) && w.Wrong()
}

// Every way to store an image is a source like any other.
func TestImage(t *testing.T) {
	for _, f := range []Format{Gzip, Zstd, XZ, Bzip2} {
		for _, n := range []int{0, 1, 256<<10 + 517} {
			t.Run(fmt.Sprintf("%s %d", f, n), func(t *testing.T) {
				want := disk(n)
				packed := pack(t, f, want)
				ringtest.TestSource(t, func(t *testing.T) ring.Source {
					im, err := opened(t, packed, Options{Format: Auto})
					if err != nil {
						t.Fatal(err)
					}
					return im
				}, want)
			})
		}
	}
}

// What the programs make, in all ways that they store it, is read, and its length known in the way that is cheapest.
func TestPrograms(t *testing.T) {
	want := disk(1<<20 + 3)
	half := len(want)/2 + 11
	zeros := make([]byte, 1000)
	skippable := []byte("\x5a\x2a\x4d\x18\x05\x00\x00\x00hello")
	for _, tt := range []struct {
		name     string
		format   Format
		packed   func(t *testing.T) []byte
		measured bool
	}{
		{"gzip", Gzip, func(t *testing.T) []byte { return program(t, want, "gzip", "-1c") }, true},
		{"gzip of members and padding", Gzip, func(t *testing.T) []byte {
			return slices.Concat(program(t, want[:half], "gzip", "-c"), program(t, nil, "gzip", "-c"), program(t, want[half:], "gzip", "-c"), zeros)
		}, true},
		{"zstd of a pipe", Zstd, func(t *testing.T) []byte { return program(t, want, "zstd", "-c") }, true},
		{"zstd that knows its length", Zstd, func(t *testing.T) []byte {
			return program(t, want, "zstd", "-c", fmt.Sprintf("--stream-size=%d", len(want)))
		}, false},
		{"zstd with a window of 128 MiB", Zstd, func(t *testing.T) []byte {
			return program(t, want, "zstd", "-c", "--long=27", "--no-check")
		}, true},
		{"zstd of frames", Zstd, func(t *testing.T) []byte {
			return slices.Concat(skippable, program(t, want[:half], "zstd", "-19", "-c", fmt.Sprintf("--stream-size=%d", half)), skippable,
				program(t, want[half:], "zstd", "-c", fmt.Sprintf("--stream-size=%d", len(want)-half)), skippable)
		}, false},
		{"xz", XZ, func(t *testing.T) []byte { return program(t, want, "xz", "-1c") }, false},
		{"xz in blocks", XZ, func(t *testing.T) []byte {
			return program(t, want, "xz", "-0", "-c", "-T2", "--block-size=300KiB", "--check=sha256")
		}, false},
		{"xz of streams and padding", XZ, func(t *testing.T) []byte {
			return slices.Concat(program(t, want[:half], "xz", "-0c", "--check=crc32"), zeros[:8], program(t, nil, "xz", "-c"),
				program(t, want[half:], "xz", "-9c", "--check=none"), zeros)
		}, false},
		{"bzip2", Bzip2, func(t *testing.T) []byte { return program(t, want, "bzip2", "-1c") }, true},
		{"bzip2 of streams", Bzip2, func(t *testing.T) []byte {
			return slices.Concat(program(t, want[:half], "bzip2", "-c"), program(t, nil, "bzip2", "-c"), program(t, want[half:], "bzip2", "-c"))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packed := tt.packed(t)
			var steps []int64
			im, err := opened(t, packed, Options{Format: Auto, Measuring: func(read, size int64) {
				if size != int64(len(packed)) {
					t.Errorf("measuring %d of %d bytes", read, size)
				}
				steps = append(steps, read)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if im.Format() != tt.format || im.Size() != int64(len(want)) {
				t.Errorf("%s of %d bytes, want %s of %d", im.Format(), im.Size(), tt.format, len(want))
			}
			if measured := len(steps) > 0; measured != tt.measured {
				t.Errorf("measured: %v, want %v", measured, tt.measured)
			} else if measured && (!slices.IsSorted(steps) || steps[0] != 0 || steps[len(steps)-1] != int64(len(packed))) {
				t.Errorf("measured in steps %v", steps)
			}
			got, err := all(t.Context(), im)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes that are right: %v, %v", len(got), bytes.Equal(got, want), err)
			}
			if sum := im.SHA256(); sum != digest.FromBytes(want) {
				t.Errorf("SHA-256 %s", sum)
			}
		})
	}
}

// Of every byte of a file, that it is another one, and of every place, that the file ends there or goes on with
// something, is found before io.EOF, and the bytes that came before do not count as right.
func TestDamage(t *testing.T) {
	want := disk(200 << 10)[60<<10:]
	for _, f := range []Format{Gzip, Zstd, XZ, Bzip2} {
		t.Run(string(f), func(t *testing.T) {
			good := pack(t, f, want)
			if f == Zstd { // with a checksum, whose last bytes are the file's
				good = program(t, want, "zstd", "-c", fmt.Sprintf("--stream-size=%d", len(want)))
			}
			check := func(what string, b []byte) {
				t.Helper()
				im, err := opened(t, b, Options{Format: f, Name: filepath.Join(t.TempDir(), "x")})
				var got []byte
				if err == nil {
					defer im.Close()
					if got, err = all(t.Context(), im); !damaged(err) && err != nil {
						t.Errorf("%s: what came before would be kept: %v", what, err)
					}
				}
				if err == nil && !bytes.Equal(got, want) {
					t.Errorf("%s: wrong bytes without an error", what)
				}
				if err == nil && (len(b) != len(good)) {
					t.Errorf("%s: no error", what)
				}
			}
			for at := 0; at < len(good); at += 1 + len(good)/40 {
				check(fmt.Sprintf("cut at %d of %d", at, len(good)), good[:at])
				flipped := bytes.Clone(good)
				flipped[at] ^= 0x10
				check(fmt.Sprintf("byte %d of %d", at, len(good)), flipped)
			}
			for at := len(good) - 30; at < len(good); at++ {
				check(fmt.Sprintf("cut at %d of %d", at, len(good)), good[:at])
			}
			check("rubbish", append(bytes.Clone(good), "rubbish!"...))
			check("zeros and rubbish", append(bytes.Clone(good), "\x00\x00\x00\x00rubbish!"...))
			check("half of it again", append(bytes.Clone(good), good[:len(good)/2]...))
			check("half of its header again", append(bytes.Clone(good), good[:3]...))
		})
	}
}

// What an error says.
func TestErrors(t *testing.T) {
	want := disk(300 << 10)
	gz, zst, x := pack(t, Gzip, want), pack(t, Zstd, want), pack(t, XZ, want)
	fixed := append(bytes.Clone(want), "conectix and the rest of a footer"...)
	fixed = append(fixed, make([]byte, 512-33)...)
	tar := make([]byte, 10<<10)
	copy(tar[257:], "ustar  ")
	for _, tt := range []struct {
		name string
		b    []byte
		as   Format
		want string
		kind string
	}{
		{"cut.gz", gz[:len(gz)/2], Auto, "input cut.gz is cut off: its gzip data do not end", "input-cut"},
		{"cut.zst", zst[:len(zst)/2], Auto, "input cut.zst is cut off: its zstd data do not end", "input-cut"},
		{"cut.xz", x[:len(x)/2], Auto, "it is cut off, or there is something else behind its end", "input-damaged"},
		{"more.gz", append(bytes.Clone(gz), "more"...), Auto, "input more.gz is damaged: gzip: there is something else behind its end", "input-damaged"},
		{"more.zst", append(bytes.Clone(zst), "more"...), Auto, "input more.zst is damaged: zstd: there is something else behind its end", "input-damaged"},
		{"more.xz", append(bytes.Clone(x), "more"...), Auto, "there is something else behind its end", "input-damaged"},
		{"what.gz", want, Gzip, "input what.gz is not compressed with gzip", "input-format"},
		{"zst.gz", zst, Gzip, "input zst.gz is not compressed with gzip", "input-format"},
		{"wide.zst", program(t, want, "zstd", "-c", "--long=28", "--ultra", "-22"), Auto, "window of 256 MiB", "input-window"},
		{"wide.xz", program(t, want, "xz", "-c", "--lzma2=dict=256MiB,mode=fast,mf=hc3,nice=8"), Auto, "window of 256 MiB", "input-window"},
		{"bcj.xz", program(t, want, "xz", "-c", "--x86", "--lzma2=preset=0"), Auto, "filter for programs", "input-filter"},
		{"a.qcow2", []byte("QFI\xfb\x00\x00\x00\x03 and so on"), Auto,
			"input a.qcow2 is a qcow2 image, which has to be made a raw image first", "input-foreign qemu-img convert -O raw -f qcow2 a.qcow2 a.img"},
		{"a.vhd", fixed, Auto, "is a VHD image", "input-foreign qemu-img convert -O raw -f vpc a.vhd a.img"},
		{"it's.gz", pack(t, Gzip, fixed), Auto, "is, once it is expanded, a VHD image",
			`input-foreign gzip -dc 'it'\''s.gz' > 'it'\''s' && qemu-img convert -O raw -f vpc 'it'\''s' 'it'\''s.img'`},
		{"fixed.xz", pack(t, XZ, fixed), Auto, "is, once it is expanded, a VHD image",
			`input-foreign xz -dc fixed.xz > fixed && qemu-img convert -O raw -f vpc fixed fixed.img`},
		{"home.tar.gz", pack(t, Gzip, tar), Auto, "is, once it is expanded, a tar archive",
			"input-foreign gzip -dc home.tar.gz > home.tar && tar -xOf home.tar NAME > home.img"},
		{"twice.gz", pack(t, Gzip, x), Auto, "is, once it is expanded, compressed again",
			"input-foreign gzip -dc twice.gz > twice && xz -dc twice > twice.img"},
		{"lz4", []byte("\x04\x22\x4d\x18dD"), Auto, "is compressed with lz4", "input-foreign lz4 -dc lz4 > lz4.img"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			im, err := opened(t, tt.b, Options{Format: tt.as, Name: tt.name})
			if err == nil {
				_, err = all(t.Context(), im)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "input "+tt.name) > 1 {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			kind, about := errkind.Of(err)
			if got := strings.TrimSpace(string(kind) + " " + strings.Join(about, " ")); got != tt.kind {
				t.Errorf("kind %s, want %s", got, tt.kind)
			}
		})
	}
	// Who says what it is gets what he says.
	im, err := opened(t, pack(t, Gzip, tar), Options{Format: Gzip})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := all(t.Context(), im); err != nil || !bytes.Equal(got, tar) {
		t.Errorf("a tar archive in gzip, as gzip: %v", err)
	}
}

// What QEMU makes is told from a raw image, whatever is in it.
func TestQEMU(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(source, disk(1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc", "vpc -o subformat=fixed", "parallels"} {
		out := filepath.Join(dir, "out")
		program(t, nil, "qemu-img", append(append([]string{"convert", "-O"}, strings.Fields(f)...), source, out)...)
		file, err := raw.OpenFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Detect(t.Context(), file, file.Size(), "out")
		kind, about := errkind.Of(err)
		if kind != "input-foreign" || !strings.HasPrefix(about[0], "qemu-img convert -O raw -f "+strings.Fields(f)[0]+" out ") {
			t.Errorf("%s: %q, %v, %s", f, got, err, about)
		}
		file.Close()
	}
}

// A file that is another one at the end is not what was read.
func TestChanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	im, err := opened(t, pack(t, Gzip, disk(1000)), Options{Format: Auto, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, pack(t, Gzip, disk(1001)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := all(t.Context(), im); err == nil {
		t.Error("it was written to, and counts as unchanged")
	}
}

// A long image travels in leaves, and its SHA-256 is computed where it is wanted.
func TestLong(t *testing.T) {
	packed := program(t, make([]byte, 65<<20), "zstd", "-c", fmt.Sprintf("--stream-size=%d", 65<<20))
	im, err := opened(t, packed, Options{Format: Auto, Name: filepath.Join(t.TempDir(), "long.raw.zst")})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := im.Blobs(t.Context())
	if err != nil || !leaf.In(blobs[0]) || blobs[0].Annotations[v1.AnnotationTitle] != "long.raw" {
		t.Fatalf("%+v, %v", blobs, err)
	}
	for _, wanted := range []bool{false, true} {
		h := sha256.New()
		if wanted {
			im.WantSHA256()
		}
		r, err := im.Open(t.Context(), blobs[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if got := im.SHA256(); (got == digest.NewDigest(digest.SHA256, h)) != wanted {
			t.Errorf("SHA-256 %s, wanted %v", got, wanted)
		}
	}
}
