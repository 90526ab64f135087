// Package fleet asks nodes what their caches have, and sums it up.
package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"slices"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// Config says which nodes are asked, and how.
type Config struct {
	// Nodes are the nodes, with a port behind each whose port is not Port.
	Nodes []string
	Port  int
	// Keys is the directory of the keys; "" is the usual one.
	Keys string
	// Software names this program and its version.
	Software string
}

// Ask asks the nodes, with the key of a sender or, if there is none, of a viewer. The replies are in the order of the nodes.
// About more images than one question can have it asks several times. The error is one of this side.
func Ask(ctx context.Context, c Config, q ring.Question) ([]ring.Reply, error) {
	cfg, err := c.ring(ctx)
	if err != nil {
		return nil, err
	}
	first, rest := q.Images, []ring.Image(nil)
	if len(first) > ring.MaxImages {
		first, rest = first[:ring.MaxImages], first[ring.MaxImages:]
	}
	replies, err := ring.Ask(ctx, cfg, ring.Question{Images: first, All: q.All})
	for some := range slices.Chunk(rest, ring.MaxImages) {
		var more []ring.Reply
		if err == nil {
			more, err = ring.Ask(ctx, cfg, ring.Question{Images: some})
		}
		for i, r := range more {
			if replies[i].State == "" {
				replies[i].State, replies[i].Cause = r.State, r.Cause
				replies[i].Images = append(replies[i].Images, r.Images...)
			}
		}
	}
	return replies, err
}

// ring returns what package ring needs to reach the nodes.
func (c Config) ring(ctx context.Context) (ring.Config, error) {
	id, err := key(c.Keys)
	if err != nil {
		return ring.Config{}, err
	}
	peers, err := push.Resolve(ctx, c.Nodes, c.Port)
	return ring.Config{
		Nodes: peers, Software: c.Software,
		TLS: func(node string) *tls.Config { return id.ClientConfig(ring.ALPNControl, node) },
	}, err
}

// NotAsked is the state of a reply in place of which there is only what a controller says of the node.
const NotAsked ring.State = "unasked"

// Unanswered returns replies of nodes that were not asked.
func Unanswered(nodes []string) (replies []ring.Reply) {
	for _, n := range nodes {
		replies = append(replies, ring.Reply{Node: n, State: NotAsked})
	}
	return replies
}

// NoKey reports whether an error of Ask says that there is no key to ask with, or none that this user may read.
func NoKey(err error) bool {
	none, key := new(identity.NotFoundError), new(identity.KeyError)
	return errors.As(err, &none) || errors.As(err, &key) && (key.Problem == identity.Missing || errors.Is(key, fs.ErrPermission))
}

// OnlyLooks reports whether the key in a directory with which nodes are asked is that of a viewer, which changes nothing.
func OnlyLooks(flag string) bool {
	id, err := key(flag)
	return err == nil && id.Role == identity.Viewer
}

// key loads the key with which nodes are asked.
func key(flag string) (*identity.Identity, error) {
	dir, err := identity.Find(flag)
	if err != nil {
		return nil, err
	}
	id, err := identity.Load(dir, identity.Sender)
	if err == nil {
		return id, nil
	}
	viewer, verr := identity.Load(dir, identity.Viewer)
	if verr == nil {
		return viewer, nil
	}
	if missing := new(identity.KeyError); errors.As(err, &missing) && missing.Problem == identity.Missing {
		if errors.As(verr, &missing); missing.Problem != identity.Missing {
			return nil, verr // the key of a viewer is there, and cannot be used
		}
	}
	return nil, err
}
