package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// overwriting is what is known of the target of a node that overwrites something for good.
type overwriting struct {
	// started says that START was sent, and ordered that COMMIT was.
	started, ordered bool
	// state is what the node last said of its target.
	state wire.TargetState
	// ended says that the node has failed by its own word, before which it says what its target stays.
	ended bool
}

func (o *overwriting) start()  { o.started = true }
func (o *overwriting) order()  { o.ordered = true }
func (o *overwriting) failed() { o.ended = true }

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

// becomes returns what became of the target of node i, whose row ends in s; "" of a node that overwrites nothing.
func (c *Machine) becomes(i int, s State) wire.TargetState {
	n := &c.nodes[i]
	if n.row.Target == "" {
		return ""
	}
	return n.overwriting.becomes(s, !c.marked)
}
