package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// layoutOutput is the image in a directory.
type layoutOutput struct {
	*raw.Tree
	layout *layout
	dir    string
}

func (o *layoutOutput) size() int64 {
	n := int64(len(o.layout.index) + len(layoutMarker))
	for _, d := range o.layout.blobs {
		n += d.Size
	}
	return n
}

func (o *layoutOutput) recorded() string { return filepath.Join(o.dir, v1.ImageIndexFile) }

func (o *layoutOutput) standing() (fs.FileInfo, error) { return o.Standing(v1.ImageIndexFile) }

// mark makes a digest of what the file system says about every file, because one of them may have been changed or
// removed.
func (o *layoutOutput) mark() (digest.Digest, error) {
	all, err := o.Look(o.layout.files())
	if err != nil {
		return "", err
	}
	return o.markOf(all), nil
}

func (o *layoutOutput) markOf(all map[string]fs.FileInfo) digest.Digest {
	mark := digest.Canonical.Digester()
	mark.Hash().Write(o.layout.index)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		info := all[name]
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(mark.Hash(), "\n%q %d", filepath.Join(o.dir, name), st.Ino)
		if !info.IsDir() {
			fmt.Fprintf(mark.Hash(), " %d %d %d", st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		}
	}
	return mark.Digest()
}

func (o *layoutOutput) placed() (fs.FileInfo, digest.Digest, error) {
	all, err := o.Placed()
	return all[v1.ImageIndexFile], o.markOf(all), err
}

// maxForeign bounds the index.json of a layout that stands where another one is to go, in bytes.
const maxForeign = 1 << 20

// Check is that of the tree. If there is a layout that may not be replaced, it says which other images are in it,
// which would be lost.
func (o *layoutOutput) Check() (free int64, err error) {
	if free, err = o.Tree.Check(); !errors.Is(err, fs.ErrExist) {
		return free, err
	}
	var index v1.Index
	b, rerr := o.ReadStanding(v1.ImageIndexFile, maxForeign)
	if rerr != nil || json.Unmarshal(b, &index) != nil {
		return free, err
	}
	var others []string
	for _, d := range index.Manifests {
		name := cmp.Or(d.Annotations[v1.AnnotationRefName], d.Digest.String())
		if name != o.layout.ref && len(others) < 4 {
			others = append(others, printable.Line(name))
		}
	}
	if len(others) == 0 {
		return free, err
	}
	if more := len(index.Manifests) - len(others); len(others) == 4 && more > 0 {
		others = append(others[:3], "and more")
	}
	return free, errkind.Errorf("output-images", "output %s: %w, and other images are in it: %s", o.dir, fs.ErrExist, strings.Join(others, ", "))
}

func (o *layoutOutput) make(ctx context.Context, open blobOpener) error {
	if err := o.Begin(ctx); err != nil {
		return err
	}
	for _, d := range o.layout.blobs {
		blob, err := open(d)
		if err != nil {
			return err
		}
		err = o.Put(ctx, blobFile(d), blob, d.Size)
		blob.Close()
		if err != nil {
			return err
		}
	}
	for name, text := range map[string]string{v1.ImageIndexFile: string(o.layout.index), v1.ImageLayoutFile: layoutMarker} {
		if err := o.Put(ctx, name, strings.NewReader(text), int64(len(text))); err != nil {
			return err
		}
	}
	return o.Commit(ctx)
}
