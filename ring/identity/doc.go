// Package identity says who is who on a ring, and what a node permits.
//
// Init makes the keys of a cluster, Add makes more of them, Renew replaces those that end soon,
// and Revoke gives some up. Find and Load read the keys of a server or of a node. ServerConfig
// and ClientConfig turn them into the *tls.Config of each end. LoadPolicy reads what a node lets
// a sender do.
//
// # Keys
//
// A cluster has a private certificate authority. Each certificate has one URI as its
// subject alternative name (RFC 5280, section 4.2.1.6). Nothing else says who the holder is:
//
//	dolly-img://CLUSTER/ca/           the authority
//	dolly-img://CLUSTER/sender/NAME   may open a transfer
//	dolly-img://CLUSTER/warmer/NAME   may fill the caches of nodes, and say what they should keep
//	dolly-img://CLUSTER/viewer/NAME   may ask nodes what they have
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
//	warmer.pem      certificate and key of a program that keeps caches warm
//	viewer.pem      certificate and key of whoever looks only
//	node-NAME.pem   that of a node with a name; installed on that node as node.pem
//	sender-NAME.pem another sender; installed on its machine as sender.pem; the same with warmer- and viewer-
//	policy.toml     what the node permits (see Policy)
//	revoked         certificates that are not believed any more (see Revocation)
//	issued          every certificate that was made here (see Issued)
//
// The .pem files and ca.key are PEM (RFC 7468). Files with a private key must not be
// accessible to group or others.
//
// The authority is replaced in three steps. RenewCA adds a new one to ca.pem, which is copied
// to every host. Then Renew replaces the certificates, which are copied, too. At last the old
// authority is taken out of every ca.pem, where it may stay until it ends. The list of revoked
// certificates is no part of policy.toml, because all hosts get the same list, and each host has a
// policy of its own.
//
// # Connections
//
// Connections are TLS 1.3 (RFC 8446) without resumption, and both ends show a certificate.
// What a peer may do depends on the protocol that both agree on by ALPN (RFC 7301):
// ControlProtocol is for senders, warmers and viewers, DataProtocol for senders, warmers and nodes, and any other or none
// is refused. What else a warmer and a viewer may not do is for the node to refuse, which knows what is asked of it. The listening end is always a node. Every handshake checks the whole chain, with
// its expiry. In TLS 1.3 the handshake of a client ends before the server has judged its
// certificate. So the client learns of a refusal by its first Read (see Refused).
package identity
