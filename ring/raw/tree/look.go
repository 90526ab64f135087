package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw"
)

// recordOf is what is recorded of a directory with this mark that a stream with this digest has made.
func recordOf(stream, mark digest.Digest) digest.Digest {
	return digest.FromString(stream.String() + "\n" + mark.String())
}

// sampled is of how many entries the extended attributes are compared. A system that adds some of its own, such as labels of
// SELinux, does so for every file.
const sampled = 64

// look is what the file system says about everything in a directory: as long as it is the same, nothing was changed. It is a
// sum over the entries, so that a node which unpacks can take each of them as soon as it is complete. Its zero value is that
// of nothing.
type look struct {
	sum     [4]uint64
	entries int
	newest  time.Time // change of an entry but the top directory
	scratch []byte
}

// add takes one more part.
func (l *look) add(part []byte) {
	for i, n := range parts(part) {
		l.sum[i] += n
	}
}

// drop takes back a part that was added.
func (l *look) drop(part []byte) {
	for i, n := range parts(part) {
		l.sum[i] -= n
	}
}

func parts(part []byte) (n [4]uint64) {
	h := sha256.Sum256(part)
	for i := range n {
		n[i] = binary.BigEndian.Uint64(h[8*i:])
	}
	return n
}

// top takes the directory itself. The times at which it was renamed do not count, but its attributes do.
func (l *look) top(dev, ino uint64, e *entry) {
	l.add(fmt.Appendf(nil, "top %d %d %d %d %o %d %d %q\n", dev, ino, e.uid, e.gid, e.mode, e.sec, e.nsec, e.xattrs))
}

// found takes an entry in it.
func (l *look) found(f *found) {
	l.scratch = f.mark(l.scratch[:0])
	l.add(l.scratch)
	l.entries++
	if at := time.Unix(f.ctime.Unix()); at.After(l.newest) {
		l.newest = at
	}
}

// again takes an entry in the place of what it was before.
func (l *look) again(before, f *found) {
	l.scratch = before.mark(l.scratch[:0])
	l.drop(l.scratch)
	l.entries--
	l.found(f)
}

// mark returns the digest, once another change of any entry would show in its times.
func (l *look) mark() digest.Digest {
	raw.WaitTick(l.newest)
	var b []byte
	for _, n := range l.sum {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return digest.NewDigestFromBytes(digest.Canonical, b)
}

// lookAt walks a directory on a node, and returns the mark of what is there. After until, unless that is zero, it gives up.
func lookAt(top *os.File, until time.Time) (digest.Digest, error) {
	var l look
	var dev uint64
	o := Options{Special: true, xattrs: 1, Skipped: func(p string) { l.add(fmt.Appendf(nil, "socket %q\n", p)) }}
	err := walk(int(top.Fd()), ".", o, func(f *found) error {
		switch {
		case f.path == ".":
			dev = f.dev
			l.top(f.dev, f.ino, &f.entry)
		case f.dev != dev:
			return errors.New("a file system is mounted in it")
		case !until.IsZero() && time.Now().After(until):
			return errors.New("it is too large to look at all of it")
		default:
			l.found(f)
		}
		return nil
	})
	return l.mark(), err
}

// note takes an entry that is complete, of which the file system says st. If that is not what the stream says, as with other
// owners, or where the file system keeps less of a time, the directory does not make the stream again.
func (x *extractor) note(e *entry, st *unix.Stat_t) error {
	f := &found{entry: *e}
	f.is(st)
	if f.mode != e.mode || f.uid != e.uid || f.gid != e.gid || f.sec != e.sec || f.nsec != e.nsec || f.size != e.size {
		x.differs = true
	}
	if x.look.entries < sampled && !x.differs {
		_, name := e.parent()
		there, err := xattrsOf(x.dirs[len(x.dirs)-1].fd, name)
		if err != nil {
			return err
		}
		x.differs = !slices.Equal(there, e.xattrs)
	}
	x.look.found(f)
	return nil
}

// noteLink takes a hard link, by which the inode of the first name was changed from before to after.
func (x *extractor) noteLink(e *entry, before, after *found) {
	f := &found{entry: *e, identity: after.identity}
	before.path, after.path = e.link, e.link
	x.look.again(before, after)
	x.look.found(f)
}

// mark is that of what was unpacked, with the attributes that the top directory will have. It is "" where that does not make
// the stream again: what a node holds others are fed from.
func (x *extractor) mark() (digest.Digest, error) {
	var st unix.Stat_t
	if err := unix.Fstat(x.dirs[0].fd, &st); err != nil {
		return "", x.fail(x.top, "look at", err)
	}
	if x.differs || x.owner != nil {
		return "", nil
	}
	l := x.look
	l.top(st.Dev, st.Ino, x.top)
	return l.mark(), nil
}
