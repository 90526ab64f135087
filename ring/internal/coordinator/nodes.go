package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// Waiting is what a node waits for.
type Waiting string

// What a node may wait for. "" is nothing: it works, no wait took most of its time, or its part has ended.
const (
	WaitsAnswer    Waiting = "answer"    // it was dialled or asked, and has not answered
	WaitsTransfer  Waiting = "transfer"  // another transfer on it has to end
	WaitsStart     Waiting = "start"     // it has answered, and the transfer has not begun
	WaitsLink      Waiting = "link"      // a link into it is being made
	WaitsFeeder    Waiting = "feeder"    // its feeder has sent nothing more
	WaitsReceiver  Waiting = "receiver"  // a node that it feeds takes nothing more
	WaitsDisk      Waiting = "disk"      // its storage
	WaitsProcessor Waiting = "processor" // its processor
	WaitsLimit     Waiting = "limit"     // a limit on its rate
	WaitsSource    Waiting = "source"    // it has everything, and the server has not read its source to the end
	WaitsCommit    Waiting = "commit"    // it was told to commit, and has not said that it has
)

// NodeNow is how things stand with a node. Numbers of nodes are those of Machine; -1 is none.
type NodeNow struct {
	State    State
	Wait     Waiting
	WaitsFor int   // whom it waits for
	Bytes    int64 // that it holds
	Checked  int64 // that it has compared before the start, or has read back
	Rate     int64 // bytes per second that came in lately
	Feeder   int   // who feeds it, or has fed it
	Linked   bool  // the link into it is up
	Bypassed bool  // it feeds nobody, and a link leads from a node before it to one behind it
	Slow     bool  // it is served behind the others
	Cause    Cause // why it is out, or what happened to it
}

// Nodes says how things stand with all nodes. That of node i is at i-1.
func (c *Machine) Nodes() []NodeNow {
	all := make([]NodeNow, len(c.nodes)-1)
	// feeds has for each node the first one that it feeds. passing counts where links begin to pass over nodes, and where they end.
	feeds, passing := make([]int, len(c.nodes)), make([]int, len(c.nodes)+1)
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		now := &all[i-1]
		*now = c.nodeNow(i)
		if f := now.Feeder; f >= 0 && n.phase >= phServing && n.row.State != Failed && !n.pace.slow {
			if feeds[f] == 0 {
				feeds[f] = i
			}
			if f < i-1 {
				passing[f+1]++
				passing[i]--
			}
		}
	}
	over := 0
	for i := 1; i < len(c.nodes); i++ {
		over += passing[i]
		now := &all[i-1]
		now.Bypassed = over > 0 && feeds[i] == 0 && !now.State.Good()
		if now.Wait == WaitsReceiver && feeds[i] > 0 {
			now.WaitsFor = feeds[i]
		}
	}
	return all
}

// nodeNow says how things stand with node i, but for what other nodes tell of it.
func (c *Machine) nodeNow(i int) NodeNow {
	n := &c.nodes[i]
	now := NodeNow{
		State: n.row.State, WaitsFor: -1, Feeder: -1, Slow: n.pace.slow && n.phase == phServing, Cause: n.note,
		Bytes: min(n.row.Skipped+n.progress.report.Received, c.size), Rate: n.progress.rate,
	}
	if n.phase >= phServing && n.feed.link != 0 && n.feed.state != feedNone && n.feed.state != feedAsked {
		now.Feeder, now.Linked = n.feed.feeder, n.feed.state == feedUp
	}
	if n.phase != phServing || n.feed.state == feedDone {
		now.Rate = 0
	}
	switch {
	case n.phase == phAway && !n.contact.met:
		now.State, now.Cause = Unreachable, n.row.Cause
	case n.phase == phAway:
		now.State, now.Cause = Lost, n.row.Cause
	case n.phase == phFinal:
		now.Cause = n.row.Cause
	case n.phase == phReady && n.compared.waits():
		now.Checked = n.compared.good
	case n.phase == phServing:
		now.Checked = max(0, min(n.progress.report.Checked, c.size))
	}
	if n.phase == phFinal {
		now.Bytes = min(n.row.Skipped+n.row.Bytes, c.size)
	}
	switch now.Wait = c.waiting(i); now.Wait {
	case WaitsFeeder:
		now.WaitsFor = now.Feeder
	case WaitsSource:
		now.WaitsFor = 0
	}
	return now
}

// waiting is what node i waits for.
func (c *Machine) waiting(i int) Waiting {
	n := &c.nodes[i]
	switch n.phase {
	case phFinal:
		return ""
	case phAway, phDialing:
		return WaitsAnswer
	case phAsked:
		if n.contact.busy {
			return WaitsTransfer
		}
		return WaitsAnswer
	case phReady:
		if n.compared.waits() {
			return ""
		}
		return WaitsStart
	case phVerified:
		return WaitsSource
	case phCommitting:
		return WaitsCommit
	}
	if !n.contact.alive {
		return WaitsAnswer
	}
	if n.feed.state != feedUp && n.feed.state != feedDone {
		return WaitsLink
	}
	switch n.progress.report.Wait {
	case wire.WaitIn:
		if n.feed.state == feedDone {
			return ""
		}
		return WaitsFeeder
	case wire.WaitOut:
		return WaitsReceiver
	case wire.WaitDisk:
		return WaitsDisk
	case wire.WaitCPU:
		return WaitsProcessor
	case wire.WaitLimit:
		return WaitsLimit
	}
	return ""
}
