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
	lookups = 64 // at once
	// A name server that does not answer must not hold up the start for longer
	// than nodes that do not.
	lookupTimeout = 3 * time.Second
)

// resolve finds the addresses of nodes, all of each. A name without one is no reason
// to leave the node out: it carries the error and gets its row.
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

// unresolved says why a name has no address. The name is left out, so that of many names with one cause the same
// is said: whoever reads knows which it is of.
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
