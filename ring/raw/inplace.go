package raw

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// InPlace has Publish move what is in the part directory into the one that is there, name by name, in place of exchanging the
// two: for file systems that cannot do that, and for directories that have more in them. Each file is replaced in one step, and
// nothing that the part does not have is removed. If that is interrupted, the directory is partly the new one.
func (t *Tree) InPlace() { t.all.inPlace = true }

// merger moves what is in one directory into another one of the same file system. It goes through no link.
type merger struct {
	title string
	dev   uint64 // of both
	names int    // to be moved
	moved int
}

// merge puts what is in the part into the directory that is there, which was old.
func (t *Tree) merge(old fs.FileInfo) error {
	t.durable = false // what is left of the part cannot be published again
	return t.intoStanding(old, func(m *merger, from, standing *os.File) error {
		err := m.move(from, standing, ".")
		if err == nil {
			err = dropACLs(int(from.Fd()), int(standing.Fd())) // from has none; dress gives those that the new one is to have
		}
		if err == nil {
			err = t.all.dress(standing)
		}
		if serr := unix.Syncfs(int(standing.Fd())); err == nil {
			err = serr
		}
		if err != nil {
			return errkind.Errorf("output-partly", "output %s: is partly the new one, %d of %d names were replaced: %w", t.t.title, m.moved, m.names, err)
		}
		return t.t.settle(durable.NewFile(standing))
	})
}

// intoStanding calls do with the part and the directory that is there, unless something could not be moved from one to the other.
func (t *Tree) intoStanding(old fs.FileInfo, do func(m *merger, from, standing *os.File) error) error {
	from, err := dup(t.d)
	if err != nil {
		return t.t.fail("part directory", err)
	}
	defer from.Close()
	standing, err := t.t.openDir(t.t.name, old)
	if err != nil {
		return t.t.fail("open it", err)
	}
	defer standing.Close()
	m, err := t.mergeable(from, standing)
	if err != nil {
		return err
	}
	return do(m, from, standing)
}

// mergeable returns an error for what could not be moved, before anything is.
func (t *Tree) mergeable(from, standing *os.File) (*merger, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return nil, t.t.fail("part directory", err)
	}
	m := &merger{title: t.t.title, dev: st.Dev}
	if err := unix.Fstat(int(standing.Fd()), &st); err != nil {
		return nil, t.t.fail("look at it", err)
	}
	if st.Dev != m.dev {
		return nil, subvolume(t.t.title, ".")
	}
	err := t.mountedOn(func(rel string) bool {
		var st unix.Stat_t
		return unix.Fstatat(int(from.Fd()), rel, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	})
	if err == nil {
		err = m.check(from, standing, ".")
	}
	return m, err
}

// mountedOn returns an error if something is mounted on a path in the directory that is there for which on returns true.
// Nothing can be renamed to there.
func (t *Tree) mountedOn(on func(rel string) bool) error {
	all, err := t.t.mountsIn(t.t.name)
	if err != nil {
		return err
	}
	for _, rel := range all {
		if on(rel) {
			return t.t.mounted(rel)
		}
	}
	return nil
}

// ownDevice returns an error if the directory that is there has another device number than the one in which it is, though nothing is
// mounted on it.
func (t *Tree) ownDevice() error {
	in, err := t.t.fs.Lstat(".")
	if err != nil {
		return t.t.fail("look at its directory", err)
	}
	standing, err := t.t.look(t.t.name)
	if err != nil {
		return t.t.fail("look at it", err)
	}
	if stat(in).Dev != stat(standing).Dev {
		return subvolume(t.t.title, ".")
	}
	return nil
}

// subvolume is the error of a directory to which nothing can be renamed from outside, as Btrfs has them.
func subvolume(title, rel string) error {
	return errkind.Errorf("output-subvolume", "output %s: %s is a subvolume, to which files cannot be moved from outside of it", title, path.Join(title, rel))
}

// pair is a name in the directory from which things are moved, and what has it in the other one.
type pair struct {
	name, rel string
	new, old  uint32 // types and modes; 0 is nothing
	dev       uint64 // of the old one
}

func (p *pair) dirs() bool {
	return p.new&unix.S_IFMT == unix.S_IFDIR && p.old&unix.S_IFMT == unix.S_IFDIR
}

// each calls visit for each name in from, in their order.
func (m *merger) each(from, to *os.File, rel string, visit func(p *pair) error) error {
	again, err := openIn(from, ".")
	if err != nil {
		return m.fail(rel, err)
	}
	defer again.Close()
	names, err := again.Readdirnames(-1)
	if err != nil {
		return m.fail(rel, err)
	}
	slices.Sort(names)
	for _, name := range names {
		p := &pair{name: name, rel: path.Join(rel, name)}
		var st unix.Stat_t
		if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return m.fail(p.rel, err)
		}
		p.new = st.Mode
		switch err := unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil:
			p.old, p.dev = st.Mode, st.Dev
		case !errors.Is(err, unix.ENOENT):
			return m.fail(p.rel, err)
		}
		if err := visit(p); err != nil {
			return err
		}
	}
	return nil
}

