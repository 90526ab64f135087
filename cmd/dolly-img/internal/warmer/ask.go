package warmer

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// Ask asks nodes beside each other, and has those keep what their queries wish. What it wishes has the name in the controller's certificate as its owner.
func (e *Effects) Ask(ctx context.Context, queries []*warm.Query, answer func(q *warm.Query, a warm.Answer, err error)) {
	id, err := e.identity()
	if err == nil {
		err = e.ask(ctx, id, queries, func(i int, r ring.Reply) {
			switch err := errors.New(r.Cause.String()); r.State {
			case "":
				answer(queries[i], answerOf(r, id.Name), nil)
			case ring.Unreachable:
				answer(queries[i], warm.Answer{}, err)
			default:
				answer(queries[i], warm.Answer{}, untold{err})
			}
		})
	}
	if err != nil {
		for _, q := range queries {
			answer(q, warm.Answer{}, untold{err})
		}
	}
}

// untold is the error of a node that does not tell what it holds though it is not away.
type untold struct{ error }

func (untold) Failed() bool { return true }

// ask asks. After an error it has asked nobody.
func (e *Effects) ask(ctx context.Context, id *identity.Identity, queries []*warm.Query, answer func(i int, r ring.Reply)) error {
	names := make([]string, len(queries))
	list := make([]ring.NodeQuery, len(queries))
	for i, q := range queries {
		names[i] = q.Node
		question := &ring.Question{}
		for _, image := range q.Images {
			question.Images = append(question.Images, ring.Image(image))
		}
		list[i].Question = question
		if q.Wishes == nil {
			continue
		}
		list[i].Wants = &ring.Wants{Owner: id.Name}
		for _, w := range q.Wishes {
			list[i].Wants.Wishes = append(list[i].Wants.Wishes, ring.Wish(w))
		}
	}
	peers, err := push.Resolve(ctx, names, ring.DefaultPort)
	if err != nil {
		return err
	}
	return ring.Query(ctx, ring.Config{
		Nodes: peers, Software: e.cfg.Software,
		TLS: func(node string) *tls.Config { return id.ClientConfig(ring.ALPNControl, node) },
	}, list, answer)
}

// answerOf returns what a node says to a warmer of this name. Only what it says it holds whole lacks nothing.
func answerOf(r ring.Reply, warmer string) warm.Answer {
	a := warm.Answer{Room: r.Free, Wanted: r.Wanted, Most: r.Max}
	for _, i := range r.Images {
		h := warm.Holding{Named: i.Named, Lacks: i.Lacks}
		switch {
		case i.State == ring.HoldsAll:
			h.Lacks = 0
		case h.Lacks <= 0:
			h.Lacks = -1
		}
		if i.NameOwner != "" && i.NameOwner != warmer && i.Named != i.Digest {
			h.Conflict = fleet.OwnedBy(i.NameOwner)
		}
		a.Images = append(a.Images, h)
	}
	return a
}
