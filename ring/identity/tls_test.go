package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

func load(t *testing.T, dir string, role Role) *Identity {
	t.Helper()
	id, err := Load(dir, role)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// unchecked makes an identity from files that Load may refuse.
func unchecked(t *testing.T, dir, name string) *Identity {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(dir+"/"+name, dir+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := readCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := certPeer(cert.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{Peer: peer, roots: pool(ca.certs), cert: cert}
}

type result struct {
	server, client error
	peer           Peer // whom the server saw
}

// shake makes a TLS connection over loopback, sends one byte from the server, and
// says what either end made of it.
func shake(t *testing.T, server, client *tls.Config) result {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan result)
	go func() {
		var r result
		conn, err := l.Accept()
		if err != nil {
			done <- result{server: err}
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		tc := tls.Server(conn, server)
		r.server = tc.Handshake()
		if r.server == nil {
			r.peer, r.server = PeerOf(tc.ConnectionState())
			tc.Write([]byte{1})
		}
		io.Copy(io.Discard, tc) // until the client is gone, so that it reads our alert
		done <- r
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(conn, client)
	clientErr := tc.Handshake()
	if clientErr == nil {
		_, clientErr = io.ReadFull(tc, make([]byte, 1))
	}
	conn.Close()
	r := <-done
	r.client = clientErr
	return r
}

func accepted(t *testing.T, server, client *tls.Config) Peer {
	t.Helper()
	r := shake(t, server, client)
	if r.server != nil || r.client != nil {
		t.Fatalf("refused: server %v, client %v", r.server, r.client)
	}
	return r.peer
}

// byServer wants a refusal by the server that the client understands.
func byServer(t *testing.T, server, client *tls.Config, want string) {
	t.Helper()
	r := shake(t, server, client)
	if r.server == nil || !strings.Contains(r.server.Error(), want) {
		t.Errorf("server: %v, want %q", r.server, want)
	}
	if r.client == nil || !Refused(r.client) {
		t.Errorf("client: %v, want a refusal", r.client)
	}
}

// byClient wants a refusal by the client.
func byClient(t *testing.T, server, client *tls.Config, want string) {
	t.Helper()
	r := shake(t, server, client)
	var peerErr *PeerError
	if !errors.As(r.client, &peerErr) || !strings.Contains(r.client.Error(), want) || !Refused(r.client) || !errkind.Has(r.client) {
		t.Errorf("client: %v, want %q", r.client, want)
	}
}

func both(id *Identity) *tls.Config { return id.ServerConfig(ControlProtocol, DataProtocol) }

func TestHandshake(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "admin", Nodes: []string{"node1"}})
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	named := unchecked(t, dir, "node-node1.pem")
	for _, c := range []struct {
		who  *Identity
		alpn string
		want Peer
	}{
		{sender, ControlProtocol, Peer{Sender, "admin", "test"}},
		{sender, DataProtocol, Peer{Sender, "admin", "test"}},
		{load(t, dir, Warmer), ControlProtocol, Peer{Warmer, "warmer", "test"}},
		{load(t, dir, Warmer), DataProtocol, Peer{Warmer, "warmer", "test"}},
		{load(t, dir, Viewer), ControlProtocol, Peer{Viewer, "viewer", "test"}},
		{node, DataProtocol, Peer{Node, "", "test"}},
		{named, DataProtocol, Peer{Node, "node1", "test"}},
	} {
		if got := accepted(t, both(node), c.who.ClientConfig(c.alpn, "node1:9998")); got != c.want {
			t.Errorf("%v over %s seen as %v", c.who.Peer, c.alpn, got)
		}
		accepted(t, both(named), c.who.ClientConfig(c.alpn, "node1:9998"))
		accepted(t, both(named), c.who.ClientConfig(c.alpn, "NODE1.example."))
		accepted(t, both(named), c.who.ClientConfig(c.alpn, ""))
		byClient(t, both(named), c.who.ClientConfig(c.alpn, "node2:9998"), `it answers for "node2:9998"`)
		byClient(t, both(named), c.who.ClientConfig(c.alpn, "10.0.0.1"), "node/node1")
	}
}

func TestRefusedByServer(t *testing.T) {
	dir := keys(t, InitOptions{})
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	foreign := keys(t, InitOptions{})
	otherCluster := keys(t, InitOptions{Cluster: "other"})
	expired := keys(t, InitOptions{Now: time.Now().Add(-48 * time.Hour), Validity: time.Hour})
	future := keys(t, InitOptions{Now: time.Now().Add(48 * time.Hour)})

	// A client that checks nothing, as an attacker's.
	raw := func(id *Identity, alpn ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{id.cert}, NextProtos: alpn}
	}
	byServer(t, both(node), raw(node, ControlProtocol), "only a sender may open a transfer")
	byServer(t, both(node), raw(load(t, dir, Viewer), DataProtocol), "a viewer takes no part in a transfer")
	byServer(t, both(node), raw(sender), `unknown protocol ""`)
	byServer(t, both(node), raw(sender, "h2", "http/1.1"), "protocol")
	byServer(t, node.ServerConfig(DataProtocol), raw(sender, ControlProtocol), "protocol")
	byServer(t, node.ServerConfig("h2"), raw(sender, "h2"), `unknown protocol "h2"`)
	byServer(t, both(node), raw(load(t, foreign, Sender), ControlProtocol), "certificate")
	byServer(t, both(node), raw(load(t, otherCluster, Sender), ControlProtocol), "certificate")
	byServer(t, both(node), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ControlProtocol}}, "certificate")

	// Expiry: the node believes the expired one's authority.
	for _, d := range []string{expired, future} {
		trusting := *node
		trusting.roots = unchecked(t, d, nodeFile).roots
		byServer(t, both(&trusting), raw(unchecked(t, d, senderFile), ControlProtocol), "expired")
	}

	// Same authority, another cluster: only the name tells.
	elsewhere := *node
	elsewhere.Cluster = "elsewhere"
	byServer(t, both(&elsewhere), raw(sender, ControlProtocol), `this is cluster "elsewhere"`)

	old := raw(sender, ControlProtocol)
	old.MaxVersion = tls.VersionTLS12
	byServer(t, both(node), old, "unsupported versions")
}

