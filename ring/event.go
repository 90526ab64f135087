package ring

import "time"

// Kind tells what an Event says.
type Kind string

// The kinds of Event, in the order in which a transfer sees them first.
const (
	EventNode     Kind = "node"     // a node's State changed; Reason says why
	EventPlan     Kind = "plan"     // the chain is made: Nodes are in it, in order
	EventLink     Kind = "link"     // a data link was opened, closed or replaced; Link and Reason
	EventProgress Kind = "progress" // about once a second while bytes move
	EventCommit   Kind = "commit"   // the source was read to its end, unchanged: nodes are told to commit
)

// Event is one thing that happened to a transfer, for progress displays and
// logs. Fields that do not apply to a Kind are zero. Its JSON form is a line of
// what push --json prints.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"event"`
	Transfer string    `json:"transfer"`

	// Node is the name that the caller gave it, of EventNode. State is what it is in now. Reason says
	// why, and is safe to print; Cause is the same in its parts. EventLink has a Reason, too.
	Node   string `json:"node,omitempty"`
	State  State  `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"`
	Cause  Cause  `json:"-"`

	// Link is both ends of an EventLink, as in "node3 -> node4". Up says that it was made; it was lost
	// or blamed otherwise. Again says that it was made in place of another one.
	Link  string `json:"link,omitempty"`
	Up    bool   `json:"up,omitempty"`
	Again bool   `json:"again,omitempty"`

	// Nodes are the names of an EventPlan, in chain order.
	Nodes []string `json:"nodes,omitempty"`

	// Shed is how many earlier events of the same node or link were left out before this one, because who reads
	// events does not keep up. Package ring leaves none out; a queue in front of a reader may.
	Shed int `json:"shed,omitempty"`

	// The fields of EventProgress. Bytes is what the slowest node that is still served holds, Total
	// what it shall hold; with Verifying, it holds all of that, and Bytes is what it has read back and compared; with Comparing, nothing
	// was sent yet, and Bytes is how much the slowest of Serving nodes, or the server if that is slower, has read of what it has, to
	// find out what differs (Config.Update). Total is -1 while it is not known. Rate is the mean of the last few seconds
	// in bytes per second. Done is the number of nodes that have everything, Serving that of nodes in
	// the transfer. Limit is what keeps all of them from being faster. Bottleneck names the one node or
	// link that is slower than the others, and how fast it is ("node17: disk 84 MB/s", "link node3 ->
	// node4: 11 MB/s"); it is empty when none stands out.
	Bytes      int64   `json:"bytes,omitempty"`
	Verifying  bool    `json:"verifying,omitempty"`
	Comparing  bool    `json:"comparing,omitempty"`
	Total      int64   `json:"total,omitempty"`
	Rate       float64 `json:"rate,omitempty"`
	Done       int     `json:"done,omitempty"`
	Serving    int     `json:"serving,omitempty"`
	Limit      Limit   `json:"limit,omitempty"`
	Bottleneck string  `json:"bottleneck,omitempty"`
}

// Limit is what a transfer, or one node of it, waits for most of the time. "" is not known.
type Limit string

// The limits of a transfer.
const (
	LimitProcessor Limit = "processor"
	LimitHash      Limit = "hash" // a processor without SHA instructions, which hashes no faster
	LimitDisk      Limit = "disk"
	LimitNetwork   Limit = "network"
	LimitPolicy    Limit = "policy" // the rate in the policy of a node
	LimitRate      Limit = "rate"   // Config.Rate
	LimitSource    Limit = "source" // the server reads what it sends no faster
)
