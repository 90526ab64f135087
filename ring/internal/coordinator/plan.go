package coordinator

import (
	"encoding/json"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// What is overwritten for good is confirmed before anything moves: a plan is closed, shown, and agreed to or not.

// start tells a node that what it lacks will come, and repeats what it said that it would overwrite.
func (c *Machine) start(i int) {
	c.nodes[i].overwriting.start()
	c.tell(i, &wire.Start{Target: json.RawMessage(c.nodes[i].row.Target)})
}

// plans reports whether a plan is still to be closed.
func (c *Machine) plans() bool { return c.cfg.Confirm && !c.cfg.Check && !c.planned }

// closePlan ends the nodes that have not answered, and has the others confirmed. If there are none, nothing is to be confirmed.
func (c *Machine) closePlan() {
	if c.planned {
		return
	}
	c.planned = true
	ready := false
	for i := 1; i < len(c.nodes); i++ {
		switch n := &c.nodes[i]; {
		case n.phase == phReady:
			ready = true
		case n.phase == phAway && n.contact.met:
			c.end(i, Failed, n.row.Cause)
		case n.phase < phReady: // none of them was asked: maybeStart waits for those
			c.unanswered(i)
		}
	}
	if ready {
		c.do(ActConfirm{})
	}
}

// confirm starts the transfer, or ends it if nobody agreed to the plan.
func (c *Machine) confirm(ev EvConfirmed) {
	if ev.Err != nil {
		c.abortAll(because(KindUnplanned, "the plan was not confirmed: nothing was overwritten"), wire.CodeAsked, ev.Err, true)
		return
	}
	c.agreed = true
}

// unplanned ends a node that would overwrite what nobody confirmed, and reports whether it did. A node that was lost and
// is back may describe its target in another way, because it has overwritten a part of it.
func (c *Machine) unplanned(ev EvAnswer) bool {
	n := &c.nodes[ev.Node]
	switch {
	case c.cfg.Check:
		return false
	case !c.cfg.Confirm && len(ev.Target) > 0:
		c.end(ev.Node, Refused, because(KindUnplanned, "it would overwrite what nobody confirmed"))
	case c.cfg.Confirm && len(ev.Target) == 0:
		c.end(ev.Node, Refused, because(KindUnplanned, "it does not say what it would overwrite"))
	case c.planned && n.row.Target == "":
		c.end(ev.Node, Refused, because(KindUnplanned, "not in the plan"))
	case c.planned && !c.same(n.row.Target, ev.Target):
		c.end(ev.Node, Failed, because(KindUnplanned, "came back, and would overwrite something else than in the plan"))
	default:
		return false
	}
	return true
}

func (c *Machine) same(planned string, now []byte) bool {
	if c.cfg.Same == nil {
		return planned == string(now)
	}
	return c.cfg.Same([]byte(planned), now)
}
