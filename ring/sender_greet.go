package ring

import (
	"context"
	"errors"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Greeting is what a node says of itself before anything is asked of it.
type Greeting struct {
	// Node is the Name of the Peer.
	Node string
	// Err says why the node could not be greeted. The fields below are then zero.
	Err error
	// Software is the node's program and version. It is "" of a node that speaks protocol 1.
	Software string
	// Platform is what programs the node's processor can run, as in "linux/amd64/v3". "" is unknown.
	Platform string
}

// Greet asks all nodes of cfg who they are, in parallel, and returns their greetings in the
// order of cfg.Nodes. It moves nothing, takes no place on a node and leaves nothing there. A
// node that does not answer within 5 s, or before ctx ends, has an Err. Of cfg only Nodes,
// TLS and Software are used.
func Greet(ctx context.Context, cfg Config) ([]Greeting, error) {
	if cfg.TLS == nil {
		return nil, errors.New("ring: Greet needs a TLS configuration")
	}
	var err error
	if cfg.Nodes, err = checkNodes(cfg.Nodes); err != nil {
		return nil, err
	}
	c := newCaller(cfg)
	return c.greetAll(ctx), nil
}

func (c *caller) greetAll(ctx context.Context) []Greeting {
	all := make([]Greeting, len(c.nodes))
	var work sync.WaitGroup
	for i, p := range c.nodes {
		all[i] = Greeting{Node: p.Name, Err: p.Err}
		if p.Err != nil {
			continue
		}
		work.Go(func() {
			ctrl, w, err := c.greet(ctx, p, false, timings.startLimit)
			if err != nil {
				all[i].Err = err
				return
			}
			all[i].Software, all[i].Platform = wire.Printable(w.Software), wire.Printable(w.Platform)
			ctrl.finish()
			<-ctrl.done
		})
	}
	work.Wait()
	return all
}
