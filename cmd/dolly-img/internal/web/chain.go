package web

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// states and waits are what the columns st and wt have numbers of. The first ones are those of a node of which nothing was said yet.
var (
	states = []ring.State{ring.Pending, ring.Serving, ring.Lost, ring.Committed, ring.Held, ring.Failed, ring.Refused, ring.Unreachable}
	waits  = []ring.NodeWait{"", ring.WaitAnswer, ring.WaitTransfer, ring.WaitStart, ring.WaitLink, ring.WaitFeeder, ring.WaitReceiver,
		ring.WaitDisk, ring.WaitProcessor, ring.WaitLimit, ring.WaitSource, ring.WaitCommit}
)

// mostHistory is how many rates are kept for the graph, about one a second.
const mostHistory = 900

// A Chain is what the page shows of one transfer. Its methods may be called beside each other.
type Chain struct {
	feed  *feed
	id    int
	title string

	mu      sync.Mutex
	began   time.Time
	last    ring.NodesSnapshot
	now     *view
	head    []byte // the event head, up to its history
	full    []byte // the event full of now, once somebody needs it
	delta   []byte // the event delta of now; nil if nobody looked when it came
	history [][2]int64
	ids     map[rowKey]int // the numbers of rows
	out     []time.Time    // since when each node is out, whether lost or failed; zero where it is not
	result  string
}

// view is a snapshot as the page gets it.
type view struct {
	frame
	columns [len(columnNames)][]int32
	rows    []row
}

// frame is what an event full or delta has.
type frame struct {
	Chain   int                `json:"c"`
	Number  uint64             `json:"n"`
	At      float64            `json:"t"`
	Phase   ring.Phase         `json:"phase"`
	Bytes   int64              `json:"bytes"`
	Total   int64              `json:"total"`
	Rate    int64              `json:"rate"`
	Left    int64              `json:"left"`
	Done    int                `json:"done"`
	Serving int                `json:"serving"`
	Limit   ring.Limit         `json:"limit"`
	Slowest string             `json:"slowest"`
	Result  string             `json:"result"`
	Columns map[string]*column `json:"columns"`
	Rows    *[]row             `json:"rows,omitempty"`
}

type column struct {
	Dense  []int32 `json:"d,omitempty"`
	Gaps   []int32 `json:"i,omitempty"`
	Values []int32 `json:"v,omitempty"`
}

// row is a reason, and the nodes that have it.
type row struct {
	ID    int        `json:"id"`
	State ring.State `json:"state"`
	Why   string     `json:"why"`
	Nodes string     `json:"nodes"`
	Count int        `json:"count"`
	Since int64      `json:"since"`
}

// rowKey is what the nodes of a row have in common: all but their addresses.
type rowKey struct {
	state ring.State
	cause ring.Cause
}

var columnNames = [...]string{"st", "wt", "wf", "si", "pm", "ck", "rt", "fd", "fl", "ro"}

// defaults are what columns begin with.
var defaults = [len(columnNames)]int32{2: -1, 7: -1, 9: -1}

// Snapshot shows a snapshot. All those of a chain have the same nodes.
func (c *Chain) Snapshot(s ring.NodesSnapshot) {
	watched := c.feed.watched()
	c.mu.Lock()
	if c.now == nil {
		c.begin(s)
	}
	v := c.view(s)
	if c.delta = nil; watched {
		c.delta = event("delta", v.since(c.now))
	}
	c.now, c.full, c.last = v, nil, s
	if s.Phase != ring.PhaseEnd {
		c.history = append(c.history, [2]int64{int64(v.At), v.Rate})
		c.history = c.history[max(0, len(c.history)-mostHistory):]
	}
	c.mu.Unlock()
	c.feed.wake()
}

