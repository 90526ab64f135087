package warmer

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/oci"
)

// fileState tells without reading a file whether its content has changed.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds of Unix time
}

// grain is how old the last change of a file must be for a later one to show in its times.
const grain = 2 * time.Second

// settled reports whether a change of the file after now would show.
func (s fileState) settled(now time.Time) bool {
	return now.Sub(time.Unix(0, max(s.mtime, s.ctime))) > grain
}

// stateOf returns the state of the file that a Ref is about. Of a layout that is index.json, as all else in it is named by digest.
func stateOf(ref string) (fileState, error) {
	path := ref
	if transport, rest := oci.Split(ref); transport != "" {
		path, _, _ = strings.Cut(rest, ":")
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		path = filepath.Join(path, "index.json")
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return fileState{}, fmt.Errorf("%s: %w", path, err)
	}
	return fileState{uint64(st.Dev), uint64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}
