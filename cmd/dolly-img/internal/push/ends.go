package push

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// certificateEnds notes when certificates end: those of the sender, and those that nodes show in handshakes.
type certificateEnds struct {
	mu   sync.Mutex
	mine []identity.End
	// nodes has the end of each node's certificate.
	nodes map[string]time.Time
}

// own notes which certificates of the sender end soon.
func (c *certificateEnds) own(id *identity.Identity, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mine = id.Ending(now)
}

// watch returns conf with a check added that notes the certificates which nodes show.
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

// ending returns which certificates end soon. Those of nodes that end on the same day are one entry.
func (c *certificateEnds) ending(now time.Time) []identity.End {
	c.mu.Lock()
	defer c.mu.Unlock()
	ends := slices.Clone(c.mine)
	byDay := map[string][]string{} // the names of nodes, sorted
	for _, node := range slices.Sorted(maps.Keys(c.nodes)) {
		if until := c.nodes[node]; identity.EndsSoon(until, now) {
			day := until.UTC().Format(time.DateOnly)
			byDay[day] = append(byDay[day], node)
		}
	}
	for _, day := range slices.Sorted(maps.Keys(byDay)) {
		nodes := byDay[day]
		ends = append(ends, identity.End{What: fmt.Sprintf("the certificate of %s", hostlist.Fold(nodes)), After: c.nodes[nodes[0]]})
	}
	return ends
}
