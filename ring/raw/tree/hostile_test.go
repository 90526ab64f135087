package tree

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// streamWith is the stream of these entries, each file with so many bytes as it says.
func streamWith(entries ...*entry) []byte {
	var b []byte
	for _, e := range entries {
		b = e.encode(b)
		b = append(b, bytes.Repeat([]byte("x"), int(e.size))...)
		b = append(b, make([]byte, padding(e.size))...)
	}
	return append(b, make([]byte, trailer)...)
}

func top() *entry { return &entry{path: ".", kind: typeDir, mode: 0o755} }

func dirEntry(p string) *entry { return &entry{path: p, kind: typeDir, mode: 0o755} }

func fileEntry(p string) *entry { return &entry{path: p, kind: typeFile, mode: 0o644, size: 5} }

func linkEntry(kind byte, p, to string) *entry { return &entry{path: p, kind: kind, link: to} }

// hostile are streams that no directory makes. Each would leave what is unpacked, or make it something else than what was
// hashed.
func hostile() map[string][]byte {
	all := map[string][]byte{
		"out by dots":          streamWith(top(), fileEntry("../out")),
		"out by dots below":    streamWith(top(), dirEntry("a"), fileEntry("a/../../out")),
		"absolute":             streamWith(top(), fileEntry("/tmp/out")),
		"a dot":                streamWith(top(), fileEntry("./a")),
		"two slashes":          streamWith(top(), dirEntry("a"), fileEntry("a//b")),
		"through a link":       streamWith(top(), linkEntry(typeSymlink, "a", ".."), fileEntry("a/out")),
		"through a link twice": streamWith(top(), linkEntry(typeSymlink, "a", ".."), dirEntry("a"), fileEntry("a/out")),
		"hard link out":        streamWith(top(), linkEntry(typeHardLink, "a", "../canary")),
		"hard link through":    streamWith(top(), linkEntry(typeSymlink, "a", ".."), linkEntry(typeHardLink, "b", "a/canary")),
		"hard link to nothing": streamWith(top(), linkEntry(typeHardLink, "a", "b")),
		"hard link to a dir":   streamWith(top(), dirEntry("a"), linkEntry(typeHardLink, "b", "a")),
		"hard link to itself":  streamWith(top(), linkEntry(typeHardLink, "a", "a")),
		"twice":                streamWith(top(), fileEntry("a"), fileEntry("a")),
		"not sorted":           streamWith(top(), fileEntry("b"), fileEntry("a")),
		"no parent":            streamWith(top(), fileEntry("a/b")),
		"parent is a file":     streamWith(top(), fileEntry("a"), fileEntry("a/b")),
		"left directory":       streamWith(top(), dirEntry("a"), dirEntry("b"), fileEntry("a/c")),
		"no top":               streamWith(fileEntry("a")),
		"top twice":            streamWith(top(), top()),
		"top is a link":        streamWith(linkEntry(typeSymlink, ".", "/tmp")),
		"long name":            streamWith(top(), fileEntry(strings.Repeat("n", 256))),
		"long path":            streamWith(top(), fileEntry(strings.Repeat("n/", 2100)+"n")),
		"zero in a name":       streamWith(top(), fileEntry("a\x00b")),
		"no such type":         streamWith(top(), &entry{path: "a", kind: 'S', mode: 0o644}),
		"a mode too many":      streamWith(top(), &entry{path: "a", kind: typeFile, mode: 0o170644}),
		"attributes of link":   streamWith(top(), fileEntry("a"), &entry{path: "b", kind: typeHardLink, link: "a", xattrs: []xattr{{"user.a", "b"}}}),
		"attribute twice":      streamWith(top(), &entry{path: "a", kind: typeFile, xattrs: []xattr{{"user.a", "b"}, {"user.a", "c"}}}),
		"owner left alone":     streamWith(top(), &entry{path: "a", kind: typeFile, uid: 1<<32 - 1}),
		"group left alone":     streamWith(top(), &entry{path: "a", kind: typeSymlink, link: "b", gid: 1<<32 - 1}),
		"cut off":              streamWith(top(), fileEntry("a"))[:2500],
		"no end":               streamWith(top(), fileEntry("a"))[:4*block+block],
		"more behind":          append(streamWith(top()), streamWith(top())...),
		"more zeros":           append(streamWith(top()), make([]byte, block)...),
		"nothing":              {},
		"only the end":         make([]byte, trailer),
	}
	if os.Geteuid() != 0 {
		delete(all, "hard link to a dir") // the kernel says the same for another reason
	}
	dirty := streamWith(top(), fileEntry("a"))
	dirty[len(dirty)-trailer-1] = 1
	all["no zeros behind a file"] = dirty
	sum := streamWith(top())
	sum[148]++
	all["wrong checksum"] = sum
	sparse := &entry{path: "a", kind: typeFile, xattrs: []xattr{{"user.x", "y"}}}
	all["sparse map"] = bytes.Replace(streamWith(top(), sparse), []byte("SCHILY.xattr.user.x=y"), []byte("GNU.sparse.map=000000"), 1)
	all["records out of order"] = bytes.Replace(streamWith(top(), &entry{path: "a", kind: typeFile, uid: 3_000_000, gid: 4_000_000}),
		[]byte("gid="), []byte("uid="), 1)
	all["an unknown record"] = bytes.Replace(all["records out of order"], []byte("uid="), []byte("xyz="), 1)
	return all
}

