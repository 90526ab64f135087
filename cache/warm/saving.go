package warm

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// saving has the newest ActSave and the newest ActKeep that wait to be done.
type saving struct {
	mu   sync.Mutex
	save *ActSave
	keep *ActKeep
	wake chan struct{}
}

func (s *saving) put(a Action) {
	s.mu.Lock()
	switch a := a.(type) {
	case ActSave:
		s.save = &a
	case ActKeep:
		s.keep = &a
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *saving) take() (save *ActSave, keep *ActKeep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	save, keep = s.save, s.keep
	s.save, s.keep = nil, nil
	return save, keep
}

// save does what waits, until ctx ends.
func (c *Controller) save(ctx context.Context) {
	var unsaved, unkept string // why the last one failed
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.saving.wake:
		}
		save, keep := c.saving.take()
		if save != nil {
			unsaved = why(c.store(save.State))
		}
		if keep != nil {
			unkept = ""
			if err := c.cfg.Effects.Keep(ctx, keep.Wishes); err != nil {
				unkept = fmt.Sprintf("wishes for the cache of this machine: %v", err)
			}
		}
		now := strings.Trim(unsaved+"; "+unkept, "; ")
		if now == "" && said == "" || ctx.Err() != nil {
			continue
		}
		if now != said && now != "" {
			c.log.Error("cannot be kept", "error", now)
		}
		said = now
		c.tell(ctx, EvSaved{now}) // Each failure is told, since each is tried again.
	}
}

func (c *Controller) store(s *State) error {
	if c.cfg.State == nil {
		return nil
	}
	if err := s.save(c.cfg.State); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// end interrupts what runs, waits for it and saves the state a last time.
func (c *Controller) end(cancel func()) error {
	cancel()
	c.wg.Wait()
	return c.store(c.m.state())
}
