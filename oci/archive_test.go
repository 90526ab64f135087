package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// everywhere is the same layout as a directory and as archives, by name.
func everywhere(t testing.TB, files map[string][]byte) map[string]string {
	raw := asTar(regular(files)...)
	return map[string]string{
		"dir":  "oci:" + writeDir(t, files),
		"tar":  "oci-archive:" + writeFile(t, "a.tar", raw),
		"gzip": "oci-archive:" + writeFile(t, "a.tgz", asGzip(raw)),
		"zstd": "oci-archive:" + writeFile(t, "a", asZstd(raw)),
	}
}

func TestLayoutEverywhere(t *testing.T) {
	m := newImg(noise(300_000), []byte("small"), nil, bytes.Repeat([]byte("long "), 200_000))
	var first *Image
	for kind, name := range everywhere(t, m.files()) {
		t.Run(kind, func(t *testing.T) {
			i, err := Open(context.Background(), name, Options{})
			if err != nil {
				t.Fatal(err)
			}
			m.check(t, i)
			if i.Name() != "" {
				t.Errorf("name is %q", i.Name())
			}
			if first == nil {
				first = i
			} else if !reflect.DeepEqual(first.blobs, i.blobs) || !reflect.DeepEqual(first.Root(), i.Root()) {
				t.Errorf("%v and %v, other than %v and %v", i.Root(), i.blobs, first.Root(), first.blobs)
			}
			ringtest.TestSource(t, func(t *testing.T) ring.Source { return mustOpen(t, name, Options{}) }, m.want()...)
			if err := i.Close(); err != nil {
				t.Error(err)
			}
			if _, err := read(i, m.layers[0], 0); err == nil {
				t.Error("read after it was closed")
			}
		})
	}
}

// Several readers at once, each with its own place, closed early and late.
func TestArchiveConcurrent(t *testing.T) {
	m := newImg(noise(200_000), bytes.Repeat([]byte("x"), 1_000_000), noise(70_000))
	for kind, name := range everywhere(t, m.files()) {
		t.Run(kind, func(t *testing.T) {
			i := mustOpen(t, name, Options{})
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					for n := range 12 {
						d := m.layers[(g+n)%3]
						off := d.Size * int64((g*5+n)%7) / 6
						off = min(off, d.Size)
						rc, err := i.Open(context.Background(), d, off)
						if err != nil {
							t.Error(err)
							return
						}
						limit := d.Size
						if n%3 == 0 {
							limit = 1000 // and away
						}
						b, err := io.ReadAll(io.LimitReader(rc, limit))
						if err != nil || !bytes.HasPrefix(m.blobs[d.Digest][off:], b) || limit == d.Size && int64(len(b)) != d.Size-off {
							t.Errorf("%d bytes from %d of %d, %v", len(b), off, d.Size, err)
						}
						if err := rc.Close(); err != nil {
							t.Error(err)
						}
						rc.Close() // once more: it must not take the place from another
					}
				})
			}
			wg.Wait()
		})
	}
}

// Archives cut at every interesting place: an error, here or when the image is read.
func TestArchiveTruncated(t *testing.T) {
	m := newImg(noise(5000), noise(3000))
	raw := asTar(regular(m.files())...)
	for kind, b := range map[string][]byte{"tar": raw, "gzip": asGzip(raw), "zstd": asZstd(raw)} {
		whole := len(bytes.TrimRight(raw, "\x00")) // what follows is padding
		for n := 0; n < len(b)-1; n += 97 {
			if kind == "tar" && n >= whole || kind != "tar" && n > len(b)-64 {
				continue
			}
			i, err := Open(context.Background(), "oci-archive:"+writeFile(t, "a", b[:n]), Options{})
			for _, d := range m.list {
				if err == nil {
					_, err = read(i, d, 0)
				}
			}
			if err == nil {
				t.Errorf("%s: all was there in %d of %d bytes", kind, n, len(b))
			} else if err == io.EOF {
				t.Errorf("%s: %d bytes: a bare EOF", kind, n)
			}
			if i != nil {
				i.Close()
			}
		}
	}
}

