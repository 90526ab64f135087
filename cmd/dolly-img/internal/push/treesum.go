package push

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/raw/tree"
)

// A directory has to be read to know the digest of its stream. So that nodes which have it say so before it is read again,
// the digest is kept in the cache directory of the user, ~/.cache/dolly-img-sent, with what the file system said of every file
// then, of which the times of change (ctime) tell of any change. Where that cannot be written, the directory is read and sent
// each time, and so is one with large holes, whose stream travels in leaves.

// sentTree is what is kept of a directory that was sent.
type sentTree struct {
	Mark   digest.Digest `json:"mark"`
	Stream digest.Digest `json:"stream"`
}

// keptFor is how long it is kept.
const keptFor = 90 * 24 * time.Hour

// sentFile returns where that of a directory is kept.
func (in Tree) sentFile() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(in.Path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %q %v", tree.Form, path, in.Exclude, in.Special))
	return filepath.Join(dir, "dolly-img-sent", hex.EncodeToString(sum[:])), nil
}

// sent returns the digest of the stream of a directory that was sent before, if nothing has changed since, and else "".
func (in Tree) sent(mark digest.Digest) digest.Digest {
	name, err := in.sentFile()
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(name)
	var was sentTree
	if err != nil || json.Unmarshal(b, &was) != nil || was.Mark != mark || was.Stream.Validate() != nil {
		return ""
	}
	return was.Stream
}

// keep keeps the digest of the stream. An error costs the next transfer time, and nothing else.
func (in Tree) keep(now sentTree) error {
	name, err := in.sentFile()
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	forgetOld(dir)
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// forgetOld removes what nobody has sent for long.
func forgetOld(dir string) {
	files, _ := os.ReadDir(dir)
	for _, e := range files {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > keptFor {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