// check counts what is to be moved, and refuses what cannot be.
func (m *merger) check(from, to *os.File, rel string) error {
	may := errors.Join(writable(from), writable(to))
	return m.each(from, to, rel, func(p *pair) error {
		m.names++
		isDir := p.new&unix.S_IFMT == unix.S_IFDIR
		switch {
		case p.old != 0 && p.dev != m.dev:
			return subvolume(m.title, p.rel)
		case p.old != 0 && isDir != (p.old&unix.S_IFMT == unix.S_IFDIR):
			return errkind.Errorf("output-in-place", "output %s: %s would have to be removed, since one of the two is a directory and the other is not",
				m.title, path.Join(m.title, p.rel))
		case p.dirs():
			return m.both(from, to, p, m.check)
		case isDir && os.Geteuid() != 0 && p.new&0o200 == 0:
			return m.fail(p.rel, errors.New("only root can move a directory that its owner may not write to"))
		}
		return m.fail(p.rel, may)
	})
}

// writable returns an error unless names in a directory may be replaced: a user who is not root may have directories which he may
// not write to.
func writable(dir *os.File) error {
	return unix.Faccessat(int(dir.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// move moves all of it.
func (m *merger) move(from, to *os.File, rel string) error {
	return m.each(from, to, rel, func(p *pair) error {
		var err error
		if p.dirs() {
			err = m.both(from, to, p, func(a, b *os.File, rel string) error {
				var want unix.Stat_t // before its time changes, because things are moved from it
				if err := unix.Fstat(int(a.Fd()), &want); err != nil {
					return m.fail(rel, err)
				}
				if err := m.move(a, b, rel); err != nil {
					return err
				}
				return m.fail(rel, like(&want, a, b))
			})
		} else {
			err = m.fail(p.rel, unix.Renameat(int(from.Fd()), p.name, int(to.Fd()), p.name))
		}
		if err == nil {
			m.moved++
		}
		return err
	})
}

// both opens two directories of one name, and calls do for them.
func (m *merger) both(from, to *os.File, p *pair, do func(from, to *os.File, rel string) error) error {
	a, err := openIn(from, p.name)
	if err != nil {
		return m.fail(p.rel, err)
	}
	defer a.Close()
	b, err := openIn(to, p.name)
	if err != nil {
		return m.fail(p.rel, err)
	}
	defer b.Close()
	return do(a, b, p.rel)
}

// fail says what happened to which path, if anything did.
func (m *merger) fail(rel string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("output %s: %s: %w", m.title, path.Join(m.title, rel), err)
}

// openIn opens a directory in an open one.
func openIn(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// like gives directory b the extended attributes of a, and the owner, the mode and the time in want. Everything goes through the open
// directory, whose name may be another's by now.
func like(want *unix.Stat_t, a, b *os.File) error {
	var have unix.Stat_t
	if err := unix.Fstat(int(b.Fd()), &have); err != nil {
		return err
	}
	if want.Uid != have.Uid || want.Gid != have.Gid {
		if err := unix.Fchown(int(b.Fd()), int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	}
	if err := dropACLs(int(a.Fd()), int(b.Fd())); err != nil {
		return err
	}
	if err := sameAttributes(int(a.Fd()), int(b.Fd())); err != nil {
		return err
	}
	if err := unix.Fchmod(int(b.Fd()), want.Mode&0o7777); err != nil {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, want.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(b.Fd())), times, 0)
}

// acls are the extended attributes that have access control lists.
var acls = []string{"system.posix_acl_default", "system.posix_acl_access"}

// dropACLs removes from b the access control lists that a does not have. They would let others do what the mode of a does not.
func dropACLs(a, b int) error {
	has := func(fd int, name string) bool {
		n, err := unix.Fgetxattr(fd, name, nil)
		return err == nil && n > 0
	}
	for _, name := range acls {
		if has(a, name) || !has(b, name) {
			continue
		}
		if err := unix.Fremovexattr(b, name); err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// sameAttributes gives b the extended attributes of a that it does not have, or has with another value.
func sameAttributes(a, b int) error {
	list := make([]byte, 64<<10) // the most that Linux lists, and the longest value
	n, err := unix.Flistxattr(a, list)
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	value, other := make([]byte, 64<<10), make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		n, err := unix.Fgetxattr(a, name, value)
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
		if k, err := unix.Fgetxattr(b, name, other); err == nil && bytes.Equal(value[:n], other[:k]) {
			continue
		}
		if err := unix.Fsetxattr(b, name, value[:n], 0); err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
