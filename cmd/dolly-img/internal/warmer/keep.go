package warmer

import (
	"context"
	"errors"
	"slices"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
)

// Keep replaces what this controller wants its own cache to keep. An older digest of a name that is still wanted loses the name that it has there, so that it goes in
// a day, as on a node: otherwise each tag that moves would leave an image for ever. What is not in the list any more keeps its name.
func (e *Effects) Keep(ctx context.Context, wishes []warm.Wish) error {
	id, err := e.identity()
	if err != nil {
		return err
	}
	c, err := cachedir.Create(e.cfg.Cache)
	if err != nil {
		return err
	}
	before, err := c.Wishes()
	if err != nil {
		return err
	}
	list := make([]cache.Wish, len(wishes))
	for i, w := range wishes {
		list[i] = cache.Wish(w)
	}
	// The names go first: whatever ends this in between, the wishes that are still there tell the next one which they are.
	for _, w := range before[id.Name] {
		if !superseded(w, list) {
			continue
		}
		ref, err := keptAs(w.Name, w.Digest)
		if err != nil {
			continue // it has none
		}
		if _, err := c.Remove(ctx, ref); err != nil && !errors.Is(err, cache.ErrNotFound) {
			return err
		}
	}
	return c.SetWishes(ctx, id.Name, list)
}

// superseded reports whether others of the same name are wanted, and w is not.
func superseded(w cache.Wish, list []cache.Wish) bool {
	return slices.ContainsFunc(list, func(o cache.Wish) bool { return o.Name == w.Name }) &&
		!slices.ContainsFunc(list, func(o cache.Wish) bool { return o.Digest == w.Digest })
}
