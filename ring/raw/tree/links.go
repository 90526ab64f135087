package tree

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// hardLink gives what came before another name. No step of the way goes through a link.
func (x *extractor) hardLink(dir int, name string, e *entry) error {
	at := x.dirs[0].fd
	names := strings.Split(e.link, "/")
	last := len(names) - 1
	for i, n := range names[:last] {
		next, err := unix.Openat(at, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if i > 0 {
			unix.Close(at)
		}
		if err != nil {
			return err
		}
		at = next
	}
	if last > 0 {
		defer unix.Close(at)
	}
	before, err := describe(at, names[last])
	if err != nil {
		return err
	}
	if err := unix.Linkat(at, names[last], dir, name, 0); err != nil {
		return err
	}
	after, err := describe(at, names[last])
	if err == nil {
		x.noteLink(e, before, after)
	}
	return err
}

// node makes a device or a named pipe.
func (x *extractor) node(dir int, name string, e *entry) error {
	if !x.special {
		return errors.New("a device or a named pipe, which was not asked for")
	}
	format := map[byte]uint32{typeChar: unix.S_IFCHR, typeBlock: unix.S_IFBLK, typeFIFO: unix.S_IFIFO}[e.kind]
	if err := unix.Mknodat(dir, name, format|0o600, int(unix.Mkdev(e.major, e.minor))); err != nil {
		if errors.Is(err, unix.EPERM) {
			return errkind.Errorf("output-tree-rights", "device: %w", err)
		}
		return err
	}
	return x.dressName(dir, name, e)
}
