package push

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

// An Opener opens what a push sends. It notes in m what only the source knows, such as its name and its time.
type Opener interface {
	Open(ctx context.Context, p *Push, m *meta.Transfer) (ring.Source, error)
}

// A Push is one transfer: an image or a file, to nodes.
type Push struct {
	Name string // what is sent, as the user named it
	What Opener
	Meta meta.Transfer // what the nodes do with it

	Nodes []string // in chain order; a node has its port behind it if that is not Port
	Port  int
	// Peers has the addresses of the nodes. If it is nil, Run looks them up.
	Peers []ring.Peer
	// Family is 4 or 6 if only addresses of IPv4 or IPv6 are used, else 0.
	Family int
	// DataName returns the name of a node in the network that data goes over. If it is nil, data goes where control goes.
	DataName func(node string) (string, error)
	Keys     string // directory of the keys; "" is the usual one
	// Role is that of the key that is used. "" is identity.Sender.
	Role identity.Role
	// Enough is the number of good nodes that make the push a success; 0 is all of them.
	Enough int

	Plain     bool           // do not encrypt the data links
	Rate      int64          // bytes per second; 0 is no limit
	Rates     <-chan int64   // other ones, while it runs; may be nil
	Wait      time.Duration  // how long to dial nodes that do not answer
	Straggler ring.Straggler // what to do with a slow node
	Retries   int            // how often a lost node is taken back
	// MaxDirect is how many nodes the server feeds itself if no other node can; negative is no limit.
	MaxDirect int
	Check     bool // only ask the nodes
	// Confirm has somebody agree to a plan, or returns ErrUnconfirmed. It is needed where Meta has a Device.
	Confirm func(ctx context.Context, p Plan) error
	// Update has nodes compare the file that they have with the one that is sent, and sends only what differs.
	Update bool

	// Annotations tell nodes what a person there wants to read.
	Annotations map[string]string

	Software string       // this program and its version, as peers and the report are told
	Log      *slog.Logger // nil is silent
	OnEvent  func(ring.Event)
	OnNodes  func(ring.NodesSnapshot)

	ends   certificateEnds
	unread bool
	holds  string // what the source holds that comes to devices
}

// Run sends. The report is never nil, and its Exit is the status of the whole. The error is one of this side.
func (p *Push) Run(ctx context.Context) (*ring.Report, error) {
	begun := time.Now()
	rep, kept, err := p.send(ctx)
	rep.Image, rep.Kept = p.Name, kept
	rep.Unsynced = p.Meta.NoSync
	rep.Version, rep.Host, rep.Started = p.Software, hostName(), begun.Format(time.RFC3339)
	rep.Exit = rep.Status(err, p.Enough)
	if p.Check {
		rep.Exit = checkStatus(rep, err, p.Enough)
	}
	if kind, _ := errkind.Of(err); kind == "input-no-image" || kind == "input-half-written" || errors.Is(err, ErrUnconfirmed) {
		rep.Exit = ring.ExitUsage
	}
	if rep.Exit == ring.ExitSource && ctx.Err() != nil {
		rep.Exit = ring.ExitInterrupted // while the source was opened
	}
	return rep, err
}

// Ending returns which certificates end soon, of this side and of the nodes that showed theirs while Run ran.
func (p *Push) Ending(now time.Time) []identity.End { return p.ends.ending(now) }

// Unread reports, once Run has returned, whether the image is an archive or a layout on this machine whose layers are read
// only if a node lacks them.
func (p *Push) Unread() bool { return p.unread }

// send sends. It never returns a nil report. Kept is the name in the nodes' caches, if it became known.
func (p *Push) send(ctx context.Context) (rep *ring.Report, kept string, err error) {
	m := p.Meta
	cfg, err := p.config(ctx, &m)
	if err != nil {
		return p.notStarted(err), "", err
	}
	if c, ok := cfg.Source.(io.Closer); ok {
		defer func() {
			if err := c.Close(); err != nil && p.Log != nil { // this changes nothing about what the nodes have
				p.Log.Warn("source", "error", err)
			}
		}()
	}
	rep, err = ring.Send(ctx, *cfg)
	if rep == nil {
		rep = p.notStarted(err)
	}
	m.Outdated(rep)
	m.Partly(rep)
	if m.Device != nil && m.Device.Unread {
		notReadBack(rep)
	}
	if m.Kind == meta.KindImage && rep.Digest != "" {
		rep.SIF = image.SIFDigest(ctx, cfg.Source)
	}
	if f, ok := cfg.Source.(summed); ok && rep.Count() > 0 {
		rep.SHA256 = f.sha256(ctx).String()
	} else if m.Kind == meta.KindRaw && rep.Count() > 0 { // a stream, which never travels in leaves
		rep.SHA256 = rep.Digest
	}
	return rep, m.Ref, err
}

