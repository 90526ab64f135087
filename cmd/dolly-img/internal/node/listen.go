package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// cacheAccess returns who may read the cache of a node by its policy.
func cacheAccess(p *identity.Policy) (cache.Access, error) {
	a := cache.Access{Mode: p.Cache.Mode, GID: -1}
	if p.Cache.Group == "" {
		return a, nil
	}
	owner, err := resolveOwner(":" + p.Cache.Group)
	if err != nil {
		return a, errkind.Errorf("cache-group", "cache: group: %w", err)
	}
	a.GID = owner.GID
	return a, nil
}

// listen takes the sockets that systemd hands over, or else listens at addr.
func listen(addr string) ([]net.Listener, error) {
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("socket from systemd: %w", err)
	}
	var usable []net.Listener
	for _, l := range handed {
		if l != nil { // nil is a socket that is no stream socket
			usable = append(usable, l)
		}
	}
	if len(usable) > 0 {
		return usable, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errkind.Errorf("listen-taken", "listen on %s: %w", addr, bare(err))
	}
	return []net.Listener{l}, nil
}

// Addr returns the address that the node listens at, with the port that the kernel picked where none was named. If systemd
// handed over several sockets, it is that of the first.
func (s *Node) Addr() net.Addr { return s.listeners[0].Addr() }

// Serves reports whether a node of the cluster of these keys listens at an address of this machine already, such as ":9998".
func Serves(ctx context.Context, keys, addr string) bool {
	dir, err := nodeKeys(keys)
	if err != nil {
		return false
	}
	id, err := identity.Load(dir, identity.Node)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, servesTimeout)
	defer cancel()
	d := tls.Dialer{Config: id.ClientConfig(ring.ALPNData, "")}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close() // it is known by its certificate
	return true
}

// servesTimeout is how long whatever listens there may take to show its certificate.
const servesTimeout = 3 * time.Second

// bare returns the error of the system that an error of package net wraps, because the caller names the address itself.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// clientOf returns whom a control connection comes from, and what that one may do here.
func clientOf(cs tls.ConnectionState) (name string, role ring.Role) {
	peer, err := identity.PeerOf(cs)
	if err != nil {
		return "", "" // which permits nothing
	}
	return peer.Name, ring.Role(peer.Role)
}
