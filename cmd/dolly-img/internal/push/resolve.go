package push

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

const (
	// lookups is how many names are looked up at once. One for which the name server has no answer for lookupTurn is not counted any more, so that names about which it is
	// silent hold up few others: 1000 of them take 3.4 s together.
	lookups    = 256
	lookupTurn = 100 * time.Millisecond
	// lookupTimeout is short, because a name server that does not answer must not hold up the start for longer than a
	// node that does not answer.
	lookupTimeout = 3 * time.Second
)

// Resolve returns all addresses of each node, whose port is port if its name has none. A node whose name has no address is in the
// list, too, with the error.
func Resolve(ctx context.Context, names []string, port int) ([]ring.Peer, error) {
	return resolve(ctx, names, port, 0, nil)
}

// resolve returns all addresses of each node, of one family unless that is 0. A node whose name has no address is in the
// list, too, with the error, so that it gets a row in the report. DataName returns the name of a node in the network for
// data; it may be nil.
func resolve(ctx context.Context, names []string, port, family int, dataName func(node string) (string, error)) ([]ring.Peer, error) {
	peers := make([]ring.Peer, len(names))
	places := make(chan struct{}, lookups)
	var work sync.WaitGroup
	defer work.Wait()
	for i, name := range names {
		host, p, err := hostlist.SplitPort(name, port)
		if err != nil {
			return nil, err
		}
		places <- struct{}{}
		release := sync.OnceFunc(func() { <-places })
		turn := time.AfterFunc(lookupTurn, release)
		work.Go(func() {
			defer release()
			defer turn.Stop()
			peers[i] = ring.Peer{Name: name}
			peers[i].Addrs, peers[i].Err = lookup(ctx, host, strconv.Itoa(p), family)
			if dataName != nil && peers[i].Err == nil {
				peers[i].Data, peers[i].Err = lookupData(ctx, name, port, family, dataName)
			}
		})
	}
	return peers, nil
}

// lookupData returns the addresses of a node in the network for data.
func lookupData(ctx context.Context, name string, port, family int, dataName func(node string) (string, error)) ([]string, error) {
	name, err := dataName(name)
	if err != nil {
		return nil, err
	}
	host, p, err := hostlist.SplitPort(name, port)
	if err != nil {
		return nil, err
	}
	addrs, err := lookup(ctx, host, strconv.Itoa(p), family)
	if err != nil {
		return nil, fmt.Errorf("%s, for data: %w", host, err)
	}
	return addrs, nil
}

// lookup returns all addresses of a host, each with the port.
func lookup(ctx context.Context, host, port string, family int) ([]string, error) {
	fits := func(a netip.Addr) bool { return family == 0 || a.Unmap().Is4() == (family == 4) }
	if a, err := netip.ParseAddr(host); err == nil {
		if !fits(a) {
			return nil, fmt.Errorf("not an IPv%d address", family)
		}
		return []string{net.JoinHostPort(host, port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, unresolved(err)
	}
	var addrs []string
	for _, addr := range found {
		if a, err := netip.ParseAddr(addr); err == nil && fits(a) {
			addrs = append(addrs, net.JoinHostPort(addr, port))
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("name not resolved: no IPv%d address", family)
	}
	return addrs, nil
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
