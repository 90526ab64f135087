package coordinator

import (
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// overwriting is what is known of the target of a node that overwrites something for good.
type overwriting struct {
	// started says that START was sent, and ordered that COMMIT was.
	started, ordered bool
	// state is what the node last said of its target.
	state wire.TargetState
	// ended says that the node has failed by its own word, before which it says what its target stays.
	ended bool
	// parting says that the server has ended the node's part, and that the node has not yet said what its target stays.
	parting bool
}

func (o *overwriting) start()  { o.started = true }
func (o *overwriting) order()  { o.ordered = true }
func (o *overwriting) failed() { o.ended = true }
func (o *overwriting) part()   { o.parting = true }
func (o *overwriting) parted() { o.parting = false }

// report keeps what a report says.
func (o *overwriting) report(r wire.Report) {
	if r.Target != "" {
		o.state = r.Target
	}
}

// becomes returns what became of the target of a node whose row ends in s. unmarked says that there was no mark yet, so that
// no node can have overwritten anything.
func (o *overwriting) becomes(s State, unmarked bool) wire.TargetState {
	switch {
	case s.Good():
		return wire.TargetComplete
	case !o.started:
		return wire.TargetUntouched
	case o.ordered && !o.ended:
		return wire.TargetUnknown
	case o.state == wire.TargetOverwritten:
		return wire.TargetOverwritten
	case o.ended && o.state == wire.TargetUntouched, unmarked:
		return wire.TargetUntouched
	}
	return wire.TargetUnknown
}

// parts reports whether node i, whose part the server ends with s, has still to say what its target stays.
func (c *Machine) parts(i int, s State) bool {
	n := &c.nodes[i]
	return n.contact.alive && !n.overwriting.ordered && c.becomes(i, s) == wire.TargetUnknown
}

// Parting reports whether some node, whose part the server has ended, has still to say what its target stays.
func (c *Machine) Parting() bool {
	return slices.ContainsFunc(c.nodes, func(n node) bool { return n.overwriting.parting })
}

// lastWord takes what such a node says, and reports whether ev is of one.
func (c *Machine) lastWord(ev Event) bool {
	i := 0
	switch ev := ev.(type) {
	case EvReport:
		i = ev.Node
	case EvFail:
		i = ev.Node
	case EvControlLost:
		i = ev.Node
	}
	n := &c.nodes[i]
	if !n.overwriting.parting {
		return false
	}
	switch ev := ev.(type) {
	case EvReport:
		n.overwriting.report(ev.Report)
		return true
	case EvFail:
		if ev.Code != wire.CodeVersion { // the server itself may have found that out
			n.overwriting.failed()
		}
	}
	n.overwriting.parted()
	n.row.Became = c.becomes(i, n.row.State)
	c.do(ActHangup{i})
	return true
}

// becomes returns what became of the target of node i, whose row ends in s; "" of a node that overwrites nothing.
func (c *Machine) becomes(i int, s State) wire.TargetState {
	n := &c.nodes[i]
	if n.row.Target == "" {
		return ""
	}
	return n.overwriting.becomes(s, !c.marked)
}
