package tree

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/raw"
)

// recordOf is what is recorded of a directory with this mark that a stream with this digest has made.
func recordOf(stream, mark digest.Digest) digest.Digest {
	return digest.FromString(stream.String() + "\n" + mark.String())
}

// sampled is of how many entries the extended attributes are compared. A system that adds some of its own, such as labels of
// SELinux, does so for every file.
const sampled = 64

// summary hashes what makes a stream, but for the bytes of files. Its zero value is that of nothing.
type summary struct {
	maphash.Hash
	entries int
}

// add adds the next entry. It uses scratch, and returns it for the next call.
func (s *summary) add(e *entry, scratch []byte) []byte {
	scratch = e.core(scratch[:0])
	if s.entries++; s.entries <= sampled {
		for _, a := range e.xattrs {
			scratch = fmt.Appendf(scratch, "%q %q", a.name, a.value)
		}
	}
	s.Write(scratch)
	return scratch
}

// lookAt walks a directory on a node. It returns a mark of what the file system says about everything in it: as long as that
// is the same, nothing was changed. The times at which the directory itself was renamed do not count, but its attributes do.
// They are those of dressed, which it will have, or with nil those that it has. The entries are added to sum. After until,
// unless that is zero, lookAt gives up.
func lookAt(top *os.File, dressed *entry, sum *summary, until time.Time) (digest.Digest, error) {
	m := digest.Canonical.Digester()
	var buf []byte
	var dev uint64
	var last time.Time
	o := Options{Special: true, xattrs: sampled, Skipped: func(p string) { fmt.Fprintf(m.Hash(), "socket %q\n", p) }}
	err := walk(int(top.Fd()), ".", o, func(f *found) error {
		e := &f.entry
		switch {
		case f.path == ".":
			if dev = f.dev; dressed != nil {
				e = dressed
			}
			fmt.Fprintf(m.Hash(), "top %d %d %d %d %o %d %d %q\n", f.dev, f.ino, e.uid, e.gid, e.mode, e.sec, e.nsec, e.xattrs)
		case f.dev != dev:
			return errors.New("a file system is mounted in it")
		case !until.IsZero() && time.Now().After(until):
			return errors.New("it is too large to look at all of it")
		default:
			buf = f.mark(buf[:0])
			m.Hash().Write(buf)
			if at := time.Unix(f.ctime.Unix()); at.After(last) {
				last = at
			}
		}
		buf = sum.add(e, buf)
		return nil
	})
	raw.WaitTick(last)
	return m.Digest(), err
}
