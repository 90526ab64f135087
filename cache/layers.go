package cache

import (
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
)

// The cache records which bytes a compressed layer unpacks to, once somebody has unpacked it. This is true of the
// bytes, whether or not the blob is here. There is one file for each layer: if one is torn or lost, the layer is
// unpacked again, and no answer is wrong.

// maxLayers is how many records are kept. When there are more, the older half is removed.
const maxLayers = 4096

// LayerChecked reports whether blob is known to unpack to the bytes of diff.
func (c *Cache) LayerChecked(blob, diff digest.Digest) bool {
	b, err := readFile(c.fs, "layers/"+flat(blob), maxRecord)
	return err == nil && string(b) == diff.String()+"\n"
}

// RecordLayer records that blob unpacks to the bytes of diff. If the record cannot be
// written, the layer will be unpacked again.
func (c *Cache) RecordLayer(blob, diff digest.Digest) {
	if validate(blob) != nil || diff.Validate() != nil {
		return
	}
	c.pruneLayers()
	f, err := c.fs.OpenFile("layers/"+flat(blob), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return
	}
	_, _ = f.WriteAt([]byte(diff.String()+"\n"), 0)
	_ = f.Close()
}

func (c *Cache) pruneLayers() {
	names, err := c.fs.Names("layers")
	if err != nil || len(names) < maxLayers {
		return
	}
	var infos []fs.FileInfo
	for _, name := range names {
		if info, err := c.fs.Lstat("layers/" + name); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos[:len(infos)/2] {
		_ = c.fs.Remove("layers/" + info.Name())
	}
}
