package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
)

// expanded is an image that the nodes get as it is once it is expanded.
type expanded struct{ *expand.Image }

// sha256 returns the image's digest as sha256sum has it, if it was computed.
func (e expanded) sha256(context.Context) digest.Digest { return e.SHA256() }

// expand returns the image in f as a source, or nil where f is sent as it is. It closes f if there is an error. For an update it
// refuses what is compressed before it reads more of it than its beginning.
func (in File) expand(ctx context.Context, f *raw.File, update bool, m *meta.Transfer) (ring.Source, error) {
	if update && in.Format != "" && in.Format != expand.Raw {
		if found, err := expand.Detect(ctx, f, f.Size(), in.Path); err == nil && found != expand.Raw {
			// An update reads single leaves, for each of which all before it would be expanded again.
			return nil, errors.Join(errkind.Errorf("input-update", "input %s is compressed with %s, and an update reads it at many places", in.Path, found), f.Close())
		}
	}
	o, err := in.stored(ctx, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if o.Format == expand.Raw && o.Map == nil {
		return nil, nil
	}
	im, err := expand.Open(ctx, f, o)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.ModTime()
	if im.Format() != expand.Raw {
		in.Note(fmt.Errorf("%s is compressed with %s: the nodes get the %s that are in it", in.Path, im.Format(), bytesize.Text(im.Size())))
	}
	if in.SHA256 {
		im.WantSHA256()
	}
	return expanded{im}, nil
}

// stored finds out how the image in f is stored.
func (in File) stored(ctx context.Context, f *raw.File) (o expand.Options, err error) {
	o = expand.Options{Name: in.Path, Format: cmp.Or(in.Format, expand.Raw), Measuring: in.Measuring}
	if f.Unsized() {
		return o, errkind.Errorf("input-stream", "input %s is not as long as its size says, and cannot be expanded", in.Path)
	}
	path := in.Map
	if path == "" && in.Format == expand.Auto {
		path = expand.MapBeside(in.Path)
	}
	if path != "" {
		if o.Map, err = expand.ReadMap(path); err != nil {
			return o, err
		}
		said := ""
		if !o.Map.Checked() {
			said = ", which has no checksums of them"
		}
		in.Note(fmt.Errorf("block map %s says which blocks of %s have data%s: all others are sent as zeros", path, in.Path, said))
		return o, nil
	}
	if in.Format == expand.Auto { // to know whether there is anything to expand
		found, err := expand.Detect(ctx, f, f.Size(), in.Path)
		if err != nil || found == expand.Raw {
			o.Format = expand.Raw
			return o, err
		}
	}
	return o, nil
}