// summed is a source that knows what sha256sum has of it.
type summed interface {
	sha256(ctx context.Context) digest.Digest
}

// hostName returns the name of this machine, or "" if it has none.
func hostName() string {
	name, _ := os.Hostname()
	return name
}

// identity loads the keys of this server.
func (p *Push) identity() (*identity.Identity, error) {
	dir, err := identity.Find(p.Keys)
	if err != nil {
		return nil, err
	}
	id, err := identity.Load(dir, cmp.Or(p.Role, identity.Sender))
	if err == nil {
		p.ends.own(id, time.Now())
	}
	return id, err
}

// platforms asks the nodes for their platforms. That of a node which does not answer, or does not say, is "".
func (p *Push) platforms(ctx context.Context) []string {
	list := make([]string, len(p.Nodes))
	id, err := p.identity()
	if err != nil {
		return list // the transfer fails for the same reason, and reports it
	}
	peers, err := p.resolve(ctx)
	if err != nil {
		return list
	}
	greetings, err := ring.Greet(ctx, ring.Config{Nodes: peers, TLS: clientTLS(id, ring.ALPNControl), Software: p.Software})
	if err != nil {
		return list
	}
	list = list[:0]
	for _, g := range greetings {
		list = append(list, g.Platform)
	}
	return list
}

// resolve returns the addresses of the nodes.
func (p *Push) resolve(ctx context.Context) ([]ring.Peer, error) {
	if p.Peers != nil {
		return p.Peers, nil
	}
	return resolve(ctx, p.Nodes, p.Port, p.Family, p.DataName)
}

// config opens the source, and returns what the ring needs.
func (p *Push) config(ctx context.Context, m *meta.Transfer) (_ *ring.Config, err error) {
	id, err := p.identity()
	if err != nil {
		return nil, err
	}
	source, err := p.What.Open(ctx, p, m)
	if err != nil {
		return nil, err
	}
	// Of any other type of source the layers are checked, whether or not nodes lack them.
	_, asItIs := source.(*oci.Image)
	_, isSIF := source.(*sif.File)
	p.unread = m.Kind == meta.KindImage && !image.OfRegistry(p.Name) && (asItIs || p.Check && !isSIF)
	defer func() {
		if c, ok := source.(io.Closer); ok && err != nil {
			c.Close()
		}
	}()
	cfg := &ring.Config{
		Source: source, Plain: p.Plain, Rate: p.Rate, Rates: p.Rates, Wait: p.Wait,
		Straggler: p.Straggler, Retries: p.Retries, Check: p.Check, MaxDirect: p.MaxDirect, Update: p.Update,
		Annotations: p.Annotations,

		TLS:     p.ends.watch(clientTLS(id, ring.ALPNControl)),
		DataTLS: clientTLS(id, ring.ALPNData), Software: p.Software, Log: p.Log, OnEvent: p.OnEvent, OnNodes: p.OnNodes,
	}
	if m.Device != nil {
		if err := p.overwrites(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if cfg.Meta, err = m.Encode(); err != nil {
		return nil, err
	}
	p.Peers, err = p.resolve(ctx)
	cfg.Nodes = p.Peers
	return cfg, err
}

// clientTLS returns the function by which the ring gets the TLS configuration for dialling a node.
func clientTLS(id *identity.Identity, protocol string) func(node string) *tls.Config {
	return func(node string) *tls.Config { return id.ClientConfig(protocol, node) }
}

// checkStatus returns the exit status of a check, which is that of a push that serves every node which would be
// served.
func checkStatus(rep *ring.Report, err error, enough int) int {
	would := *rep
	would.Nodes = slices.Clone(rep.Nodes)
	for i := range would.Nodes {
		if would.Nodes[i].State == ring.Pending {
			would.Nodes[i].State = ring.Committed
		}
	}
	return would.Status(err, enough)
}

// CodeNotAsked is the code of the rows of a transfer that failed before any node was asked.
const CodeNotAsked = "not-asked"

// notStarted returns the report of a transfer that failed before the ring was started. Every node has a row that says it
// was not asked.
func (p *Push) notStarted(err error) *ring.Report {
	r := &ring.Report{Nodes: []ring.Row{}, Unreached: []ring.Unreached{}, Unprobed: []string{}}
	for _, node := range p.Nodes {
		row := ring.Row{Node: node, State: ring.Failed, Code: CodeNotAsked, Reason: "not asked: " + printable.Line(err.Error())}
		if p.Meta.Device != nil {
			row.Target = ring.TargetUntouched
		}
		r.Nodes = append(r.Nodes, row)
	}
	return r
}
