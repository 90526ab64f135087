package tree

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// plant makes a directory with one of everything that a user may have, and as root also what only root can make.
func plant(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(os.WriteFile(at(name), []byte(text), 0o600))
		must(os.Chmod(at(name), mode))
	}
	must(os.Mkdir(dir, 0o751))
	write("empty", "", 0o644)
	write("a/b/c/deep", "deep", 0o400)
	write("a/b.txt", strings.Repeat("x", 512), 0o644)
	write("a/set", "set", 0o755|os.ModeSetuid|os.ModeSetgid)
	write("new\nline 'and' \"quotes\" \xff\xfe", "odd", 0o640)
	write("päth/"+strings.Repeat("ü", 120), "long", 0o640)
	write(strings.Repeat(strings.Repeat("d", 200)+"/", 8)+"end", "far", 0o604)
	write("large", strings.Repeat("large ", 1<<15), 0o644)
	for i := range 30 {
		write(fmt.Sprintf("many/f%d", i), strings.Repeat("y", i*7), 0o644)
	}
	must(os.Mkdir(at("nothing"), 0o1777))
	must(os.Chmod(at("nothing"), 0o777|os.ModeSticky))
	must(os.Symlink("../out/of/it", at("a/link")))
	must(os.Symlink("/etc/"+strings.Repeat("long/", 60), at("a/long")))
	must(os.Link(at("a/b.txt"), at("z")))
	must(os.Link(at("a/b.txt"), at("a/again")))
	sparse, err := os.Create(at("sparse"))
	must(err)
	must(sparse.Truncate(1<<20 + 77))
	_, err = sparse.WriteAt([]byte("in the middle"), 1<<19+5)
	must(err)
	must(sparse.Close())
	must(unix.Setxattr(at("a/b.txt"), "user.note", []byte("with\x00zero and\nline"), 0))
	must(unix.Setxattr(at("a"), "user.dir", []byte("d"), 0))
	if os.Geteuid() == 0 {
		must(os.Lchown(at("a/link"), 12, 34))
		must(os.Chown(at("empty"), 3_000_000_000, 4_000_000))
		must(os.Chown(at("many"), 1, 2))
		must(unix.Setxattr(at("large"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		must(unix.Setxattr(at("a"), "system.posix_acl_default", acl(1, 2), 0))
		must(unix.Setxattr(at("z"), "system.posix_acl_access", acl(3, 4), 0))
		must(unix.Mknod(at("a/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	must(unix.Mkfifo(at("a/pipe"), 0o620))
	old := time.Unix(-1, 300)
	must(os.Chtimes(at("large"), old, old))
	must(os.Chtimes(at("a/b/c"), time.Unix(7, 8), time.Unix(9, 123456789)))
	must(os.Chtimes(dir, time.Unix(7, 8), time.Unix(1e9, 0)))
	return dir
}

// acl is an access control list with an entry for a user and one for a group, as linux/posix_acl_xattr.h has it.
func acl(user, group byte) []byte {
	entry := func(tag, perm, id byte) string { return string([]byte{tag, 0, perm, 0, id, 0, 0, 0}) }
	undefined := "\xff\xff\xff\xff"
	return []byte("\x02\x00\x00\x00" +
		"\x01\x00\x06\x00" + undefined + entry(2, 4, user) + "\x04\x00\x04\x00" + undefined +
		entry(8, 5, group) + "\x10\x00\x07\x00" + undefined + "\x20\x00\x00\x00" + undefined)
}

// sameTrees fails unless rsync would change nothing to make the directory to like from.
func sameTrees(t *testing.T, from, to string, more ...string) {
	t.Helper()
	loopdev.Need(t, "rsync")
	args := append([]string{"-aHAXni", "--delete", "--checksum"}, more...)
	out, err := exec.Command("rsync", append(args, from+"/", to+"/")...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("rsync: %v, it would change\n%s", err, out)
	}
	// What rsync compares to the second it compares exactly here.
	if len(more) > 0 {
		return
	}
	if a, b := listing(t, from), listing(t, to); a != b {
		t.Errorf("times differ:\n%s", firstDifference(a, b))
	}
}

// listing has each name with its mode, size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		size := info.Size()
		if info.IsDir() {
			size = 0
		}
		fmt.Fprintf(&b, "%q %v %d %d\n", rel, info.Mode(), size, info.ModTime().UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i] + "\n" + y[i]
		}
	}
	return "one is longer"
}

// streamOf returns the stream of a directory.
func streamOf(t *testing.T, dir string, o Options) []byte {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != s.Size() || blobs[0].Size != s.Size() {
		t.Fatalf("read %d bytes of %d, %v", len(b), s.Size(), err)
	}
	if err := s.Unchanged(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// unpack unpacks a stream into a new directory, in pieces of n bytes, runs of zeros as such.
func unpack(t testing.TB, stream []byte, n int) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "unpacked")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := newExtractor(top, "unpacked", true, nil)
	defer x.close()
	for len(stream) > 0 {
		b := stream[:min(n, len(stream))]
		stream = stream[len(b):]
		if len(bytes.Trim(b, "\x00")) == 0 {
			err = x.zero(int64(len(b)))
		} else {
			err = x.write(b)
		}
		if err != nil {
			return dir, err
		}
	}
	if err := x.finish(); err != nil {
		return dir, err
	}
	err = x.dress(x.dirs[0].fd, x.top, new(unix.Stat_t))
	return dir, err
}
