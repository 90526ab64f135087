// Package identity says who is who on a ring, and what a node permits.
//
// Init makes the keys of a cluster, Find and Load read those of a server or of a
// node, and ServerConfig and ClientConfig turn them into the *tls.Config of each
// end. LoadPolicy reads what a node lets a sender do.
//
// # Keys
//
// A cluster has a private certificate authority. Each certificate carries one URI
// as its subject alternative name, and nothing else in it is looked at:
//
//	dolly-img://CLUSTER/ca/           the authority
//	dolly-img://CLUSTER/sender/NAME   may open a transfer
//	dolly-img://CLUSTER/node/NAME     may take part in one, under that name only
//	dolly-img://CLUSTER/node/         may take part in one, under any name
//
// The last is the shared key of all nodes. It proves membership only: whoever has
// it can pose as any node, but never as a sender. A directory of keys holds
//
//	ca.pem          certificates of the authority; several while one replaces the other
//	ca.key          its private key, needed by Init only; keep it off the nodes
//	sender.pem      certificate and key of the server
//	node.pem        certificate and key of a node
//	node-NAME.pem   the same with a name; installed on that node as node.pem
//	policy.toml     what the node permits (see Policy)
//
// All are PEM. Files with a private key must not be accessible to group or others.
//
// To replace the authority: Init a new directory with the same cluster name, append
// its ca.pem to that of every host, replace the sender.pem and node.pem, then remove
// the old certificate from each ca.pem.
//
// # Connections
//
// TLS 1.3, both ends authenticated, without resumption; what a peer may do depends
// on the protocol agreed on by ALPN: ControlProtocol is for senders, DataProtocol for
// senders and nodes, and any other or none is refused. The listening end is always a
// node. The whole chain, with its expiry, is checked at every handshake. In TLS 1.3 a
// client's handshake ends before the server has judged its certificate: the refusal
// arrives with its first Read (see Refused).
package identity
