package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// OpenKept opens the image that this server's own cache keeps under the name keep, once Options.Keep has brought it there, without asking for
// it where it came from. The error wraps cache.ErrNotFound if the cache does not have all of it, with the digest of Options.Digest.
func OpenKept(ctx context.Context, keep string, o Options) (ring.Source, error) {
	c, err := cachedir.Create(o.Cache)
	if err != nil {
		return nil, errkind.Errorf("cache-own", "this server's own cache: %w", err)
	}
	h, err := c.Holds(ctx, []cache.Asked{{Name: keep, Digest: o.Digest}}, false)
	if err != nil {
		return nil, err
	}
	if i := h.Images[0]; i.State != cache.HeldAll || i.Named != o.Digest {
		return nil, fmt.Errorf("cache %s: %s: %w", c.Dir(), keep, cache.ErrNotFound)
	}
	img, err := oci.Open(ctx, "oci:"+c.Dir()+":"+keep, oci.Options{})
	if err != nil {
		return nil, err
	}
	c.Touch(o.Digest)
	source, err := checkLayers(ctx, img, img, &o)
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return source, nil
}