// An image damaged in its place: told at the end of what is damaged.
func TestLayoutDamaged(t *testing.T) {
	m := newImg(noise(1000))
	for _, c := range []struct {
		name   string
		change func(files map[string][]byte)
		want   string
	}{
		{"layer", func(f map[string][]byte) { f[blobFile(m.layers[0])] = noise(1001)[:1000] }, "has other bytes than its digest says"},
		{"short layer", func(f map[string][]byte) { f[blobFile(m.layers[0])] = noise(999) }, "has 999 bytes, not 1000"},
		{"long layer", func(f map[string][]byte) { f[blobFile(m.layers[0])] = noise(1001) }, "has 1001 bytes, not 1000"},
		{"no layer", func(f map[string][]byte) { delete(f, blobFile(m.layers[0])) }, blobFile(m.layers[0])},
		{"manifest", func(f map[string][]byte) {
			f[blobFile(m.root)] = bytes.Replace(m.blobs[m.root.Digest], []byte("layers"), []byte("Layers"), 1)
		}, "has other bytes than its digest says"},
		{"long manifest", func(f map[string][]byte) { f[blobFile(m.root)] = make([]byte, MaxManifest+1) }, "4194305 bytes, at most"},
		{"no manifest", func(f map[string][]byte) { delete(f, blobFile(m.root)) }, "manifest sha256:"},
		{"no index", func(f map[string][]byte) { delete(f, "index.json") }, "not an OCI image layout: no index.json"},
		{"no marker", func(f map[string][]byte) { delete(f, "oci-layout") }, "not an OCI image layout: no oci-layout"},
		{"odd version", func(f map[string][]byte) { f["oci-layout"] = []byte(`{"imageLayoutVersion":"2"}`) }, `version "2", not 1.0.0`},
		{"torn index", func(f map[string][]byte) { f["index.json"] = f["index.json"][:20] }, "index.json: "},
		{"no image", func(f map[string][]byte) { f["index.json"] = []byte(`{}`) }, "there is no image in it"},
		{"path for a digest", func(f map[string][]byte) {
			f["index.json"] = []byte(`{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`)
		}, "index.json: digest"},
		{"negative size", func(f map[string][]byte) {
			f["index.json"] = []byte(`{"manifests":[{"digest":"` + m.root.Digest.String() + `","size":-1}]}`)
		}, "index.json: size -1"},
	} {
		files := m.files()
		c.change(files)
		for kind, name := range everywhere(t, files) {
			t.Run(c.name+" in "+kind, func(t *testing.T) {
				i, err := Open(context.Background(), name, Options{})
				if err == nil {
					defer i.Close()
					_, err = read(i, m.layers[0], 0)
				}
				fails(t, err, c.want)
			})
		}
	}
}

// What is not a file of the layout is never opened, and never waited for.
func TestLayoutEscapes(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	m := newImg([]byte("out there"))
	if err := os.WriteFile(outside, []byte("out there"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(path string) error{
		"passwd":    func(path string) error { return os.Symlink("/etc/passwd", path) },
		"absolute":  func(path string) error { return os.Symlink(outside, path) },
		"relative":  func(path string) error { return os.Symlink("../../../../"+outside, path) },
		"loop":      func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		for _, victim := range []v1.Descriptor{m.layers[0], m.root} {
			t.Run(name, func(t *testing.T) {
				dir := writeDir(t, m.files())
				path := filepath.Join(dir, blobFile(victim))
				if err := errors.Join(os.Remove(path), place(path)); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					i, err := Open(context.Background(), "oci:"+dir, Options{})
					if err == nil {
						defer i.Close()
						_, err = read(i, m.layers[0], 0)
					}
					done <- err
				}()
				select {
				case err := <-done:
					fails(t, err, "")
				case <-time.After(10 * time.Second):
					t.Error("it waits")
				}
			})
		}
	}
	inside := writeDir(t, m.files()) // a link that stays in it is fine
	path := filepath.Join(inside, blobFile(m.layers[0]))
	if err := errors.Join(os.Rename(path, path+"x"), os.Symlink(filepath.Base(path)+"x", path)); err != nil {
		t.Fatal(err)
	}
	m.check(t, mustOpen(t, "oci:"+inside, Options{}))
}

// Names and links in a tar are only names in that tar.
func TestArchiveNames(t *testing.T) {
	m := newImg([]byte("a layer"))
	files := m.files()
	layer := blobFile(m.layers[0])
	without := func(name string) []tarEntry {
		f := m.files()
		delete(f, name)
		return regular(f)
	}
	open := func(t *testing.T, entries []tarEntry) error {
		i, err := Open(context.Background(), "oci-archive:"+writeFile(t, "a", asTar(entries...)), Options{})
		if err == nil {
			defer i.Close()
			_, err = read(i, m.layers[0], 0)
		}
		return err
	}
	file := func(name string) tarEntry {
		return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, data: files[layer]}
	}
	for name, e := range map[string][]tarEntry{
		"dot":           {file("./" + layer)},
		"link":          {link(layer, "../../other", tar.TypeSymlink), file("blobs/../other")},
		"link to links": {link(layer, "b", tar.TypeSymlink), link("blobs/sha256/b", "./c", tar.TypeSymlink), file("blobs/sha256/c")},
		"hard link":     {file("other"), link(layer, "other", tar.TypeLink)},
		"last of two":   {{Header: tar.Header{Name: layer, Typeflag: tar.TypeReg}, data: []byte("old")}, file(layer)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := open(t, append(without(layer), e...)); err != nil {
				t.Error(err)
			}
		})
	}
	for name, e := range map[string][]tarEntry{
		"above":          {file("../" + layer)},
		"absolute":       {file("/" + layer)},
		"link out":       {link(layer, "../../../../../../etc/passwd", tar.TypeSymlink)},
		"absolute link":  {link(layer, "/etc/passwd", tar.TypeSymlink)},
		"hard link out":  {link(layer, "/etc/passwd", tar.TypeLink)},
		"link to itself": {link(layer, filepath.Base(layer), tar.TypeSymlink)},
		"hard loop":      {link(layer, layer, tar.TypeLink)},
		"directory":      {link(layer+"/", "", tar.TypeDir)},
		"FIFO":           {link(layer, "", tar.TypeFifo)},
		"device":         {link(layer, "", tar.TypeChar)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := open(t, append(without(layer), e...)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error is %v", err)
			}
		})
	}
	for name, flag := range map[string]byte{"old sparse": 'S', "PAX sparse": 0} {
		t.Run(name, func(t *testing.T) {
			fails(t, open(t, nil), "no oci-layout")
			fails(t, openRaw(t, sparse(layer, flag)), "is a sparse file")
		})
	}
}

