package raw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// wholeTree is what a Tree of anything has.
type wholeTree struct {
	inPlace  bool
	dress    func(top *os.File) error // gives the top directory what others see of it; set by Seal
	replaced fs.FileInfo              // the directory that was switched away, which Close removes; nil: none
}

// NewWholeTree is NewTree for a directory of anything, which replaces one of anything. It is filled not with Put and Commit,
// but by the caller, through BeginOpen and Seal. Publish leaves the directory that was there until Close, under a name that
// the next transfer in the same directory, or RemoveAside, would find.
func NewWholeTree(o TargetOptions) (*Tree, error) {
	t, err := NewTree(o, nil)
	if err == nil {
		t.all = new(wholeTree)
	}
	return t, err
}

// Title is the path of the directory, as NewWholeTree was given it.
func (t *Tree) Title() string { return t.t.title }

// replaceable says why the directory that is there cannot be switched for another one.
func (t *Tree) replaceable() error {
	if !t.t.o.Overwrite {
		return t.t.existsDir()
	}
	if t.all.inPlace {
		if err := t.mountedOn(func(rel string) bool { return rel == "." }); err != nil {
			return err
		}
		return t.ownDevice()
	}
	return t.t.nothingMounted(t.t.name)
}

// descriptor is an open file of the operating system.
type descriptor interface{ Fd() uintptr }

// nothingMounted returns an error if a file system is mounted on a directory, or on one below it. Such a one cannot be
// renamed, or it would be emptied together with the directory.
func (t *Target) nothingMounted(name string) error {
	all, err := t.mountsIn(name)
	if err == nil && len(all) > 0 {
		err = t.mounted(all[0])
	}
	return err
}

func (t *Target) mounted(rel string) error {
	return errkind.Errorf("output-mounted", "output %s: a file system is mounted at %s", t.title, path.Join(t.title, rel))
}

// mountsIn returns where file systems are mounted on a directory, which is ".", and below it.
func (t *Target) mountsIn(name string) ([]string, error) {
	f, err := t.fs.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, t.fail("look into it", err)
	}
	defer f.Close()
	d, ok := f.(descriptor)
	if !ok {
		return nil, nil // a file system of a test
	}
	dir, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(d.Fd())))
	if err != nil {
		return nil, t.fail("find its path", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, t.fail("find what is mounted", err)
	}
	return mountsAt(string(mounts), dir), nil
}

// mountsAt returns the directories and files on which something is mounted and that are dir, which is ".", or lie below it. The
// format is that of proc_pid_mountinfo(5): only the single blanks between fields are no part of them, since other white space
// is not escaped.
func mountsAt(mountinfo, dir string) (all []string) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Split(line, " ")
		if len(fields) < 5 {
			continue
		}
		at := unescape(fields[4])
		if at == dir {
			all = append(all, ".")
		} else if rel, ok := strings.CutPrefix(at, strings.TrimSuffix(dir, "/")+"/"); ok {
			all = append(all, rel)
		}
	}
	return all
}

// unescape decodes what proc_pid_mountinfo(5) writes as an octal number.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// OpenStanding opens the directory that is there already.
func (t *Tree) OpenStanding() (*os.File, error) {
	info, err := t.t.look(t.t.name)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	return t.t.openDir(t.t.name, info)
}

// openDir opens the directory under a name, which info describes.
func (t *Target) openDir(name string, info fs.FileInfo) (*os.File, error) {
	f, err := t.fs.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err == nil && !durable.SameFile(opened, info) {
		err = errMoved
	}
	if err != nil {
		return nil, err
	}
	return dup(f)
}

func dup(f durable.File) (*os.File, error) {
	d, ok := f.(descriptor)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	fd, err := unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "."), nil
}

// BeginOpen is Begin, and opens the part directory for the caller to fill it. It belongs to whoever runs this, nobody else
// can enter it, and what is made in it inherits no group and no ACL. If a directory is to be replaced, and the file system
// cannot do that in one step, that is an error, and nothing is made.
func (t *Tree) BeginOpen(ctx context.Context) (*os.File, error) {
	old, err := t.old()
	if err != nil {
		return nil, err
	}
	if old != nil && !t.all.inPlace {
		if err := t.tryExchange(); err != nil {
			return nil, err
		}
	}
	if err := t.Begin(ctx); err != nil {
		return nil, err
	}
	f, err := dup(t.d)
	if err != nil {
		return nil, t.t.fail("part directory", err)
	}
	fd := int(f.Fd())
	err = errors.Join(unix.Fchown(fd, os.Geteuid(), os.Getegid()), unix.Fchmod(fd, uint32(dirMode)))
	for _, acl := range acls {
		if rerr := unix.Fremovexattr(fd, acl); rerr != nil && rerr != unix.ENODATA && rerr != unix.ENOTSUP {
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		f.Close()
		return nil, t.t.fail("part directory", err)
	}
	return f, nil
}

// tryExchange exchanges two empty directories.
func (t *Tree) tryExchange() (err error) {
	a, b := asideName(), asideName()
	for _, name := range []string{a, b} {
		if err := t.t.fs.Mkdir(name, dirMode); err != nil {
			return t.t.fail("make directory", err)
		}
		defer func() { err = errors.Join(err, t.t.fs.Remove(name)) }()
	}
	if err := t.t.fs.Exchange(a, b); durable.NotSupported(err) {
		return t.cannotExchange()
	} else if err != nil {
		return t.t.fail("exchange directories", err)
	}
	return nil
}

// seize makes the directory that was switched away ours, so that nobody uses what is in it, such as programs with privileges, and
// that what is left of it if we are killed is known for one of ours, whoever owned it. Where that fails it is still removed by Close.
func (t *Tree) seize(old fs.FileInfo) {
	d, err := t.t.openDir(t.t.temp, old)
	if err != nil {
		return
	}
	defer d.Close()
	if d.Chown(os.Geteuid(), os.Getegid()) == nil {
		_ = d.Chmod(dirMode)
	}
}

func (t *Tree) cannotExchange() error {
	return errkind.Errorf("output-exchange", "output %s: this file system cannot switch directories", t.t.title)
}

// Seal ends the filling of the part directory. The caller has made durable what it has put there. Publish calls dress, which
// gives the directory itself the owner, the mode and the time that it is to have.
func (t *Tree) Seal(ctx context.Context, dress func(top *os.File) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.d == nil || t.durable || t.all == nil {
		return fmt.Errorf("output %s: nothing to seal", t.t.title)
	}
	t.all.dress = func(top *os.File) error {
		if err := dress(top); err != nil {
			return err
		}
		return top.Sync()
	}
	if t.all.inPlace { // what cannot be moved is refused before anything is
		old, err := t.old()
		if err == nil && old != nil {
			err = t.intoStanding(old, func(*merger, *os.File, *os.File) error { return nil })
		}
		if err != nil {
			return err
		}
	}
	t.durable = true
	return nil
}
