package ring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// maxAsked is how many nodes are asked beside each other. The processor has the handshakes of so many done long before any of them
// would be late. One that does not answer for timings.turn is not counted any more, so that silent nodes hold up few others.
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
	return c.questionAll(ctx, wantOf(owner, wishes))
}

// A NodeQuery is what one node is told and asked over one connection.
type NodeQuery struct {
	// Wants replaces what an owner wants the node to keep, before it is asked. nil leaves all wishes alone.
	Wants *Wants
	// Question is what the node is asked. nil asks nothing.
	Question *Question
}

// Wants are all wishes of an owner.
type Wants struct {
	Owner  string
	Wishes []Wish
}

// Query tells and asks each node of cfg its own query, as Want and Ask do for all. queries[i] is for cfg.Nodes[i], and answer is called
// once for each i, from several goroutines, as soon as that node has answered or is given up. A node that does not take the
// wishes is not asked. The error says that cfg or queries cannot be used, and then answer is not called.
func Query(ctx context.Context, cfg Config, queries []NodeQuery, answer func(i int, r Reply)) error {
	if len(queries) != len(cfg.Nodes) {
		return fmt.Errorf("ring: %d queries for %d nodes", len(queries), len(cfg.Nodes))
	}
	c, err := newAsker(cfg)
	if err != nil {
		return err
	}
	c.queryAll(ctx, queries, answer)
	return nil
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

func (c *caller) queryAll(ctx context.Context, queries []NodeQuery, answer func(i int, r Reply)) {
	c.each(ctx, func(i int) (list []said, err error) {
		q := queries[i]
		if q.Wants != nil {
			list, err = saying(list, wantOf(q.Wants.Owner, q.Wants.Wishes))
		}
		if q.Question != nil && err == nil {
			list, err = saying(list, askOf(*q.Question))
		}
		return list, err
	}, answer)
}

func (c *caller) askAll(ctx context.Context, q Question) ([]Reply, error) {
	return c.questionAll(ctx, askOf(q))
}

// questionAll says the same to all nodes.
func (c *caller) questionAll(ctx context.Context, m wire.Message) ([]Reply, error) {
	list, err := saying(nil, m)
	if err != nil {
		return nil, err
	}
	replies := make([]Reply, len(c.nodes))
	c.each(ctx, func(int) ([]said, error) { return list, nil }, func(i int, r Reply) { replies[i] = r })
	return replies, nil
}

// said is a message to a node, and how it is encoded.
type said struct {
	wire.Message
	b []byte
}

func saying(list []said, m wire.Message) ([]said, error) {
	b, err := wire.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	return append(list, said{m, b}), nil
}

func askOf(q Question) *wire.Ask {
	m := &wire.Ask{All: q.All}
	for _, i := range q.Images {
		m.Images = append(m.Images, wire.Image(i))
	}
	return m
}

func wantOf(owner string, wishes []Wish) *wire.Want {
	m := &wire.Want{Owner: owner}
	for _, w := range wishes {
		m.Images = append(m.Images, wire.Wish(w))
	}
	return m
}

// each says to each node what of returns for it, and calls answer with what became of that. What is said is made when it is the node's
// turn, so that not all of it is in memory at once.
func (c *caller) each(ctx context.Context, of func(i int) ([]said, error), answer func(i int, r Reply)) {
	c.beside(ctx, func(i int, why Cause) {
		answer(i, Reply{Node: c.nodes[i].Name, State: Unreachable, Cause: why})
	}, func(i int, next func()) {
		r := Reply{Node: c.nodes[i].Name}
		if list, err := of(i); err != nil {
			r.State, r.Cause = Failed, because(err.Error())
		} else {
			c.question(ctx, c.nodes[i], list, &r)
		}
		next()
		answer(i, r)
	})
}

// beside calls call for the nodes beside each other, and unasked for those that are not called and why. At most maxAsked are called that did not
// call next yet, or are not silent for longer than timings.turn. It returns when all calls have.
func (c *caller) beside(ctx context.Context, unasked func(i int, why Cause), call func(i int, next func())) {
	places := make(chan struct{}, maxAsked)
	var work sync.WaitGroup
	defer work.Wait()
	for i, p := range c.nodes {
		switch {
		case p.Err != nil:
			unasked(i, Cause{Fault: FaultName, Text: p.Err.Error()})
		case !take(ctx, places):
			unasked(i, because("not asked: "+context.Cause(ctx).Error()))
		default:
			release := sync.OnceFunc(func() { <-places })
			turn := time.AfterFunc(timings.turn, release)
			work.Go(func() {
				call(i, func() { turn.Stop(); release() })
			})
		}
	}
}

// question says list to one node, and reads its answers.
func (c *caller) question(ctx context.Context, p Peer, list []said, r *Reply) {
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
		r.State, r.Cause = Refused, tooOld(w, wire.AsksSince)
		return
	}
	for _, m := range list {
		ctrl.sendBytes(m.b)
	}
	for _, m := range list {
		if c.answered(ctx, ctrl, m, r); r.State != "" {
			return
		}
	}
}

// answered reads the answer to m.
func (c *caller) answered(ctx context.Context, ctrl *control, m said, r *Reply) {
	ctx, cancel := context.WithTimeout(ctx, timings.replyFor)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ctrl.conn.Close() })()
	answer, err := ctrl.next()
	if err != nil {
		r.State, r.Cause = Failed, because(c.unanswered(ctx, ctrl, err))
		return
	}
	r.take(m.Message, answer)
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
			Name: wire.Printable(i.Name), Digest: i.Digest, State: HoldState(i.State), Named: i.Named, NameOwner: wire.Printable(i.NameOwner),
			Bytes: i.Bytes, Lacks: i.Lacks, Owners: i.Owners, Why: wire.Printable(i.Why),
		})
		for k, owner := range i.Owners {
			i.Owners[k] = wire.Printable(owner)
		}
	}
	return out
}
