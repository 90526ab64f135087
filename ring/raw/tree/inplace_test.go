package tree

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// inPlace is a place where files are replaced one by one, and where these files are, with their names as bytes.
func inPlace(t *testing.T, files ...string) *place {
	t.Helper()
	p := newPlace(t)
	p.o.InPlace = true
	for _, name := range files {
		name = filepath.Join(p.out, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// put sends a directory, and returns all errors.
func (p *place) put(t *testing.T, entries ...*entry) error {
	t.Helper()
	sink := p.target(t)
	return errors.Join(send(t.Context(), sink, streamWith(entries...)), sink.Close())
}

// In place everything of the stream is there in the end, with its attributes, and what else was there stays. Directories that were
// there have the attributes of the new ones, and let nobody do more. No link is followed.
func TestInPlace(t *testing.T) {
	p := inPlace(t, "same/old", "same/other", "own/file")
	outside := t.TempDir()
	if err := errors.Join(os.Symlink(outside, p.out+"/same/link"), os.Link(p.out+"/same/old", p.out+"/same/twin")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "same"} {
		for _, list := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			if err := unix.Setxattr(filepath.Join(p.out, name), list, acl(1, 2), 0); err != nil && err != unix.ENOTSUP {
				t.Fatal(err)
			}
		}
	}
	dir := func(path string) *entry {
		e := &entry{path: path, kind: typeDir, mode: 0o751, sec: 1e9, nsec: 7}
		if os.Geteuid() == 0 {
			e.uid, e.gid = 12, 34
		} else {
			e.uid, e.gid = uint32(os.Geteuid()), uint32(os.Getegid())
		}
		return e
	}
	entries := []*entry{dir("."), dir("new"), fileEntry("new/file"), dir("same"), fileEntry("same/link"), fileEntry("same/old"),
		linkEntry(typeHardLink, "same/second", "same/old")}
	for _, e := range entries {
		if e.kind == typeFile && os.Geteuid() != 0 {
			e.uid, e.gid = uint32(os.Geteuid()), uint32(os.Getegid())
		}
	}
	for range 2 { // the second time everything is there
		if err := p.put(t, entries...); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".", "new", "same"} {
			var st unix.Stat_t
			want := dir(name)
			if err := unix.Lstat(filepath.Join(p.out, name), &st); err != nil || st.Mode&0o7777 != want.mode || st.Uid != want.uid || st.Gid != want.gid || st.Mtim.Sec != want.sec || st.Mtim.Nsec != int64(want.nsec) {
				t.Errorf("%s: %v, %+v", name, err, st)
			}
			for _, list := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
				if n, err := unix.Getxattr(filepath.Join(p.out, name), list, nil); err == nil {
					t.Errorf("%s: has %s of %d bytes, which the new one does not have", name, list, n)
				}
			}
		}
		for name, want := range map[string]string{"new/file": "xxxxx", "same/link": "xxxxx", "same/old": "xxxxx", "same/second": "xxxxx",
			"same/twin": p.out + "/same/old", "same/other": p.out + "/same/other", "own/file": p.out + "/own/file"} {
			if b, err := os.ReadFile(filepath.Join(p.out, name)); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		if names := namesBelow(t, p.dir); names[0] != "out" || len(namesBelow(t, outside)) > 0 {
			t.Errorf("beside it %q, where the link led to %q", names, namesBelow(t, outside))
		}
	}
}

// What would have to be removed, and what cannot be renamed to, is refused before anything is changed.
func TestInPlaceRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		mount bool
		entry *entry
		want  string
	}{
		"a file in place of a directory": {false, fileEntry("m"), "/m would have to be removed"},
		"a directory in place of a file": {false, dirEntry("z"), "/z would have to be removed"},
		"something is mounted there":     {true, dirEntry("m"), "mounted at "},
		"something is mounted elsewhere": {true, fileEntry("n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := inPlace(t, "a", "m/file", "z")
			if tt.mount {
				if os.Geteuid() != 0 {
					t.Skip("only root can mount")
				}
				if err := unix.Mount(p.out+"/m", p.out+"/m", "", unix.MS_BIND, ""); err != nil {
					loopdev.Cannot(t, "cannot mount here: %v", err)
				}
				defer unix.Unmount(p.out+"/m", unix.MNT_DETACH)
			}
			err := p.put(t, top(), fileEntry("a"), tt.entry)
			b, _ := os.ReadFile(p.out + "/a")
			if refused := tt.want != ""; refused != (err != nil) || refused && (!strings.Contains(err.Error(), tt.want) || string(b) == "xxxxx") {
				t.Errorf("%v, and there is %q", err, b)
			}
			if names := namesBelow(t, p.dir); names[0] != "out" {
				t.Errorf("left %q", names)
			}
		})
	}
	p := inPlace(t, "a")
	p.o.Place.Overwrite = false
	if err := p.put(t, top(), fileEntry("a")); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("against the policy: %v", err)
	}
}

// Where it breaks off, the error says that the directory is partly the new one. The next transfer goes through.
func TestInPlacePartly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file that nobody can replace")
	}
	p := inPlace(t, "a", "m", "z")
	fixed, err := os.Open(p.out + "/m")
	if err != nil {
		t.Fatal(err)
	}
	defer fixed.Close()
	flags := func(to int) error { return unix.IoctlSetPointerInt(int(fixed.Fd()), unix.FS_IOC_SETFLAGS, to) }
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	if err := flags(immutable); err != nil {
		loopdev.Cannot(t, "no file here that nobody can replace: %v", err)
	}
	defer func() { _ = flags(0) }()
	all := []*entry{top(), fileEntry("a"), fileEntry("m"), fileEntry("z")}
	if err := p.put(t, all...); err == nil || !strings.Contains(err.Error(), "is partly the new one, 1 of 3 names were replaced") {
		t.Errorf("%v", err)
	}
	z, _ := os.ReadFile(p.out + "/z")
	if a, err := os.ReadFile(p.out + "/a"); string(a) != "xxxxx" || string(z) == "xxxxx" || err != nil {
		t.Errorf("%q, %q, %v", a, z, err)
	}
	if err := errors.Join(flags(0), p.put(t, all...)); err != nil {
		t.Error(err)
	}
	if names := namesBelow(t, p.dir); len(names) != 1 {
		t.Errorf("there is %q", names)
	}
}
