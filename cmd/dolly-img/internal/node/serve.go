package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
)

// Serve takes transfers until ctx ends, and then gives running ones the grace time. It reads the keys and the policy again
// whenever something comes from reload.
func (s *Node) Serve(ctx context.Context, reload <-chan os.Signal, grace time.Duration) error {
	node, err := ring.NewNode(s.cfg)
	if err != nil {
		return err
	}
	s.counts.ring.Store(node)
	s.describe()
	ended := s.serve(node)
	go tend(ctx, s.cache, s.log)
	go s.keepWarning(ctx)
	if err := s.cache.ServeUses(ctx); err != nil {
		s.log.Warn("uses of images by other users are not noted", "error", err)
	}
	s.announce()
	notify(daemon.SdNotifyReady)
	var broken error
	for serving := true; serving; {
		select {
		case <-reload:
			s.reload(node)
		case <-ctx.Done():
			serving = false
		case broken = <-ended:
			serving = false
		}
	}
	reason := "listener failed"
	if broken == nil {
		reason = context.Cause(ctx).Error()
	}
	running := node.Running()
	s.log.Info("stopping", "reason", reason, "running", running, "grace", grace)
	notify(daemon.SdNotifyStopping)
	// The parent context has ended already, so it cannot be the parent of the grace time.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	aborted := 0
	if lost := new(ring.AbortedError); errors.As(node.Shutdown(stop), &lost) {
		aborted = lost.Transfers
	}
	s.log.Info("stopped", "reason", reason, "transfers-finished", running-aborted, "transfers-aborted", aborted)
	if broken != nil {
		return fmt.Errorf("daemon: listener failed: %w", broken)
	}
	return nil
}

// tendEvery is how often the daemon looks after its cache. Transfers do that, too, but other programs may fill the
// file system meanwhile.
const tendEvery = 10 * time.Minute

// tend keeps the limits of the cache until ctx ends.
func tend(ctx context.Context, store *cache.Cache, log *slog.Logger) {
	for tick := time.NewTicker(tendEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err := store.Tend(ctx); err != nil && ctx.Err() == nil {
			log.Warn("the cache could not be looked after", "error", err)
		}
	}
}

// announce logs each address in the words that launch.Start looks for.
func (s *Node) announce() {
	for _, l := range s.listeners {
		s.log.Info("listening", "address", l.Addr().String(), "cache", s.cache.Dir())
	}
}

// serve lets node accept connections on every listener. The channel gets the error that ended each of them.
func (s *Node) serve(node *ring.Node) <-chan error {
	ended := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { ended <- node.Serve(l) }()
	}
	return ended
}