func TestRefusedByClient(t *testing.T) {
	dir := keys(t, InitOptions{})
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	raw := func(id *Identity, alpn ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{id.cert}, NextProtos: alpn}
	}
	want := sender.ClientConfig(ControlProtocol, "n1")
	accepted(t, withClientCert(raw(node, ControlProtocol)), want)
	byClient(t, raw(sender, ControlProtocol), want, "incompatible key usage")
	byClient(t, raw(load(t, keys(t, InitOptions{}), Node), ControlProtocol), want, "unknown authority")
	byClient(t, raw(node), want, "does not speak")

	expired := keys(t, InitOptions{Now: time.Now().Add(-48 * time.Hour), Validity: time.Hour})
	trusting := *sender
	trusting.roots = unchecked(t, expired, nodeFile).roots
	byClient(t, raw(unchecked(t, expired, nodeFile), ControlProtocol), trusting.ClientConfig(ControlProtocol, ""), "expired")

	elsewhere := *sender
	elsewhere.Cluster = "elsewhere"
	byClient(t, raw(node, ControlProtocol), elsewhere.ClientConfig(ControlProtocol, ""), "this is cluster")

	old := raw(node, ControlProtocol)
	old.MaxVersion = tls.VersionTLS12
	if r := shake(t, old, want); r.client == nil {
		t.Error("TLS 1.2 server accepted")
	}

	// A node's role is wanted even from a certificate that could serve.
	if _, err := certPeer(node.cert.Leaf); err != nil {
		t.Fatal(err)
	}
	byClient(t, raw(senderThatServes(t, dir), ControlProtocol), want, "it listens, but is no node")
}

func withClientCert(c *tls.Config) *tls.Config {
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// senderThatServes is a sender whose certificate has a server's key usage.
func senderThatServes(t *testing.T, dir string) *Identity {
	t.Helper()
	o := InitOptions{Now: time.Now(), Validity: time.Hour}
	a, err := o.loadCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := o.template(Peer{Sender, "x", "test"})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
}

// While one authority replaces another, hosts with both in ca.pem talk to hosts with
// keys of either.
func TestRotation(t *testing.T) {
	before, after := keys(t, InitOptions{}), keys(t, InitOptions{})
	for _, pair := range [][2]string{{before, after}, {after, before}} {
		mine, other := pair[0], pair[1]
		oldCA := content(t, mine+"/ca.pem")
		write(t, mine+"/ca.pem", 0o644, oldCA, content(t, other+"/ca.pem"))
		sender, node := load(t, mine, Sender), load(t, mine, Node)
		accepted(t, both(node), sender.ClientConfig(ControlProtocol, ""))
		byServer(t, both(load(t, other, Node)), sender.ClientConfig(ControlProtocol, ""), "unknown authority")
		accepted(t, both(node), trusts(load(t, other, Sender), node).ClientConfig(ControlProtocol, ""))
		write(t, mine+"/ca.pem", 0o644, oldCA)
	}
}

func trusts(id, as *Identity) *Identity {
	c := *id
	c.roots = as.roots
	return &c
}

func TestNoResumption(t *testing.T) {
	dir := keys(t, InitOptions{})
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	client := sender.ClientConfig(ControlProtocol, "")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	resumed := false
	verify := client.VerifyConnection
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		resumed = resumed || cs.DidResume
		return verify(cs)
	}
	for range 3 {
		accepted(t, both(node), client)
	}
	if resumed {
		t.Error("a session was resumed")
	}
}

