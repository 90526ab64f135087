package ring

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

func newSender(cfg Config) (*sender, error) {
	if cfg.Source == nil || cfg.TLS == nil || !cfg.Plain && cfg.DataTLS == nil {
		return nil, errors.New("ring: Config needs a Source and TLS configurations")
	}
	var err error
	if cfg.Nodes, err = checkNodes(cfg.Nodes); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &sender{
		caller: newCaller(cfg), cfg: cfg, keys: map[uint32][]byte{}, conns: make([]*control, len(cfg.Nodes)+1), shown: make([]shown, len(cfg.Nodes)+1), pool: relay.NewPool(0, relay.Sizes{}),
		events: make(chan any, 256), done: make(chan struct{}), newMark: make(chan struct{}, 1),
		marks: newMarkPages(len(cfg.Nodes)), limit: limiter(cfg.Rate), rates: cfg.Rates,
	}, nil
}

// This file translates what the coordinator says into the types of this package's callers, and back.

func coordinatorConfig(cfg Config, markEvery int64) coordinator.Config {
	c := coordinator.Config{
		Straggler: coordinator.Straggler(cfg.Straggler), Retries: cfg.Retries, MaxDirect: cfg.MaxDirect, Rate: cfg.Rate, Check: cfg.Check, MarkEvery: markEvery,
		NoSHA: relay.NoSHA(), Confirm: cfg.Confirm != nil, Same: same(cfg),
	}
	for _, p := range cfg.Nodes {
		n := coordinator.Peer{Name: p.Name, Dials: strings.Join(p.Addrs, " or ")}
		if len(p.Addrs) > 0 {
			_, n.Port, _ = net.SplitHostPort(p.Addrs[0])
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c
}

func publicCause(c coordinator.Cause) Cause {
	fault := Fault(c.Fault)
	if c.Said.Refuses() {
		fault = FaultDenied
	}
	return Cause{Fault: fault, Text: c.Text, Addr: c.Addr, After: c.After}
}

// innerCause turns the cause of a contact that failed into the coordinator's type.
func innerCause(c Cause) coordinator.Cause {
	return coordinator.Cause{Kind: coordinator.KindContact, Fault: coordinator.Fault(c.Fault), Text: c.Text, Addr: c.Addr, After: c.After}
}

// row returns the row of node i, from 1, for a report.
func (s *sender) row(i int) Row {
	r := s.chain.Row(i)
	target := TargetState(r.Became)
	if target == "" && s.cfg.Confirm != nil { // it was not started
		target = TargetUntouched
	}
	return Row{
		Node: s.cfg.Nodes[i-1].Name, State: State(r.State), Digest: r.Digest, Bytes: r.Bytes, Skipped: r.Skipped, Seconds: round(s.shown[i].ended),
		Code: string(r.Cause.Code()), Reason: r.Cause.String(), Link: r.Link, Cause: publicCause(r.Cause), Free: r.Free, NoSHA: r.NoSHA,
		Facts: json.RawMessage(r.Target), Target: target,
	}
}

// shown is what was shown of a node.
type shown struct {
	// ended is how long after the beginning its row became final.
	ended time.Duration
	// state, cause and link are of the last event about it.
	state State
	cause Cause
	link  string
	// seen is what the last snapshot had of it.
	seen seen
}

// tell gives out an event about node i, unless the last one said the same: a node that cannot be reached by now is so for good
// at the end.
func (s *sender) tell(i int, e Event) {
	n := &s.shown[i]
	if n.state == e.State && n.cause == e.Cause && n.link == e.Link {
		return
	}
	n.state, n.cause, n.link = e.State, e.Cause, e.Link
	s.event(e)
}

// unprepared returns the report of a transfer whose source could not be opened.
func (s *sender) unprepared(err error) *Report {
	r := &Report{Transfer: s.id.String(), Seconds: round(time.Since(s.begun)), Bytes: totalSize(s.blobs), Unreached: []Unreached{}, Unprobed: []string{}}
	for _, p := range s.cfg.Nodes {
		row := Row{Node: p.Name, State: Failed, Code: string(wire.CodeSource), Reason: err.Error(), Cause: because(err.Error())}
		if s.cfg.Confirm != nil {
			row.Target = TargetUntouched
		}
		r.Nodes = append(r.Nodes, row)
	}
	if n := len(s.blobs); n > 0 {
		r.Digest = s.blobs[n-1].Digest.String()
	}
	return r
}

func (s *sender) unreached() []Unreached {
	all := []Unreached{}
	for _, u := range s.chain.Unreached() {
		all = append(all, Unreached{s.cfg.Nodes[u.From-1].Name, s.cfg.Nodes[u.To-1].Name, u.Port, u.Reason})
	}
	return all
}

func (s *sender) unprobed() []string {
	all := []string{}
	for _, i := range s.chain.Unprobed() {
		all = append(all, s.cfg.Nodes[i-1].Name)
	}
	return all
}

// checkNodes returns the nodes with those of their addresses that are used.
func checkNodes(nodes []Peer) ([]Peer, error) {
	if len(nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	nodes = slices.Clone(nodes)
	seen := map[string]bool{}
	for i, p := range nodes {
		if seen[p.Name] {
			return nil, fmt.Errorf("node %q is named twice", p.Name)
		}
		seen[p.Name] = true
		nodes[i].Addrs, nodes[i].Data = member.Used(p.Addrs), member.Used(p.Data)
	}
	return nodes, nil
}
