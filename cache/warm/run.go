package warm

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
)

const (
	tick = time.Second
	// temps is the directory in that of the state where its files are made.
	temps = "new"
)

// An Effects is what a controller has done for it. Every method is called beside others, and returns soon after its context
// has ended. Errors are shown to people, so they have no credentials.
type Effects interface {
	// Nodes returns the nodes of a group (ReadNodes).
	Nodes(ctx context.Context, g *Group) ([]string, error)
	// Lookup asks what an entry of the list stands for. It reads no more than it needs for that: HEAD, where the digest is a
	// known one. An error with a method RetryAfter() time.Duration says for how long the registry does not want to be asked,
	// one with a method Sure() bool that is true that it would say the same if it was asked again soon. What is not known to be so is asked for again after retry.
	Lookup(ctx context.Context, l *Lookup) ([]Tag, error)
	// Ask asks nodes beside each other, and calls answer once for each node, in any order, also from several goroutines.
	// It sets its own bounds to how many it asks at once and how long it waits. An error is of a node that does not answer, but one with a
	// method Failed() bool that is true is of a node that answers and does not tell, or of this side. A cache that gets the wishes that it has writes nothing.
	Ask(ctx context.Context, queries []*Query, answer func(q *Query, a Answer, err error))
	// Push runs a ring and returns a row for each node. It calls progress now and then. rates has each new bound in bytes per second.
	// Where ctx ends, rows are Interrupted unless they are Committed. The error is that of the source.
	Push(ctx context.Context, p *Push, rates <-chan int64, progress func(Progress)) ([]Row, error)
	// Keep replaces this owner's wishes in the cache of the controller itself, from which it pushes.
	Keep(ctx context.Context, wishes []Wish) error
}

// A Config says how a controller runs.
type Config struct {
	// List reads the list: at the start, and again for each Reload.
	List    func() (*List, error)
	Reload  <-chan struct{}
	Effects Effects
	// State is the directory of the state. nil keeps none.
	State durable.FS
	// Fresh asks for all tags at once, also for those that the state puts off.
	Fresh bool
	// Log may be nil.
	Log *slog.Logger
}

// A Controller keeps a list warm.
type Controller struct {
	cfg     Config
	m       *Machine
	log     *slog.Logger
	began   time.Time
	events  chan Event
	asked   chan chan *Snapshot
	running map[int]*ring
	saving  saving
	wg      sync.WaitGroup
}

// ring is a push that runs.
type ring struct {
	stop  context.CancelFunc
	rates chan int64 // the newest that was not read
}

