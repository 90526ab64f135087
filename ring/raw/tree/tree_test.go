package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// Whatever pieces a stream comes in, what it makes is what was sent, with everything that rsync can compare.
func TestRoundTrip(t *testing.T) {
	dir := plant(t)
	stream := streamOf(t, dir, Options{Special: true})
	for _, n := range []int{100, 4096, 1 << 20, len(stream)} {
		out, err := unpack(t, stream, n)
		if err != nil {
			t.Fatalf("in pieces of %d: %v", n, err)
		}
		sameTrees(t, dir, out)
		if again := streamOf(t, out, Options{Special: true}); !bytes.Equal(stream, again) {
			t.Error("the copy makes another stream")
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(dir+"/sparse", &a), unix.Lstat(out+"/sparse", &b)); err != nil || n >= 1<<20 && b.Blocks > a.Blocks+64 {
			t.Errorf("a sparse file of %d blocks has %d in the copy: %v", a.Blocks, b.Blocks, err)
		}
	}
}

// The stream is a tar for those who know nothing of it.
func TestStreamIsTar(t *testing.T) {
	dir := plant(t)
	stream := streamOf(t, dir, Options{Special: true})
	r := tar.NewReader(bytes.NewReader(stream))
	seen := 0
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "" {
			t.Error("an entry has no name")
		}
		seen++
	}
	s, err := Open(dir, Options{Special: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if seen != s.Entries() {
		t.Errorf("archive/tar has %d entries, want %d", seen, s.Entries())
	}
	loopdev.Need(t, "tar")
	out := t.TempDir()
	cmd := exec.Command("tar", "xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out)
	cmd.Stdin = bytes.NewReader(stream)
	if b, err := cmd.CombinedOutput(); err != nil { // it says which times it finds too old
		t.Fatalf("tar: %v\n%s", err, b)
	}
	sameTrees(t, dir, out)
}

func TestSource(t *testing.T) {
	dir := plant(t)
	ringtest.TestSource(t, func(t *testing.T) ring.Source {
		s, err := Open(dir, Options{Special: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}, streamOf(t, dir, Options{Special: true}))
}

// Each change of the tree between Open and Unchanged is an error of the one or of reading.
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"a byte":         func(d string) error { return os.WriteFile(d+"/a/b/c/deep", []byte("DEEP"), 0o600) },
		"a longer file":  func(d string) error { return os.WriteFile(d+"/empty", []byte("1"), 0o600) },
		"a shorter file": func(d string) error { return os.Truncate(d+"/large", 5) },
		"a new file":     func(d string) error { return os.WriteFile(d+"/nothing/new", nil, 0o600) },
		"a removed file": func(d string) error { return os.Remove(d + "/many/f27") },
		"a mode":         func(d string) error { return os.Chmod(d+"/a", 0o700) },
		"an attribute":   func(d string) error { return unix.Setxattr(d+"/a", "user.dir", []byte("e"), 0) },
		"another link":   func(d string) error { return errors.Join(os.Remove(d+"/a/link"), os.Symlink("x", d+"/a/link")) },
		"a link for a file": func(d string) error {
			return errors.Join(os.Remove(d+"/large"), os.Symlink("/etc/passwd", d+"/large"))
		},
		"another directory": func(d string) error {
			return errors.Join(os.Rename(d+"/many", d+"/a/many"), os.Mkdir(d+"/many", 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := plant(t)
			s, err := Open(dir, Options{Special: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			before := s.Mark()
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			blobs, _ := s.Blobs(t.Context())
			r, err := s.Open(t.Context(), blobs[0], 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_, rerr := io.Copy(io.Discard, r)
			uerr := s.Unchanged(t.Context())
			if kind, _ := errkind.Of(uerr); kind != "input-changes" {
				t.Errorf("unchanged: %v", uerr)
			}
			if kind, _ := errkind.Of(rerr); rerr != nil && kind != "input-changes" && kind != "input-unreadable" {
				t.Errorf("read: %v", rerr)
			}
			again, err := Open(dir, Options{Special: true})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if again.Mark() == before {
				t.Error("the mark is the same")
			}
		})
	}
}

func TestExclude(t *testing.T) {
	dir := plant(t)
	for _, tt := range []struct {
		exclude []string
		gone    []string // of the names that are looked at
	}{
		{[]string{"many", "päth/"}, []string{"many", "many/f1", "päth"}},
		{[]string{"f1*"}, []string{"many/f1", "many/f11"}},
		{[]string{"/a/b"}, []string{"a/b", "a/b/c"}},
		{[]string{"b/c/"}, []string{"a/b/c"}},
		{[]string{"/b/c", "/f1", "empty/", "*/f1/"}, nil},
		{[]string{"a/b.txt"}, []string{"a/b.txt"}}, // its other names stay, as one file
		{[]string{"/*"}, []string{"a", "a/b", "a/b/c", "a/b.txt", "empty", "many", "many/f1", "many/f11", "päth", "z"}},
	} {
		out, err := unpack(t, streamOf(t, dir, Options{Special: true, Exclude: tt.exclude}), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "a/b", "a/b/c", "a/b.txt", "empty", "many", "many/f1", "many/f11", "päth", "z"} {
			_, err := os.Lstat(filepath.Join(out, name))
			if gone := slices.Contains(tt.gone, name) || slices.Contains(tt.gone, filepath.Dir(name)); gone == (err == nil) {
				t.Errorf("%q: %s is gone: %v, want %v", tt.exclude, name, !gone, gone)
			}
		}
		if len(tt.gone) > 0 && tt.gone[0] != "a/b.txt" {
			var args []string
			for _, p := range tt.exclude {
				args = append(args, "--exclude="+p, "--delete-excluded")
			}
			sameTrees(t, dir, out, args...)
		}
	}
	for _, wrong := range []string{"", "/", "a/**", "[", "a//b", "./a", ".."} {
		if CheckExclude([]string{wrong}) == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestRefusedSource(t *testing.T) {
	special := t.TempDir()
	if err := unix.Mkfifo(special+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	deep := t.TempDir()
	if err := os.MkdirAll(deep+strings.Repeat("/d", maxDepth+1), 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]errkind.Kind{
		special: "input-special", deep: "input-entry", "/proc/self": "input-kernel",
		filepath.Join(special, "none"): "input-missing", filepath.Join(special, "pipe"): "input-unreadable",
	} {
		s, err := Open(dir, Options{})
		if err == nil {
			s.Close()
		}
		if kind, _ := errkind.Of(err); kind != want {
			t.Errorf("%s: %v, want %s", dir, err, want)
		}
	}
}