func openRaw(t *testing.T, raw []byte) error {
	a, err := openArchive(context.Background(), writeFile(t, "a", raw))
	if err == nil {
		a.Close()
	}
	return err
}

// sparse is a tar with a sparse file, as GNU tar writes it; archive/tar does not. flag is
// 'S', or 0 for the form with PAX records.
func sparse(name string, flag byte) []byte {
	const hole = "1\n4096\n4\n"
	pax := "28 GNU.sparse.realsize=8192\n" // each record says its length
	for _, r := range []string{"22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n"} {
		pax += r
	}
	if flag != 0 {
		raw := asTar(tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatGNU}, data: []byte("data")})
		copy(raw[386:], "00000010000\x0000000000004\x00") // offset and length of its one piece
		copy(raw[483:], "00000020000\x00")                // real size
		raw[156] = flag
		return sum(raw, 0)
	}
	raw := asTar(tarEntry{Header: tar.Header{Name: "pax", Typeflag: tar.TypeReg}, data: []byte(pax)},
		tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, data: append([]byte(hole), make([]byte, 512-len(hole)+4)...)})
	raw[156] = 'x'
	return sum(raw, 0)
}

// sum makes the checksum of the header at off right.
func sum(raw []byte, off int) []byte {
	h := raw[off : off+512]
	copy(h[148:], "        ")
	n := 0
	for _, c := range h {
		n += int(c)
	}
	copy(h[148:], strings.Join([]string{octal(n), "\x00 "}, ""))
	return raw
}

func octal(n int) string {
	s := ""
	for range 6 {
		s = string(rune('0'+n%8)) + s
		n /= 8
	}
	return s
}

// Names are kept in memory: there may not be too much of them.
func TestArchiveLongNames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := range 20 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(n, strings.Repeat("x", 1_000_000)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := openArchive(t.Context(), writeFile(t, "a.tar.gz", asGzip(b.Bytes())))
	fails(t, err, "names of more than")
}

// A long way through a compressed archive ends when nobody wants its end any more.
func TestArchiveSkip(t *testing.T) {
	t.Parallel()
	name := writeFile(t, "a.tar.gz", asGzip(asTar(regular(map[string][]byte{"a": noise(1 << 20), "b": []byte("x")})...)))
	a, err := openArchive(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := a.open(ctx, "b", 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	rc, _, err := a.open(t.Context(), "b", 0)
	if err != nil {
		t.Fatal(err)
	}
	rc.Close()
}
