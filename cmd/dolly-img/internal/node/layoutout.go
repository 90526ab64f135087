package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
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

// mark makes a digest of what the file system says about every file, because one of them may have been changed or
// removed. It looks at no more files than the layout has, whatever was added.
func (o *layoutOutput) mark() (digest.Digest, error) {
	names := map[string]int{} // of all that is in the layout, and of directories how much is in them
	for _, file := range o.layout.files() {
		for names[file] = 0; file != "."; {
			dir := path.Dir(file)
			_, known := names[dir]
			if names[dir]++; known {
				break
			}
			file = dir
		}
	}
	mark := digest.Canonical.Digester()
	mark.Hash().Write(o.layout.index)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		name, holds := filepath.Join(o.dir, name), names[name]
		info, err := os.Lstat(name)
		if err != nil {
			return "", err
		}
		st := info.Sys().(*syscall.Stat_t)
		if holds == 0 {
			fmt.Fprintf(mark.Hash(), "\n%q %d %d %d %d", name, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
			continue
		}
		fmt.Fprintf(mark.Hash(), "\n%q %d", name, st.Ino)
		if err := holdsNoMore(name, holds); err != nil {
			return "", err
		}
	}
	return mark.Digest(), nil
}

// holdsNoMore returns an error if there are more than n entries in a directory.
func holdsNoMore(dir string, n int) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if there, err := d.Readdirnames(n + 1); len(there) > n || err != nil {
		return cmp.Or(err, fmt.Errorf("%s: more is in it than was placed", dir))
	}
	return nil
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
	b, rerr := o.Standing(v1.ImageIndexFile, maxForeign)
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
