package main

import (
	"crypto/tls"

	"github.com/dolly-img/dolly-img/ring/identity"
)

// clientTLS is what the ring asks for to dial a node by its name.
func clientTLS(id *identity.Identity, protocol string) func(node string) *tls.Config {
	return func(node string) *tls.Config { return id.ClientConfig(protocol, node) }
}

// senderName is who a control connection comes from, for the audit line.
func senderName(cs tls.ConnectionState) string {
	peer, err := identity.PeerOf(cs)
	if err != nil {
		return ""
	}
	return peer.Name
}
