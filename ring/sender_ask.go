package ring

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// maxAsked is how many nodes are asked beside each other. The processor has the handshakes of so many done long before any of them
// would be late, and silent nodes hold up few others.
const maxAsked = 256

// Reply is what became of a question to one node, or of wishes.
type Reply struct {
	// Node is the Name of the Peer.
	Node string
	// State is "" if the node answered, else Unreachable, Refused or Failed, and then Cause says why.
	State State
	Cause Cause
	// Software is the node's program and version, and Platform what its processor can run, as in a Greeting. Both are empty of a
	// node that could not be greeted.
	Software, Platform string
	// Holdings is the answer to a Question.
	Holdings
}

// Ask asks all nodes of cfg what they hold, beside each other, and returns their replies in the order of cfg.Nodes. It disturbs no
// transfer and leaves nothing on a node, so any number of programs may ask at any time. A node that says nothing for 5 s, or does not
// answer within 25 s, is not waited for. Of cfg only Nodes, TLS and Software are used. The error says that cfg or q cannot be used.
func Ask(ctx context.Context, cfg Config, q Question) ([]Reply, error) {
	c, err := newAsker(cfg)
	if err != nil {
		return nil, err
	}
	return c.askAll(ctx, q)
}

// Want replaces what owner wants all nodes of cfg to keep, as a whole, and returns what became of it on each, as Ask does. Where State is
// "", the wishes are durable there. Holdings is empty.
func Want(ctx context.Context, cfg Config, owner string, wishes []Wish) ([]Reply, error) {
	c, err := newAsker(cfg)
	if err != nil {
		return nil, err
	}
	m := &wire.Want{Owner: owner}
	for _, w := range wishes {
		m.Images = append(m.Images, wire.Wish(w))
	}
	return c.questionAll(ctx, m)
}

func newAsker(cfg Config) (*caller, error) {
	if cfg.TLS == nil {
		return nil, errors.New("ring: a question needs a TLS configuration")
	}
	var err error
	if cfg.Nodes, err = checkNodes(cfg.Nodes); err != nil {
		return nil, err
	}
	c := newCaller(cfg)
	return &c, nil
}

func (c *caller) askAll(ctx context.Context, q Question) ([]Reply, error) {
	m := &wire.Ask{All: q.All}
	for _, i := range q.Images {
		m.Images = append(m.Images, wire.Image(i))
	}
	return c.questionAll(ctx, m)
}

func (c *caller) questionAll(ctx context.Context, m wire.Message) ([]Reply, error) {
	b, err := wire.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	replies := make([]Reply, len(c.nodes))
	places := make(chan struct{}, maxAsked)
	var work sync.WaitGroup
	for i, p := range c.nodes {
		r := &replies[i]
		r.Node = p.Name
		switch {
		case p.Err != nil:
			r.State, r.Cause = Unreachable, Cause{Fault: FaultName, Text: p.Err.Error()}
		case !take(ctx, places):
			r.State, r.Cause = Unreachable, because("not asked: "+context.Cause(ctx).Error())
		default:
			work.Go(func() {
				defer func() { <-places }()
				c.question(ctx, p, m, b, r)
			})
		}
	}
	work.Wait()
	return replies, nil
}

// question asks one node. b is m as it is encoded.
func (c *caller) question(ctx context.Context, p Peer, m wire.Message, b []byte, r *Reply) {
	ctrl, w, err := c.greet(ctx, p, false, timings.startLimit)
	if err != nil {
		if r.State, r.Cause = Unreachable, causeOf(err); isRefusal(err) {
			r.State = Refused
		}
		return
	}
	defer func() {
		ctrl.finish()
		<-ctrl.done
	}()
	r.Software, r.Platform = wire.Printable(w.Software), wire.Printable(w.Platform)
	if w.Version < wire.AsksSince {
		r.State, r.Cause = Refused, Cause{Fault: FaultOld, Text: fmt.Sprintf("speaks %s, and such a question is of protocol %d: upgrade the nodes first", versions(w.Version, w.Version, w.Software), wire.AsksSince)}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timings.replyFor)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ctrl.conn.Close() })()
	ctrl.sendBytes(b)
	answer, err := ctrl.next()
	if err != nil {
		r.State, r.Cause = Failed, because(c.unanswered(ctx, ctrl, err))
		return
	}
	r.take(m, answer)
}

// next returns the next message that is not PONG.
func (c *control) next() (wire.Message, error) {
	for {
		m, err := c.read(timings.silence)
		if _, pong := m.(*wire.Pong); err != nil || !pong {
			return m, err
		}
	}
}

// unanswered words why no answer was read.
func (c *caller) unanswered(ctx context.Context, ctrl *control, err error) string {
	switch bad := unread(err, ctrl.version, ctrl.software, c.software); {
	case bad != nil:
		return wire.Printable(bad.Error())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("does not answer in %v", timings.replyFor)
	case ctx.Err() != nil:
		return context.Cause(ctx).Error()
	case isTimeout(err):
		return fmt.Sprintf("silent for %v", timings.silence)
	}
	return "connection lost"
}

// take notes what the node answered to m.
func (r *Reply) take(m, answer wire.Message) {
	var code wire.Code
	var reason string
	fits := false
	switch a := answer.(type) {
	case *wire.Holds:
		code, reason = a.Code, a.Reason
		ask, asked := m.(*wire.Ask)
		if fits = asked && (code != wire.CodeNone || answers(a, ask)); fits {
			r.Holdings = holdings(a)
		}
	case *wire.Wanted:
		code, reason = a.Code, a.Reason
		_, fits = m.(*wire.Want)
	case *wire.Answer: // it could not read what it was asked
		code, reason, fits = a.Code, a.Reason, a.Code != wire.CodeNone
	}
	switch {
	case !fits:
		r.State, r.Cause = Failed, because("answers something else than it was asked")
	case code.Refuses():
		r.State, r.Cause = Refused, Cause{Fault: FaultDenied, Text: wire.Printable(reason)}
	case code != wire.CodeNone:
		r.State, r.Cause = Failed, because(wire.Printable(reason))
	}
}

// answers reports whether h begins with what ask asks about, and has other images only if it asks about all.
func answers(h *wire.Holds, ask *wire.Ask) bool {
	for i, image := range ask.Images {
		if i >= len(h.Images) || h.Images[i].Name != image.Name || image.Digest != "" && h.Images[i].Digest != image.Digest {
			return false
		}
	}
	return ask.All || len(h.Images) == len(ask.Images)
}

func holdings(h *wire.Holds) Holdings {
	out := Holdings{More: h.More, Free: h.Free, Max: h.Max, Reserve: h.Reserve, Wanted: h.Wanted}
	for _, i := range h.Images {
		out.Images = append(out.Images, HeldImage{
			Name: wire.Printable(i.Name), Digest: i.Digest, State: HoldState(i.State), Named: i.Named,
			Bytes: i.Bytes, Lacks: i.Lacks, Owners: i.Owners, Why: wire.Printable(i.Why),
		})
		for k, owner := range i.Owners {
			i.Owners[k] = wire.Printable(owner)
		}
	}
	return out
}
