package warmer

import (
	"context"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
)

// Keep replaces what this controller wants its own cache to keep.
func (e *Effects) Keep(ctx context.Context, wishes []warm.Wish) error {
	id, err := e.identity()
	if err != nil {
		return err
	}
	c, err := cachedir.Create(e.cfg.Cache)
	if err != nil {
		return err
	}
	list := make([]cache.Wish, len(wishes))
	for i, w := range wishes {
		list[i] = cache.Wish(w)
	}
	return c.SetWishes(ctx, id.Name, list)
}
