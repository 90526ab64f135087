package tree

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// ids returns whom an entry belongs to, and whether that differs from whom it was made for.
func (x *extractor) ids(e *entry) (uid, gid uint32, change bool) {
	uid, gid = e.uid, e.gid
	if x.owner != nil && x.owner.UID >= 0 {
		uid = uint32(x.owner.UID)
	}
	if x.owner != nil && x.owner.GID >= 0 {
		gid = uint32(x.owner.GID)
	}
	return uid, gid, uid != x.uid || gid != x.gid
}

// times are those of an entry. The time of the last access is left as it is.
func (e *entry) times() []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.sec, Nsec: int64(e.nsec)}}
}

// dress gives an open file or directory its owner, extended attributes, time and mode, in the order in which none of them
// takes back another one. What the file system says then is put into st.
func (x *extractor) dress(fd int, e *entry, st *unix.Stat_t) error {
	if uid, gid, change := x.ids(e); change {
		if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
			return notOwner(uid, gid, err)
		}
	}
	for _, a := range e.xattrs {
		if err := unix.Fsetxattr(fd, a.name, []byte(a.value), 0); err != nil {
			return attribute(a.name, err)
		}
	}
	if err := utimens(fd, e.times()); err != nil {
		return err
	}
	err := unix.Fstat(fd, st)
	if err == nil && st.Mode&0o7777 != e.mode {
		if err = unix.Fchmod(fd, e.mode); err != nil {
			return permissions(e.mode, err)
		}
		err = unix.Fstat(fd, st)
	}
	return err
}

// dressOpen is dress, and notes it.
func (x *extractor) dressOpen(fd int, e *entry) error {
	var st unix.Stat_t
	if err := x.dress(fd, e, &st); err != nil {
		return err
	}
	return x.note(e, &st)
}

// dressName is dress for what cannot be opened, and notes it.
func (x *extractor) dressName(dir int, name string, e *entry) error {
	if uid, gid, change := x.ids(e); change {
		if err := unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return notOwner(uid, gid, err)
		}
	}
	if e.kind != typeSymlink {
		if err := unix.Fchmodat(dir, name, e.mode, 0); err != nil {
			return permissions(e.mode, err)
		}
	}
	for _, a := range e.xattrs {
		if err := unix.Lsetxattr(at(dir, name), a.name, []byte(a.value), 0); err != nil {
			return attribute(a.name, err)
		}
	}
	if err := unix.UtimesNanoAt(dir, name, e.times(), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return x.note(e, &st)
}

func notOwner(uid, gid uint32, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return errkind.Errorf("output-tree-owner", "owner %d:%d: %w", uid, gid, err)
	}
	return err
}

// permissions is why a mode was not given. The unit of a daemon keeps it from what output-tree-rights is about, unless a
// drop-in permits it.
func permissions(mode uint32, err error) error {
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && errors.Is(err, unix.EPERM) {
		return errkind.Errorf("output-tree-rights", "set-user-ID or set-group-ID, mode %o: %w", mode, err)
	}
	return err
}

func attribute(name string, err error) error {
	if name == "security.capability" && errors.Is(err, unix.EPERM) {
		return errkind.Errorf("output-tree-rights", "capabilities, extended attribute %s: %w", name, err)
	}
	return errkind.Errorf("output-tree-xattr", "extended attribute %s: %w", name, err)
}
