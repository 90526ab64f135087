package push

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

const (
	// lookups is how many names are looked up at once.
	lookups = 64
	// lookupTimeout is short, because a name server that does not answer must not hold up the start for longer than a
	// node that does not answer.
	lookupTimeout = 3 * time.Second
)

// resolve returns all addresses of each node. A node whose name has no address is in the list, too, with the error, so
// that it gets a row in the report.
func resolve(ctx context.Context, names []string, port int) ([]ring.Peer, error) {
	peers := make([]ring.Peer, len(names))
	var group errgroup.Group
	group.SetLimit(lookups)
	for i, name := range names {
		host, p, err := hostlist.SplitPort(name, port)
		if err != nil {
			return nil, err
		}
		group.Go(func() error {
			peers[i] = ring.Peer{Name: name}
			peers[i].Addrs, peers[i].Err = lookup(ctx, host, strconv.Itoa(p))
			return nil
		})
	}
	return peers, group.Wait()
}

// lookup returns all addresses of a host, each with the port.
func lookup(ctx context.Context, host, port string) ([]string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{net.JoinHostPort(host, port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, unresolved(err)
	}
	for i, addr := range found {
		found[i] = net.JoinHostPort(addr, port)
	}
	return found, nil
}

// unresolved says why a name has no address. It leaves the name out, so that many nodes with the same cause have the same
// text and become one row. That row names the nodes.
func unresolved(err error) error {
	var d *net.DNSError
	switch {
	case !errors.As(err, &d):
		return fmt.Errorf("name not resolved: %w", err)
	case d.Server == "":
		return fmt.Errorf("name not resolved: %s", d.Err)
	}
	return fmt.Errorf("name not resolved: %s, says the name server %s", d.Err, d.Server)
}
