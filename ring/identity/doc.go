// Package identity says who is who on a ring, and what a node permits.
//
// Init makes the keys of a cluster, Add more of them, Renew replaces those that near
// their end and Revoke gives some up. Find and Load read those of a server or of a node, and ServerConfig and ClientConfig turn them into the *tls.Config of each
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
//	ca.key          its private key, needed to issue certificates only; keep it off the nodes
//	sender.pem      certificate and key of the server
//	node.pem        certificate and key of a node
//	node-NAME.pem   the same with a name; installed on that node as node.pem
//	sender-NAME.pem another sender; installed on its machine as sender.pem
//	policy.toml     what the node permits (see Policy)
//	revoked         certificates that are not believed any more (see Revocation)
//
// All are PEM. Files with a private key must not be accessible to group or others.
//
// To replace the authority: RenewCA adds a new one to ca.pem, which is copied to every
// host. Then Renew replaces the certificates, which are copied, too. Last, the old authority
// goes out of every ca.pem; it may stay until it ends. The list of revoked certificates is a
// file of its own, and not part of policy.toml, because it is the same on all hosts, and copied
// to them as it is, while each has its own policy.
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
