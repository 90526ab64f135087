package ring

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// DefaultPort is where a node listens for control and data.
const DefaultPort = 9998

// The application protocols of the two planes (TLS ALPN).
const (
	ALPNControl = "dolly-img-control/1"
	ALPNData    = "dolly-img-data/1"
)

// Peer is one requested node: the name it has in reports, and the addresses
// ("host:port", tried in order) under which the server and the other nodes reach it.
type Peer struct {
	Name  string
	Addrs []string
	// Err, when not nil, says why the name has no address: the node becomes an
	// unreachable row and is not dialled.
	Err error
}

// Config is what Send needs. The zero value of every optional field is useful.
type Config struct {
	Nodes  []Peer // in chain order; names are unique
	Source Source
	// Meta travels to every node's Accept as it is; the ring does not read it.
	Meta json.RawMessage

	// TLS returns the client configuration for a control connection to the named
	// node (ALPNControl).
	// DataTLS is the same for the data links that the server itself opens
	// (ALPNData); it is not used with Plain.
	TLS     func(node string) *tls.Config
	DataTLS func(node string) *tls.Config

	Plain bool          // data links without TLS; each node's policy must allow it
	Rate  int64         // bytes per second the server sends at most; 0: no limit
	Wait  time.Duration // how long to hold the start for nodes that do not answer; 0: dial once, start within 5 s

	Straggler Straggler // what to do with a slow node; "": Demote
	Retries   int       // how often a node that was lost on the way is taken back; 0: never
	MaxDirect int       // nodes that the server feeds itself because no node reaches them, at most: further ones fail; 0: no limit, -1: none
	Check     bool      // ask the nodes, move nothing: rows are Held, Pending (would be served) or bad

	// Software names this program and its version, as in "dolly-img 1.2.0 (abc123)", for
	// peers that speak another protocol version.
	Software string

	OnEvent func(Event)  // called from one goroutine at a time; nil: none
	Log     *slog.Logger // nil: silent
}

// Straggler is what becomes of a node that is slower than the others.
type Straggler string

// The ways to treat a slow node.
const (
	Demote Straggler = "demote" // serve it behind the others
	Drop   Straggler = "drop"   // fail it
	Wait   Straggler = "wait"   // let it be: the chain goes as fast as it does
)

// Send moves cfg.Source to cfg.Nodes and returns when every node has its final
// state. The report is never nil and has one row per node, also beside an error.
// The error is nil when the source was read to its end, whatever became of the
// nodes; it is a *SourceError when the source failed, and IsInterrupted when
// ctx ended before the first commit. Once a node was told to commit, the end of
// ctx only cuts short what is not committed yet.
func Send(ctx context.Context, cfg Config) (*Report, error) {
	s, err := newSender(cfg)
	if err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// Request is what a sender asks of a node before any byte moves.
type Request struct {
	Transfer string
	Sender   string // name in the sender's certificate
	Addr     string // where its control connection comes from
	Node     string // what the sender calls this node
	Blobs    []v1.Descriptor
	Meta     json.RawMessage
}

// NodeConfig is what a Node needs.
type NodeConfig struct {
	// TLS is the server configuration for both planes; it must demand and check
	// the peer's certificate and role by the negotiated protocol.
	TLS *tls.Config
	// DataTLS returns the client configuration for data links this node opens to
	// its successor, named as the sender names it.
	DataTLS func(node string) *tls.Config
	// SenderName tells the name in a peer's certificate, for the audit line.
	SenderName func(tls.ConnectionState) string

	// Accept decides on a request and opens its Sink. An error refuses: it is
	// sent to the sender as it reads. An error that is ErrBusy waits for running
	// transfers to yield the target.
	Accept func(ctx context.Context, r Request) (Sink, error)
	// Began is called once for each accepted transfer whose Sink did not refuse the offer, before the
	// sender is told so. It must not block. nil: not called.
	Began func(r Request)
	// Finished is called once for each accepted transfer, after its Sink was
	// closed, whether it began or not. nil: not called.
	Finished func(r Request, o Outcome)

	// Software names this program and its version, as in "dolly-img 1.2.0 (abc123)";
	// Platform is what programs the processor can run, as in "linux/amd64/v3". Senders
	// are told both.
	Software, Platform string

	AllowPlain bool  // data links without TLS may be opened to this node
	Rate       int64 // bytes per second this node receives at most; 0: no limit
	Transfers  int   // at once; 0: 4
	Window     int   // bytes of memory for replay, all transfers together; 0: 32 MiB

	Log *slog.Logger // audit and warnings; nil: silent
}

// Outcome is how a transfer ended on this node.
type Outcome struct {
	State   State // Committed, Held or Failed
	Digest  string
	Bytes   int64 // payload received
	Seconds float64
	Err     error // why it failed
}
