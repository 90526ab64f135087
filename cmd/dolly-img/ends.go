package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// certificateEnds notes which certificates end soon: those of the sender, and those that nodes
// show in handshakes.
type certificateEnds struct {
	mu    sync.Mutex
	mine  []identity.End
	nodes map[string]time.Time // when the certificate of each node ends
}

// own notes those of the sender.
func (c *certificateEnds) own(id *identity.Identity, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mine = id.Ending(now)
}

// watch is conf, with the certificates noted that nodes show.
func (c *certificateEnds) watch(conf func(node string) *tls.Config) func(node string) *tls.Config {
	return func(node string) *tls.Config {
		t := conf(node)
		verify := t.VerifyConnection
		t.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := verify(cs); err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.nodes == nil {
				c.nodes = map[string]time.Time{}
			}
			c.nodes[node] = cs.PeerCertificates[0].NotAfter
			return nil
		}
		return t
	}
}

// warnings are a line for each certificate of the sender that ends soon, and one for all nodes of
// which it ends on one day.
func (c *certificateEnds) warnings(now time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	const hint = "; on the server: " + node.RenewHint
	var lines []string
	for _, end := range c.mine {
		lines = append(lines, printable.Line(end.String(now))+hint)
	}
	byDay := map[string][]string{} // in the order of their names
	for _, node := range slices.Sorted(maps.Keys(c.nodes)) {
		if until := c.nodes[node]; identity.EndsSoon(until, now) {
			byDay[date(until)] = append(byDay[date(until)], node)
		}
	}
	for _, day := range slices.Sorted(maps.Keys(byDay)) {
		nodes := byDay[day]
		end := identity.End{What: fmt.Sprintf("the certificate of %s", fold(nodes)), After: c.nodes[nodes[0]]}
		lines = append(lines, end.String(now)+hint)
	}
	return lines
}
