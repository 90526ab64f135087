package warmer

import (
	"context"
	"log/slog"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// Config says with what a controller works.
type Config struct {
	// Keys is the directory of the keys, with a warmer.pem. They are read again at each use, so that renewed ones count at once.
	Keys string
	// Cache is the directory of this machine's own cache, "" for the usual one.
	Cache string
	// Software names this program and its version.
	Software string
	// Log may be nil.
	Log *slog.Logger
	// RingLog is told what rings do. It may be nil.
	RingLog *slog.Logger
	// Watch is called with the name in the caches of what a ring sends, when it begins. onNodes is told how it goes, ended how it went. It may be nil.
	Watch func(name string) (onNodes func(ring.NodesSnapshot), ended func(*ring.Report, error))
}

// Effects does what a controller wants done. Its methods may be called beside each other.
type Effects struct {
	cfg   Config
	log   *slog.Logger
	files files
	turns turns
}

var _ warm.Effects = (*Effects)(nil)

// New returns the effects of a controller. The error says that there is no key that it could use.
func New(cfg Config) (*Effects, error) {
	e := &Effects{cfg: cfg, log: cfg.Log}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	_, err := e.identity()
	return e, err
}

// identity loads the key of the controller.
func (e *Effects) identity() (*identity.Identity, error) {
	return identity.Load(e.cfg.Keys, identity.Warmer)
}

// Nodes returns the nodes of a group.
func (e *Effects) Nodes(ctx context.Context, g *warm.Group) ([]string, error) {
	return warm.ReadNodes(ctx, g)
}
