package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// Transfers may leave part files outside of the cache, and the next push goes on from them. The journal of the cache
// has each such file from before it is made until it is gone.

// journalPart notes that a transfer to path begins.
func (a *acceptor) journalPart(path string) {
	if err := a.cache.RecordPart(raw.PartPath(path)); err != nil {
		a.log.Warn("a part of this output would not be cleaned up", "output", path, "error", err)
	}
}

// finished removes the part file of a transfer from the journal if the transfer left none.
func (a *acceptor) finished(r ring.Request) {
	m, err := meta.Decode(r.Meta)
	if err != nil || m.Output == "" || m.Output == "-" || m.Device != nil {
		return
	}
	for _, file := range written(m, len(r.Blobs)) {
		a.forgetPart(file)
	}
}

// written returns the paths of the files that a transfer of so many blobs writes to, but for those of the cache.
func written(m *meta.Transfer, blobs int) []string {
	if !m.Split {
		return []string{m.Output}
	}
	files := []string{raw.LockName(m.Output)}
	for n := range blobs {
		files = append(files, raw.PartName(m.Output, n))
	}
	return files
}

// forgetPart removes the part file of an output from the journal if there is none.
func (a *acceptor) forgetPart(output string) {
	part := raw.PartPath(output)
	if _, _, err := raw.LeftPart(part); errors.Is(err, fs.ErrNotExist) {
		a.cache.ForgetPart(part)
	}
}

// cleanParts removes part files that no push went on from: those that are too old, and those that take more than half of
// the room that their file system would have without them, and directories, with which no push goes on. Those that were about to get their names are removed always.
func cleanParts(c *cache.Cache, log *slog.Logger) {
	paths, keep, err := c.Parts()
	if err != nil {
		log.Warn("parts of transfers that were cut off", "error", err)
		return
	}
	for _, path := range paths {
		aside := raw.RemoveAside(path)
		if aside != nil {
			log.Warn("parts that were about to get their names", "beside", path, "error", aside)
		}
		info, free, err := raw.LeftPart(path)
		if err == nil && !info.IsDir() && time.Since(info.ModTime()) <= keep && !crowds(info.Size(), free) {
			continue
		}
		gone := errors.Is(err, fs.ErrNotExist)
		if err == nil {
			gone, err = raw.RemovePart(path)
			log.Info("part of a transfer that was cut off", "file", path, "removed", gone, "error", err)
		}
		if gone && aside == nil {
			c.ForgetPart(path)
		}
	}
}

// crowds reports whether a file takes more than half of the room that its file system would have without it.
func crowds(size, free int64) bool { return free >= 0 && size > (free+size)/2 }
