package push

import (
	"context"
	"sync"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
)

// Image is a container image of any kind that push takes.
type Image struct {
	Name string
	// Options has all but the limits of the cache and the platforms of the nodes, which Open finds.
	Options image.Options
}

// Open opens the image. What it pulls is kept within the limits of the policy beside the keys.
func (i Image) Open(ctx context.Context, p *Push, m *meta.Transfer) (ring.Source, error) {
	o := i.Options
	ask := sync.OnceValue(func() []string { return p.platforms(ctx) })
	o.OCI.Nodes = func(context.Context) []string { return ask() }
	var err error
	if o.Limits, err = cachedir.Limits(p.Keys); err != nil {
		return nil, err
	}
	return image.Open(ctx, i.Name, o, m)
}
