package warmer

import (
	"context"
	"errors"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// Push sends an image to nodes.
func (e *Effects) Push(ctx context.Context, p *warm.Push, rates <-chan int64, progress func(rate int64, left time.Duration)) ([]warm.Row, error) {
	return nil, errors.New("cannot be pushed yet")
}
