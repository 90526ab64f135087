package ring

import (
	"context"
	"encoding/json"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
)

// confirm has somebody agree to the plan, which is what is known of each node now.
func (s *sender) confirm(work context.Context) {
	plan := make([]Row, len(s.cfg.Nodes))
	for i := range plan {
		plan[i] = s.row(i + 1)
	}
	s.work.Go(func() { s.post(coordinator.EvConfirmed{Err: s.cfg.Confirm(work, plan)}) })
}

// same is Config.Same for the coordinator.
func same(cfg Config) func(planned, now []byte) bool {
	if cfg.Same == nil {
		return nil
	}
	return func(planned, now []byte) bool { return cfg.Same(json.RawMessage(planned), json.RawMessage(now)) }
}
