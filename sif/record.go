package sif

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// settled is how old the last change of a file must be when reading it starts for
	// its digest to be recorded: far above the grain of file times.
	settled = 2 * time.Second

	maxRecords = 256  // files in a directory of records
	maxRecord  = 8192 // bytes of one; a path has 4096 at most
)

// records remembers the digests of files, so that a second push of an image does not read
// it again. A record holds for the state of the file that is in it. A record that cannot be read
// counts as none, and one that cannot be written is no error.
type records struct {
	dir string // "" remembers nothing
	now func() time.Time
}

// record is the JSON of one file in the directory, followed by a line with the SHA-256
// of that JSON in hex.
type record struct {
	Path   string
	State  state
	Digest digest.Digest
}

// userRecords returns the records in the user's cache directory, beside dolly-img, which is his cache of images: a
// cache is made in an empty directory only. Earlier versions had them in there, and they are removed.
func userRecords() *records {
	r := &records{now: time.Now}
	if cache, err := os.UserCacheDir(); err == nil {
		r.dir = filepath.Join(cache, "dolly-img-digests")
		os.RemoveAll(filepath.Join(cache, "dolly-img", "digests"))
	}
	return r
}

// file returns the file with the record of a path.
func (r *records) file(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:16]))
}

// get returns the digest that the file at path had in this state.
func (r *records) get(path string, s state) (digest.Digest, bool) {
	if r.dir == "" {
		return "", false
	}
	f, err := os.Open(r.file(path))
	if err != nil {
		return "", false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return "", false
	}
	rec, ok := parseRecord(data)
	return rec.Digest, ok && rec.Path == path && rec.State == s
}

func (rec record) encode() []byte {
	data, err := json.Marshal(rec)
	if err != nil {
		return nil // strings and numbers can always be encoded
	}
	sum := sha256.Sum256(data)
	return append(append(append(data, '\n'), hex.EncodeToString(sum[:])...), '\n')
}

func parseRecord(data []byte) (record, bool) {
	var rec record
	body, sum, _ := bytes.Cut(data, []byte("\n"))
	want := sha256.Sum256(body)
	if string(sum) != hex.EncodeToString(want[:])+"\n" || json.Unmarshal(body, &rec) != nil {
		return record{}, false
	}
	return rec, rec.Digest.Validate() == nil && rec.Digest.Algorithm() == digest.SHA256
}

// put records a digest, in place of the path's last record.
func (r *records) put(path string, s state, sum digest.Digest) {
	data := record{path, s, sum}.encode()
	if r.dir == "" || len(data) > maxRecord || os.MkdirAll(r.dir, 0o700) != nil {
		return
	}
	r.trim()
	temp, err := os.CreateTemp(r.dir, "new-*")
	if err != nil {
		return
	}
	_, err = temp.Write(data)
	if closeErr := temp.Close(); err != nil || closeErr != nil || os.Rename(temp.Name(), r.file(path)) != nil {
		os.Remove(temp.Name())
	}
}

// trim removes the oldest records beyond the limit, and files that a crash left.
func (r *records) trim() {
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) < maxRecords {
		return
	}
	age := map[string]time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			age[e.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return age[a.Name()].Compare(age[b.Name()]) })
	for _, e := range entries[:len(entries)-maxRecords+1] {
		os.Remove(filepath.Join(r.dir, e.Name()))
	}
}
