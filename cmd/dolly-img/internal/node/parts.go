package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// Part files that transfers leave outside of the cache, for the next push to go on from,
// are in the cache's journal from before they are made until they are gone.

// journalPart notes that a transfer to path begins.
func (a *acceptor) journalPart(path string) {
	if err := a.cache.RecordPart(raw.PartPath(path)); err != nil {
		a.log.Warn("a part of this output would not be cleaned up", "output", path, "error", err)
	}
}

// finished strikes out what a transfer did not leave.
func (a *acceptor) finished(r ring.Request, _ ring.Outcome) {
	m, err := meta.Decode(r.Meta)
	if err != nil || m.Output == "" || m.Output == "-" {
		return
	}
	part := raw.PartPath(m.Output)
	if _, err := os.Lstat(part); errors.Is(err, fs.ErrNotExist) {
		a.cache.ForgetPart(part)
	}
}

// cleanParts removes parts that nobody came back for: those that are too old, or have more
// than half of what their file system could still take.
func cleanParts(c *cache.Cache, log *slog.Logger) {
	paths, keep, err := c.Parts()
	if err != nil {
		log.Warn("parts of transfers that were cut off", "error", err)
		return
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err == nil && time.Since(info.ModTime()) <= keep && !crowds(path, info.Size()) {
			continue
		}
		gone := errors.Is(err, fs.ErrNotExist)
		if err == nil {
			gone, err = raw.RemovePart(path)
			log.Info("part of a transfer that was cut off", "file", path, "removed", gone, "error", err)
		}
		if gone {
			c.ForgetPart(path)
		}
	}
}

func crowds(path string, size int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && size > (int64(st.Bavail)*st.Bsize+size)/2
}
