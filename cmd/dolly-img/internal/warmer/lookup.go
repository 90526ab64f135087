package warmer

import (
	"context"
	"errors"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// Lookup asks what an entry of the list stands for.
func (e *Effects) Lookup(ctx context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	return nil, errors.New("cannot be looked up yet")
}
