package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/durable"
)

const (
	maxRecord = 16 << 10 // bytes of a record; its path is the long part
	maxPlaced = 1024     // records under placed before the stale ones are dropped
)

// record says that a file had this digest when it had this inode, size and times. It is stored
// as one line of JSON: {"digest":"sha256:…","dev":1,"inode":2,"size":3,"mtime":4,"ctime":5}.
// The times are in nanoseconds. A file outside of the cache also has a "path".
type record struct {
	Digest digest.Digest `json:"digest"`
	Path   string        `json:"path,omitempty"`
	stamp
}

// stamp changes when a file is written to or replaced.
type stamp struct {
	// Dev is the device of a placed file. Blobs have none, because the device of a cache changes when it is mounted anew.
	Dev   uint64 `json:"dev,omitempty"`
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Ctime int64  `json:"ctime"`
}

func stampOf(info fs.FileInfo) stamp {
	st := stat(info)
	return stamp{Inode: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

func (r record) encode() ([]byte, error) {
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// decodeRecord accepts only what encode writes, so that a torn or edited record is an error.
func decodeRecord(b []byte) (r record, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("record: %w", err)
	}
	if err := validate(r.Digest); err != nil {
		return record{}, fmt.Errorf("record: %w", err)
	}
	if again, err := r.encode(); err != nil || !bytes.Equal(again, b) {
		return record{}, errors.New("record: not in its canonical form")
	}
	return r, nil
}

func readRecord(fsys durable.FS, name string) (record, error) {
	b, err := readFile(fsys, name, maxRecord)
	if err != nil {
		return record{}, err
	}
	return decodeRecord(b)
}

// writeRecord writes a record. It is neither durable nor atomic, because decodeRecord finds a torn record.
func writeRecord(fsys durable.FS, name string, r record) error {
	b, err := r.encode()
	if err != nil {
		return err
	}
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// flat returns a digest as one element of a file name.
func flat(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }

// trusted reports whether the blob is there and has not been changed since it was
// verified. It also returns the size of the blob, or -1 if the blob is not there.
func (c *Cache) trusted(d digest.Digest) (int64, bool) {
	name, err := blobName(d)
	if err != nil {
		return -1, false
	}
	info, err := c.fs.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return -1, false
	}
	r, err := readRecord(c.fs, "verified/"+flat(d))
	return info.Size(), err == nil && r.Digest == d && r.stamp == stampOf(info)
}

// trust records that the blob which info describes is right. If the record cannot
// be written, the blob will be hashed again.
func (c *Cache) trust(d digest.Digest, info fs.FileInfo) {
	_ = writeRecord(c.fs, "verified/"+flat(d), record{Digest: d, stamp: stampOf(info)})
}

func (c *Cache) distrust(d digest.Digest) { _ = c.fs.Remove("verified/" + flat(d)) }

// placed returns the name of the record of the file at path, which info describes, and what the record should say.
func placed(path string, info fs.FileInfo) (name string, r record, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return "", record{}, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return "", record{}, fmt.Errorf("%s is neither a regular file nor a directory", path)
	}
	sum := sha256.Sum256([]byte(path))
	r = record{Path: path, stamp: stampOf(info)}
	r.Dev = stat(info).Dev
	return "placed/" + hex.EncodeToString(sum[:]), r, nil
}

// PlacedAs returns the digest with which RecordPlaced recorded the file at path. It returns false if there is no record,
// or the file that info describes is another one, or was changed since. Who reads the file takes info from
// the open file, because others may exchange what is at path.
func (c *Cache) PlacedAs(path string, info fs.FileInfo) (d digest.Digest, ok bool) {
	name, now, err := placed(path, info)
	if err != nil {
		return "", false
	}
	r, err := readRecord(c.fs, name)
	now.Digest = r.Digest
	return r.Digest, err == nil && r == now
}

// RecordPlaced records that a file was placed at path and has this digest, or a directory, of whose content it says nothing. Info describes the open file whose bytes are
// known, because others may have exchanged what is at path since.
func (c *Cache) RecordPlaced(path string, info fs.FileInfo, d digest.Digest) error {
	name, r, err := placed(path, info)
	if err == nil {
		r.Digest = d
		c.prunePlaced()
		err = writeRecord(c.fs, name, r)
	}
	if err != nil {
		return fmt.Errorf("cache %s: record of %s: %w", c.dir, path, err)
	}
	return nil
}

// prunePlaced removes the records of files that are gone or changed, once there
// are many records.
func (c *Cache) prunePlaced() {
	names, err := c.fs.Names("placed")
	if err != nil || len(names) < maxPlaced {
		return
	}
	for _, name := range names {
		r, err := readRecord(c.fs, "placed/"+name)
		if err == nil {
			var info fs.FileInfo
			if info, err = os.Lstat(r.Path); err == nil {
				if _, ok := c.PlacedAs(r.Path, info); ok {
					continue
				}
			}
		}
		_ = c.fs.Remove("placed/" + name)
	}
}