// NewController returns a controller that does nothing before Run.
func NewController(cfg Config) *Controller {
	c := &Controller{cfg: cfg, log: cfg.Log, events: make(chan Event), asked: make(chan chan *Snapshot), running: map[int]*ring{}, saving: saving{wake: make(chan struct{}, 1)}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Snapshot returns what is known now. It waits for Run to begin, and ends with its context.
func (c *Controller) Snapshot(ctx context.Context) (*Snapshot, error) {
	reply := make(chan *Snapshot, 1)
	select {
	case c.asked <- reply:
		return <-reply, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Controller) now() Now {
	t := time.Now()
	return Now{Since: t.Sub(c.began), Wall: t}
}

// Run keeps the list warm until ctx ends, and then interrupts the rings. Its error is that of the list at the start; after that a
// list that is wrong is refused, and the one before stands.
func (c *Controller) Run(ctx context.Context) error {
	list, err := c.cfg.List()
	if err != nil {
		return err
	}
	c.began = time.Now()
	c.m = New(c.now(), list, c.load(), rand.Uint64())
	ctx, cancel := context.WithCancel(ctx)
	defer c.wg.Wait()
	defer cancel()
	c.wg.Go(func() { c.save(ctx) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	c.step(ctx, EvTick{})
	for {
		select {
		case <-ctx.Done():
			return c.end(cancel)
		case <-ticker.C:
			c.step(ctx, EvTick{})
		case <-c.cfg.Reload:
			c.reload(ctx)
		case ev := <-c.events:
			if done, ok := ev.(EvPushed); ok {
				delete(c.running, done.Push)
			}
			c.step(ctx, ev)
		case reply := <-c.asked:
			reply <- c.m.Snapshot(c.now())
		}
	}
}

// load reads the state. One that cannot be read is as none: all but older digests is found again.
func (c *Controller) load() *State {
	if c.cfg.State == nil {
		return nil
	}
	if names, err := c.cfg.State.Names(temps); err == nil {
		for _, name := range names {
			durable.RemoveOrphan(c.cfg.State, temps+"/"+name)
		}
	}
	s, err := loadState(c.cfg.State)
	if err != nil {
		c.log.Error("the state is not used, everything is asked for again", "error", err)
	}
	if s != nil && c.cfg.Fresh {
		for i := range s.Images {
			s.Images[i].Next = time.Time{}
		}
	}
	return s
}

func (c *Controller) reload(ctx context.Context) {
	list, err := c.cfg.List()
	if err != nil {
		c.log.Error("the list is refused, the one before stands", "error", err)
		c.step(ctx, EvRefused{publicly(err)})
		return
	}
	c.log.Info("the list was read again", "images", len(list.Images))
	c.step(ctx, EvList{list})
}

// step has the machine take an event, and begins what it wants done.
func (c *Controller) step(ctx context.Context, ev Event) {
	for _, a := range c.m.Step(c.now(), ev) {
		switch a := a.(type) {
		case ActNodes:
			c.wg.Go(func() {
				names, err := c.cfg.Effects.Nodes(ctx, &a.Group)
				c.tell(ctx, EvNodes{a.Group.Name, names, c.said("nodes", a.Group.Name, err)})
			})
		case ActLookup:
			c.wg.Go(func() { c.lookup(ctx, a.Lookup) })
		case ActAsk:
			c.wg.Go(func() {
				c.cfg.Effects.Ask(ctx, a.Queries, func(q *Query, answer Answer, err error) {
					var failed interface{ Failed() bool }
					c.tell(ctx, EvAnswer{q, answer, why(err), errors.As(err, &failed) && failed.Failed()})
				})
			})
		case ActPush:
			c.push(ctx, a.Push)
		case ActRate:
			c.running[a.Push].rate(a.Rate)
		case ActStop:
			c.running[a.Push].stop()
		case ActSave, ActKeep:
			c.saving.put(a)
		}
	}
}

// tell gives an event to the loop of Run.
func (c *Controller) tell(ctx context.Context, ev Event) {
	select {
	case c.events <- ev:
	case <-ctx.Done():
	}
}

// why returns what an error says; "" is none.
func why(err error) string {
	switch {
	case err == nil:
		return ""
	case err.Error() == "":
		return "failed"
	}
	return err.Error()
}

// said logs an error and returns what it says. Only the log has its details.
func (c *Controller) said(what, of string, err error) string {
	about := []any{"of", of, "error", err}
	if more := (*nodesError)(nil); errors.As(err, &more) {
		about = append(about, "details", more.details)
	}
	if err != nil {
		c.log.Warn(what, about...)
	}
	return why(err)
}

func (c *Controller) lookup(ctx context.Context, l Lookup) {
	tags, err := c.cfg.Effects.Lookup(ctx, &l)
	ev := EvFound{Lookup: l, Tags: tags, Why: c.said("lookup", l.Image.Ref, err)}
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		ev.Wait = later.RetryAfter()
	}
	var sure interface{ Sure() bool }
	ev.Sure = errors.As(err, &sure) && sure.Sure()
	c.tell(ctx, ev)
}

func (r *ring) rate(rate int64) {
	select {
	case <-r.rates:
	default:
	}
	r.rates <- rate
}

// push begins a ring. It ends with an EvPushed, unless ctx has ended.
func (c *Controller) push(ctx context.Context, p Push) {
	inner, stop := context.WithCancel(ctx)
	r := &ring{stop, make(chan int64, 1)}
	c.running[p.ID] = r
	c.log.Info("push", "ref", p.Ref, "digest", p.Digest, "nodes", len(p.Nodes))
	if len(p.Back) > 0 {
		c.log.Warn("the name leads to another image, which this controller did not push, and is moved back", "name", p.Name, "nodes", len(p.Back), "names", names(p.Back))
	}
	c.wg.Go(func() {
		defer stop()
		rows, err := c.cfg.Effects.Push(inner, &p, r.rates, func(now Progress) {
			c.tell(inner, EvProgress{p.ID, now})
		})
		if inner.Err() != nil {
			err = nil // It was interrupted, and the source did not fail.
		}
		c.logRows(&p, rows, err)
		c.tell(ctx, EvPushed{p.ID, rows, why(err)})
	})
}