// No stream makes anything outside, or is unpacked without an error, unless it is in the one form.
func TestHostileStream(t *testing.T) {
	for name, stream := range hostile() {
		t.Run(name, func(t *testing.T) {
			dir, err := unpack(t, stream, 1<<20)
			if err == nil {
				t.Error("was unpacked")
			}
			outside(t, dir)
		})
	}
}

// outside fails if anything is beside the directory.
func outside(t testing.TB, dir string) {
	t.Helper()
	names, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(names) != 1 {
		t.Errorf("beside it: %v, %v", names, err)
	}
}

// Devices and pipes are made only where they are asked for, and a device gets its mode without being opened.
func TestSpecial(t *testing.T) {
	stream := streamWith(top(), &entry{path: "p", kind: typeFIFO, mode: 0o604})
	dir, err := unpack(t, stream, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/p", &st); err != nil || st.Mode != unix.S_IFIFO|0o604 {
		t.Errorf("%o, %v", st.Mode, err)
	}
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := newExtractor(fd, "x", false, nil)
	defer x.close()
	if err := x.write(stream); err == nil {
		t.Error("a pipe was made that nobody asked for")
	}
}

// Whatever comes is refused or makes a directory, and nothing outside of it.
func FuzzExtract(f *testing.F) {
	f.Add(streamWith(top(), dirEntry("a"), fileEntry("a/b"), linkEntry(typeHardLink, "a/c", "a/b"), linkEntry(typeSymlink, "d", "a/b")), 512)
	f.Add(streamWith(top(), &entry{path: "a", kind: typeFile, mode: 0o600, size: 1, sec: -5, nsec: 7, xattrs: []xattr{{"user.a", "\x00"}}}), 1<<20)
	f.Fuzz(func(t *testing.T, stream []byte, n int) {
		if n <= 0 {
			n = 1
		}
		dir, err := unpack(t, stream, n)
		outside(t, dir)
		if err != nil {
			return
		}
		s, err := Open(dir, Options{Special: true})
		if err != nil {
			t.Fatalf("what was unpacked cannot be sent: %v", err)
		}
		s.Close()
	})
}

// FuzzEntry: what decodes has one form only, and all that can be encoded decodes to itself.
func FuzzEntry(f *testing.F) {
	for _, e := range []*entry{top(), fileEntry("a"), {path: "b", kind: typeSymlink, link: "x", uid: 1 << 31, sec: -1, nsec: 5}} {
		f.Add(e.encode(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2*block {
			return
		}
		var e entry
		if _, err := decode(b, &e, nil); err != nil {
			return
		}
		if !bytes.Equal(e.encode(nil), b) {
			t.Error("another form")
		}
	})
}