func TestRefusedIsNotLoss(t *testing.T) {
	for _, err := range []error{nil, io.EOF, &net.OpError{Op: "read", Err: errors.New("reset")}} {
		if Refused(err) {
			t.Errorf("Refused(%v)", err)
		}
	}
}

func TestPeerNames(t *testing.T) {
	for s, want := range map[string]Peer{
		"dolly-img://c1/sender/admin":      {Sender, "admin", "c1"},
		"dolly-img://c1/node/":             {Node, "", "c1"},
		"dolly-img://c1/node/n1.example":   {Node, "n1.example", "c1"},
		"dolly-img://c1/node/fe80::1":      {Node, "fe80::1", "c1"},
		"dolly-img://c1/ca/":               {authority, "", "c1"},
		"dolly-img://c1/sender/":           {},
		"dolly-img://c1/node":              {},
		"dolly-img://c1/admin/x":           {},
		"dolly-img://c1/node/a/b":          {},
		"dolly-img://c1/node/a%2fb":        {},
		"dolly-img://c1/node/a?x=1":        {},
		"dolly-img://c1/node/a#x":          {},
		"dolly-img://u@c1/node/a":          {},
		"dolly-img:///node/a":              {},
		"dolly-img://c1//node/a":           {},
		"dolly-img://c1.example.com/node/": {},
		"https://c1/sender/admin":          {},
	} {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsePeer(u)
		if (err == nil) != (want != Peer{}) || err == nil && (got != want || got.String() != s) {
			t.Errorf("parsePeer(%s) = %v, %v, want %v", s, got, err, want)
		}
	}
}

func TestCertPeer(t *testing.T) {
	ed := load(t, keys(t, InitOptions{}), Node).cert.Leaf.PublicKey
	u := (Peer{Node, "a", "c"}).uri()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		cert x509.Certificate
		ok   bool
	}{
		{x509.Certificate{PublicKey: ed, URIs: []*url.URL{u}}, true},
		{x509.Certificate{PublicKey: ed}, false},
		{x509.Certificate{PublicKey: ed, URIs: []*url.URL{u, u}}, false},
		{x509.Certificate{PublicKey: p384.Public(), URIs: []*url.URL{u}}, false},
		{x509.Certificate{PublicKey: &rsa.PublicKey{}, URIs: []*url.URL{u}}, false},
	} {
		if _, err := certPeer(&c.cert); (err == nil) != c.ok {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestSameHost(t *testing.T) {
	for _, c := range []struct {
		certified, asked string
		want             bool
	}{
		{"node1", "node1", true},
		{"node1", "node1:9998", true},
		{"node1", "NODE1.cluster.example.:1", true},
		{"node1.cluster.example", "node1", true},
		{"node1.cluster.example", "node1.other.example", false},
		{"node1", "node10", false},
		{"node1", "node", false},
		{"10.0.0.1", "10.0.0.1:9998", true},
		{"10.0.0.1", "10.0.0.10", false},
		{"10", "10.0.0.1", false},
		{"node1", "10.0.0.1", false},
		{"fe80::1", "[fe80:0::1%eth0]:9998", true},
		{"fe80::1", "fe80::1", true},
		{"fe80::1", "[fe80::1]", true},
		{"fe80::1", "fe80::2", false},
		{"10.0.0.1", "::ffff:10.0.0.1", true},
		{"node1", ".example", false},
	} {
		if got := sameHost(c.certified, c.asked); got != c.want {
			t.Errorf("sameHost(%q, %q) = %v", c.certified, c.asked, got)
		}
	}
}