// Report shows how the transfer ended. Rows may say more than the last snapshot, and there is none if the source could not be opened. The
// error is that of the sender.
func (c *Chain) Report(rep *ring.Report, err error) {
	c.mu.Lock()
	last := c.last
	last.Phase, last.Sums.Rate, last.Left = ring.PhaseEnd, 0, 0
	if len(last.Nodes) != len(rep.Nodes) {
		last = ring.NodesSnapshot{Time: time.Now(), Phase: ring.PhaseEnd, Nodes: slices.Repeat([]ring.NodeNow{{WaitsFor: -1, Feeder: -1}}, len(rep.Nodes))}
	}
	last.Nodes = slices.Clone(last.Nodes)
	for i, row := range rep.Nodes {
		n := &last.Nodes[i]
		if n.State != row.State {
			n.Name, n.State, n.Since = row.Node, row.State, last.Time
		}
		if n.Cause = row.Cause; n.Cause.String() != row.Reason {
			n.Cause = ring.Cause{Text: row.Reason}
		}
	}
	c.result = fmt.Sprintf("%d of %d nodes have it; exit status %d", rep.Count(), len(rep.Nodes), rep.Exit)
	if err != nil {
		c.result += ": " + printable.Line(err.Error())
	}
	c.mu.Unlock()
	c.Snapshot(last)
}

// Close takes the transfer off the page.
func (c *Chain) Close() { c.feed.remove(c) }

// begin notes what does not change.
func (c *Chain) begin(s ring.NodesSnapshot) {
	c.began, c.out = s.Time, make([]time.Time, len(s.Nodes))
	names := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		names[i] = n.Name
	}
	head, err := json.Marshal(struct {
		Chain  int             `json:"c"`
		Title  string          `json:"title"`
		Began  int64           `json:"began"`
		States []ring.State    `json:"states"`
		Waits  []ring.NodeWait `json:"waits"`
		Names  []string        `json:"names"`
	}{c.id, c.title, s.Time.UnixMilli(), states, waits, names})
	if err != nil {
		panic(err) // strings and numbers
	}
	c.head = head[:len(head)-1]
}

// view makes what the page gets of a snapshot.
func (c *Chain) view(s ring.NodesSnapshot) *view {
	v := &view{frame: frame{
		Chain: c.id, Number: 1, At: math.Round(s.Time.Sub(c.began).Seconds()*10) / 10, Phase: s.Phase, Bytes: s.Sums.Bytes, Total: s.Sums.Total,
		Rate: int64(s.Sums.Rate), Left: int64(s.Left.Seconds()), Done: s.Sums.Done, Serving: s.Sums.Serving, Limit: s.Sums.Limit, Slowest: s.Sums.Bottleneck,
		Result: c.result,
	}}
	if c.now != nil {
		v.Number = c.now.Number + 1
	}
	whole := s.Sums.Total
	for _, n := range s.Nodes {
		if s.Sums.Total <= 0 { // of a stream nobody knows how long it is
			whole = max(whole, n.Bytes)
		}
	}
	for k := range v.columns {
		v.columns[k] = make([]int32, len(s.Nodes))
	}
	for i, n := range s.Nodes {
		switch {
		case n.State.Good() || n.State == ring.Serving || n.State == ring.Pending:
			c.out[i] = time.Time{}
		case c.out[i].IsZero():
			c.out[i] = n.Since
		}
		flags := int32(0)
		for bit, set := range []bool{n.Linked, n.Bypassed, n.Slow} {
			if set {
				flags |= 1 << bit
			}
		}
		for k, value := range [...]int32{
			int32(max(0, slices.Index(states, n.State))), int32(max(0, slices.Index(waits, n.Wait))), int32(n.WaitsFor), seconds(n.Since.Sub(c.began)),
			share(n.Bytes, whole), share(n.Checked, whole), kilobytes(n.Rate), int32(n.Feeder), flags, c.row(n),
		} {
			v.columns[k][i] = value
		}
	}
	v.rows = c.rows(v, s.Nodes)
	return v
}

func seconds(d time.Duration) int32 { return int32(max(0, d/time.Second)) }

