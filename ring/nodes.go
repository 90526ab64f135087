package ring

import "time"

// NodesSnapshot is a transfer at a moment, node by node, for displays.
type NodesSnapshot struct {
	Time     time.Time
	Transfer string
	Phase    Phase
	// Sums is what an EventProgress tells at this moment: bytes, rate, how many nodes are done, what limits it.
	Sums Event
	// Left is how long the rest takes at this rate. 0 is not known.
	Left time.Duration
	// Nodes are in the order of Config.Nodes.
	Nodes []NodeNow
}

// Phase is how far a transfer is as a whole.
type Phase string

// The phases of a transfer, in their order.
const (
	PhaseAsk     Phase = "asking"     // nodes are asked, and a plan is confirmed
	PhaseCompare Phase = "comparing"  // nodes compare what they have (Config.Update)
	PhaseSend    Phase = "sending"    // bytes move
	PhaseVerify  Phase = "verifying"  // nodes read back what they stored
	PhaseCommit  Phase = "committing" // all that are served have everything
	PhaseEnd     Phase = "ended"      // every node has its final state
)

// NodeNow is how things stand with one node. Fields that are numbers of nodes count from 1 in the order of Config.Nodes: 0 is
// the server, and -1 nobody.
type NodeNow struct {
	Name  string
	State State
	// Wait is what it waits for, and WaitsFor whom. State and Wait are so since Since.
	Wait     NodeWait
	WaitsFor int
	Since    time.Time
	// Bytes is how much it holds. Checked is how much of that it has compared before the start, or has read back. Rate is how many
	// bytes per second came in lately.
	Bytes, Checked, Rate int64
	// Feeder is who feeds it, or has fed it last. Linked says that the link is up.
	Feeder int
	Linked bool
	// Bypassed says that the chain goes around it: it feeds nobody, and a link leads from a node before it to one behind it.
	Bypassed bool
	// Slow says that it was found slower than the others, and is served behind them.
	Slow bool
	// Cause is why it is out, or what happened to it. Its texts are safe to print, and may be the node's own.
	Cause Cause
}

// NodeWait is what a node waits for.
type NodeWait string

// What a node may wait for. "" is nothing: it works, no wait took most of its time, or its part has ended.
const (
	WaitAnswer    NodeWait = "answer"    // it was dialled or asked, and has not answered
	WaitTransfer  NodeWait = "transfer"  // another transfer on it has to end
	WaitStart     NodeWait = "start"     // it has answered, and the transfer has not begun
	WaitLink      NodeWait = "link"      // a link into it is being made
	WaitFeeder    NodeWait = "feeder"    // its feeder has sent nothing more
	WaitReceiver  NodeWait = "receiver"  // a node that it feeds takes nothing more
	WaitDisk      NodeWait = "disk"      // its storage
	WaitProcessor NodeWait = "processor" // its processor
	WaitLimit     NodeWait = "limit"     // a limit on its rate
	WaitSource    NodeWait = "source"    // it has everything, and the server has not read its source to the end
	WaitCommit    NodeWait = "commit"    // it was told to commit, and has not said that it has
)

// seen is what the last snapshot had of a node.
type seen struct {
	state State
	wait  NodeWait
	whom  int
	since time.Time
}

// snapshot makes a snapshot. sums are its sums.
func (s *sender) snapshot(now time.Time, phase Phase, sums Event) NodesSnapshot {
	sums.Time, sums.Transfer = now, s.id.String()
	snap := NodesSnapshot{Time: now, Transfer: sums.Transfer, Phase: phase, Sums: sums}
	if rest := float64(sums.Total - sums.Bytes); rest > 0 && sums.Rate >= 1 {
		snap.Left = time.Duration(min(rest/sums.Rate, maxLeft.Seconds()) * float64(time.Second))
	}
	nodes := s.chain.Nodes()
	snap.Nodes = make([]NodeNow, len(nodes))
	for i, n := range nodes {
		shown := &s.shown[i+1]
		is := seen{state: State(n.State), wait: NodeWait(n.Wait), whom: n.WaitsFor, since: now}
		if was := shown.seen; was.state == is.state && was.wait == is.wait && was.whom == is.whom {
			is.since = was.since
		}
		shown.seen = is
		cause := publicCause(n.Cause)
		if is.state == Pending {
			cause = shown.cause // why it does not answer, or what it waits for
		}
		snap.Nodes[i] = NodeNow{
			Name: s.cfg.Nodes[i].Name, State: is.state, Wait: is.wait, WaitsFor: is.whom, Since: is.since,
			Bytes: n.Bytes, Checked: n.Checked, Rate: n.Rate, Feeder: n.Feeder, Linked: n.Linked, Bypassed: n.Bypassed, Slow: n.Slow, Cause: cause,
		}
	}
	return snap
}

// maxLeft is more than any transfer takes.
const maxLeft = 1000 * time.Hour

// endNodes gives out the snapshot of the end.
func (s *sender) endNodes() {
	if s.cfg.OnNodes == nil {
		return
	}
	p := s.chain.Progress()
	sums := Event{Kind: EventProgress, Total: s.relay.Total(), Done: p.Done, Serving: p.Serving}
	if p.Done > 0 {
		sums.Bytes = max(sums.Total, 0)
	}
	s.cfg.OnNodes(s.snapshot(time.Now(), PhaseEnd, sums))
}
