package push

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// Files that are compressed, uncompressed, joined or taken apart on the server are sources as any others.
func TestAlteredSources(t *testing.T) {
	content := make([]byte, 1<<18+5)
	rand.NewChaCha8([32]byte{}).Read(content[:1<<17]) // and zeros behind
	var gz bytes.Buffer
	if err := compress(&gz, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o640); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", content)
	write("parts_0", content[:1000])
	write("parts_1", content[1000:])
	write("gz_0", gz.Bytes()[:77])
	write("gz_1", gz.Bytes()[77:])
	var thirds [][]byte
	for off := 0; off < len(content); off += 100_000 {
		thirds = append(thirds, content[off:min(off+100_000, len(content))])
	}
	for _, tt := range []struct {
		name string
		in   File
		want [][]byte
	}{
		{"compressed", File{Path: plain, Compress: true}, [][]byte{gz.Bytes()}},
		{"parts compressed", File{Path: filepath.Join(dir, "parts"), Parts: true, Compress: true}, [][]byte{gz.Bytes()}},
		{"parts", File{Path: filepath.Join(dir, "parts"), Parts: true}, [][]byte{content}},
		{"parts of gzip", File{Path: filepath.Join(dir, "gz"), Parts: true, Format: expand.Gzip}, [][]byte{content}},
		{"in parts", File{Path: plain, Each: 100_000}, thirds},
		{"a stream in parts", File{Path: filepath.Join(dir, "gz"), Parts: true, Format: expand.Gzip, Each: 100_000}, thirds},
		{"an empty file in parts", File{Path: write("empty", nil), Each: 100_000}, [][]byte{{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ringtest.TestSource(t, func(t *testing.T) ring.Source {
				m := &meta.Transfer{Kind: meta.KindRaw}
				s, err := tt.in.Open(t.Context(), &Push{}, m)
				if err != nil {
					t.Fatal(err)
				}
				if m.Split != (tt.in.Each > 0) || m.Mode != 0o640 {
					t.Errorf("%+v", m)
				}
				t.Cleanup(func() { s.(io.Closer).Close() })
				return s
			}, tt.want...)
		})
	}
	for _, tt := range []struct {
		in   File
		want string
	}{
		{File{Path: plain, Each: 250}, fmt.Sprintf("input %s: 1049 parts of 250 bytes, at most %d parts", plain, raw.MaxParts)},
		{File{Path: plain, Parts: true}, "input: stat " + plain + "_0: no such file or directory"},
	} {
		if _, err := tt.in.Open(t.Context(), &Push{}, &meta.Transfer{}); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// What is not gzip, is cut off or changes while it is compressed commits nothing.
func TestAlteredDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+"_0", []byte("no gzip at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(in File) ring.Source {
		s, err := in.Open(t.Context(), &Push{}, &meta.Transfer{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.(io.Closer).Close() })
		return s
	}
	s := open(File{Path: path, Parts: true, Format: expand.Gzip})
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], 0)
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("read what is no gzip")
	}
	for _, in := range []File{{Path: path + "_0", Compress: true}, {Path: path, Parts: true, Each: 3}} {
		s := open(in)
		if err := s.(ring.Unchanged).Unchanged(t.Context()); err != nil {
			t.Errorf("%+v: %v", in, err)
		}
		if err := os.Chtimes(path+"_0", time.Time{}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := s.(ring.Unchanged).Unchanged(t.Context()); err == nil {
			t.Errorf("%+v: a change was not noticed", in)
		}
		if err := os.Chtimes(path+"_0", time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

// A dummy run has as many bytes as it shall have, or lasts as long.
func TestDummy(t *testing.T) {
	read := func(d Dummy, most int64) (n int64, err error) {
		s, err := d.Open(t.Context(), nil, nil)
		if err != nil {
			return 0, err
		}
		defer s.(io.Closer).Close()
		blobs, _ := s.Blobs(t.Context())
		r, err := s.Open(t.Context(), blobs[0], 0)
		if err != nil {
			return 0, err
		}
		var zeros bytes.Buffer
		n, err = io.Copy(&zeros, io.LimitReader(r, most))
		if bytes.Count(zeros.Bytes(), make([]byte, 64)) > 0 {
			t.Error("runs of zeros, which are not sent")
		}
		return n, err
	}
	if n, err := read(Dummy{Bytes: 3<<20 + 7}, 1<<40); n != 3<<20+7 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &dummy{endless: true, time: 5 * time.Second}
		b := make([]byte, 1<<20)
		for range 3 {
			if n, err := d.Read(b); n == 0 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			time.Sleep(2 * time.Second)
		}
		if n, err := d.Read(b); n != 0 || err != io.EOF {
			t.Errorf("after 6 of 5 seconds: %d, %v", n, err)
		}
	})
}
