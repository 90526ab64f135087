package ring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// DefaultPort is the TCP port on which a node listens for both planes.
const DefaultPort = 9998

// The application protocols (TLS ALPN, RFC 7301) by which a node tells the two planes apart.
const (
	ALPNControl = "dolly-img-control/1"
	ALPNData    = "dolly-img-data/1"
)

// Peer is one requested node.
type Peer struct {
	// Name is what reports call the node.
	Name string
	// Addrs are where the server and the other nodes reach it, as "host:port". They are tried in order until one leads to the node.
	// Those after the first 16 are left out.
	Addrs []string
	// Data are where data links to it go, if that is not Addrs.
	Data []string
	// Err says why the name has no address, and is nil otherwise. Such a node becomes an unreachable
	// row and is not dialled.
	Err error
}

// links returns where data links to the node go.
func (p Peer) links() []string {
	if len(p.Data) > 0 {
		return p.Data
	}
	return p.Addrs
}

// Config is what Send needs. The zero value of every optional field is useful.
type Config struct {
	// Nodes are the receivers in chain order. Their names differ.
	Nodes []Peer
	// Source is what they receive.
	Source Source
	// Meta travels to every node's Accept as it is; the ring does not read it.
	Meta json.RawMessage

	// Annotations are added to those of the first blob, for Accept and Began of the nodes to read. A node may know none of them.
	Annotations map[string]string

	// TLS returns the client configuration for a control connection to the named node (ALPNControl).
	TLS func(node string) *tls.Config
	// DataTLS returns the same for the data links that the server itself opens (ALPNData). It is not
	// called with Plain.
	DataTLS func(node string) *tls.Config

	// Plain asks for data links without TLS, which the policy of each node must allow.
	Plain bool
	// Rate is how many bytes per second the server sends at most. 0 is no limit.
	Rate int64
	// Rates has other such limits, each of which holds from the moment when Send takes it. It may be nil, and is read until Send returns.
	Rates <-chan int64
	// Wait is how long the start is held for nodes that do not answer. With 0 each node is dialled
	// once, and the start is after 5 s at the latest.
	Wait time.Duration

	// Straggler is what to do with a slow node. "" is Demote.
	Straggler Straggler
	// Retries is how often a node that was lost on the way is taken back. 0 is never.
	Retries int
	// MaxDirect is how many nodes the server feeds itself, at most, because no node reaches them.
	// Further ones fail. 0 is no limit, -1 none.
	MaxDirect int
	// Check asks the nodes and moves nothing: rows are Held, Pending (it would be served) or bad.
	Check bool

	// Update has nodes compare what they have in place of the blob with it before anything is sent (Comparer), so that they are
	// sent only the leaves that differ. The Source is read up to twice, and has one blob in leaves (package leaf); else
	// Update does nothing.
	Update bool

	// Confirm has somebody agree to what will be overwritten, where Sinks are Targeters. It is called once, before anything moves,
	// with the row of every node: those of nodes that would be served are Pending, and Facts is what each would
	// overwrite. No other node is served, whenever it answers. An error ends the transfer, and Send returns it. Confirm
	// ends when ctx does. Without a Confirm, nodes that would overwrite something are refused.
	Confirm func(ctx context.Context, plan []Row) error
	// Same reports whether a node that was lost and is back would overwrite the same as before, by what its Sink said in the plan
	// and says now. Without it both have to be equal.
	Same func(planned, now json.RawMessage) bool

	// Software names this program and its version, as in "dolly-img 1.2.0 (abc123)", for
	// peers that speak another protocol version.
	Software string

	// OnEvent is told what happens, from one goroutine at a time. It may be nil. While it runs the
	// transfer decides nothing.
	OnEvent func(Event)
	// OnNodes is told about once a second how things stand with each node, and once at the end, by the same goroutine. It may be
	// nil, and then nothing is computed for it.
	OnNodes func(NodesSnapshot)
	// Log may be nil, which is silent.
	Log *slog.Logger
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
// state. It returns no report where cfg cannot be used at all. Any other error has a report
// beside it, with one row per node, and Report.Status makes an exit status of both.
//
// The error is nil when the source was read to its end, whatever became of the
// nodes. It is a *SourceError when the source failed. When ctx ended before the first
// commit it is another one, of which Report.Status makes ExitInterrupted. Once a node was told to commit, the end of ctx only cuts
// short what is not committed yet.
func Send(ctx context.Context, cfg Config) (*Report, error) {
	s, err := newSender(cfg)
	if err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// Request is what a sender asks of a node before any byte moves.
type Request struct {
	// Transfer is the transfer's id in hexadecimal.
	Transfer string
	// Sender is the name in the sender's certificate, and Role its role there.
	Sender string
	Role   Role
	// Certificate is the sender's. It is nil in a simulation without TLS.
	Certificate *x509.Certificate
	// Addr is where its control connection comes from, as "host:port".
	Addr string
	// Node is what the sender calls this node.
	Node string
	// Blobs are what Source.Blobs lists, in travelling order.
	Blobs []v1.Descriptor
	// Meta is the sender's Config.Meta.
	Meta json.RawMessage
}

// Role is what a certificate lets its holder do on a node.
type Role string

// These are the roles that may open a control connection ("Planes and connections" in PROTOCOL.md). A node refuses what a role
// does not permit; which transfers a warmer may begin depends on Meta, so that this is for Accept to decide.
const (
	RoleSender Role = "sender" // everything
	RoleWarmer Role = "warmer" // images for the cache, wishes under its own name, and questions
	RoleViewer Role = "viewer" // questions only
)

// NodeConfig is what a Node needs.
type NodeConfig struct {
	// TLS is the server configuration for both planes; it must demand and check
	// the peer's certificate and role by the negotiated protocol.
	TLS *tls.Config
	// DataTLS returns the client configuration for data links this node opens to
	// its successor, named as the sender names it.
	DataTLS func(node string) *tls.Config
	// Client tells the name and the role in the certificate of who opened a control connection. TLS has let it in.
	Client func(tls.ConnectionState) (name string, role Role)

	// Permit returns an error about a request that the sender's role or the policy of the node does not permit. It is asked
	// before the request takes a place, waits for one, or ends a transfer whose sender is gone, and looks at nothing that changes by
	// itself. The error refuses the request as one of Accept does. It may be nil, which permits all.
	Permit func(r Request) error
	// Accept decides on a permitted request and opens its Sink. An error refuses the request, and the
	// sender reads it as it is. On an error that is ErrBusy the request waits for running
	// transfers to yield the target.
	Accept func(ctx context.Context, r Request) (Sink, error)
	// Began is called once for each accepted transfer whose Sink did not refuse the offer, before the
	// sender is told so. It must not block. It may be nil.
	Began func(r Request)
	// Progress is told about once a second, while a server is there and from the start of a transfer or of comparing to its end, how
	// far this node is. A call may still come when the transfer has ended. It must not block. It may be nil.
	Progress func(r Request, p NodeProgress)
	// Finished is called once for each accepted transfer, after its Sink was
	// closed, whether it began or not. It may be nil.
	Finished func(r Request, o Outcome)
	// Refused is called once for each offer that was answered with no, by Accept, by its Sink or by the ring. code is that of the
	// answer. It must not block. It may be nil.
	Refused func(r Request, code string)
	// LinkFault is called for each data link from or to this node that broke while its transfer ran. code is what the server is told
	// of it. It must not block. It may be nil.
	LinkFault func(code string)

	// Stock answers questions (Ask) and takes wishes (Want). Without it both are refused.
	Stock Stock

	// Software names this program and its version, as in "dolly-img 1.2.0 (abc123)";
	// Platform is what programs the processor can run, as in "linux/amd64/v3". Senders
	// are told both.
	Software, Platform string

	// AllowPlain allows data links to this node without TLS.
	AllowPlain bool
	// Rate is how many bytes per second this node receives at most. 0 is no limit.
	Rate int64
	// Transfers is how many run at once, 5 at most. 0 is 4.
	Transfers int

	// Log takes the audit lines and warnings. It may be nil, which is silent.
	Log *slog.Logger
}

// NodeProgress is how far a node is in a transfer.
type NodeProgress struct {
	// Received is the payload that came, in bytes.
	Received int64
	// Moved changes whenever the node gets on: bytes come, are good, are durable, are read back, or are compared before the start.
	Moved int64
	// Waits says that the node has done what there is to do for it by now, and waits for the server.
	Waits bool
}

// Outcome is how a transfer ended on this node.
type Outcome struct {
	// State is Committed, Held or Failed.
	State State
	// Digest is that of the last blob, and "" of a transfer that failed.
	Digest string
	// Bytes is the payload that this node received.
	Bytes int64
	// Seconds is the time from the offer to the end.
	Seconds float64
	// Err says why a transfer failed.
	Err error
	// Asked says that it failed because the server only asked what would happen (Config.Check).
	Asked bool
	// Refused says that it never began: the Sink refused the offer.
	Refused bool
	// Interrupted says that it failed because somebody ended the server, or because the server's source failed.
	Interrupted bool
}