// share is a part in thousandths.
func share(part, whole int64) int32 {
	if whole <= 0 {
		return 0
	}
	return int32(min(1000, 1000*(float64(part)/float64(whole))))
}

// kilobytes is a rate in kB/s with three digits: what nobody can see need not be sent.
func kilobytes(rate int64) int32 {
	kilo, unit := min(rate/1000, math.MaxInt32/2), int64(1)
	for kilo/unit >= 1000 {
		unit *= 10
	}
	return int32(kilo / unit * unit)
}

// row returns the number of the row that a node is in, or -1.
func (c *Chain) row(n ring.NodeNow) int32 {
	key := rowKey{n.State, n.Cause}
	key.cause.Addr = ""
	if n.Cause == (ring.Cause{}) {
		if n.State.Good() || n.State == ring.Serving || n.State == ring.Pending {
			return -1
		}
	}
	id, ok := c.ids[key]
	if !ok {
		id = len(c.ids)
		c.ids[key] = id
	}
	return int32(id)
}

// rows makes the rows of a view. They are those of the view before if the same nodes are in them.
func (c *Chain) rows(v *view, nodes []ring.NodeNow) []row {
	const column = len(columnNames) - 1
	if c.now != nil && slices.Equal(c.now.columns[column], v.columns[column]) {
		return c.now.rows
	}
	members := map[int32][]int{}
	var order []int32
	for i, id := range v.columns[column] {
		if id < 0 {
			continue
		}
		if members[id] == nil {
			order = append(order, id)
		}
		members[id] = append(members[id], i)
	}
	rows := make([]row, 0, len(order))
	for _, id := range order {
		in := members[id]
		names := make([]string, len(in))
		first := nodes[in[0]]
		cause, since := first.Cause, first.Since
		for k, i := range in {
			n := nodes[i]
			names[k] = n.Name
			if n.Cause.Addr != cause.Addr {
				cause.Addr = "its address"
			}
			for _, at := range []time.Time{n.Since, c.out[i]} {
				if !at.IsZero() && at.Before(since) {
					since = at
				}
			}
		}
		rows = append(rows, row{int(id), first.State, cause.String(), hostlist.Fold(names), len(in), int64(seconds(since.Sub(c.began)))})
	}
	return rows
}

// since returns what the page is sent if it has an older view. nil is the beginning.
func (v *view) since(old *view) *frame {
	f := v.frame
	f.Columns = map[string]*column{}
	for k, now := range v.columns {
		was := slices.Repeat([]int32{defaults[k]}, len(now))
		if old != nil {
			was = old.columns[k]
		}
		if c := changed(was, now); c != nil {
			f.Columns[columnNames[k]] = c
		}
	}
	if old == nil || !slices.Equal(old.rows, v.rows) {
		f.Rows = &v.rows
	}
	return &f
}

// changed returns what makes one column of another, or nil if they are equal.
func changed(was, now []int32) *column {
	c := &column{}
	last := 0
	for i, value := range now {
		if value != was[i] {
			c.Gaps, c.Values = append(c.Gaps, int32(i-last)), append(c.Values, value)
			last = i
		}
	}
	switch {
	case len(c.Values) == 0:
		return nil
	case 2*len(c.Values) > len(now):
		return &column{Dense: now}
	}
	return c
}

// events returns what a viewer is sent that has seen a view, and the number of the view that it has then. 0 is none.
func (c *Chain) events(seen uint64) (events [][]byte, number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || c.now.Number == seen {
		return nil, seen
	}
	if seen > 0 && seen == c.now.Number-1 && c.delta != nil {
		return [][]byte{c.delta}, c.now.Number
	}
	if seen == 0 {
		history, err := json.Marshal(c.history)
		if err != nil {
			panic(err) // numbers
		}
		events = append(events, slices.Concat([]byte("event: head\ndata: "), c.head, []byte(`,"history":`), history, []byte("}\n\n")))
	}
	if c.full == nil {
		c.full = event("full", c.now.since(nil))
	}
	return append(events, c.full), c.now.Number
}
