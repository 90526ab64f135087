package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// leastWindow is the smallest window that a node can have: tests leave it behind soon.
var leastWindow = relay.Sizes{}.MinWindow()

// memSource is a Source in memory.
type memSource struct {
	blobs [][]byte
	descs []v1.Descriptor
	read  func(blob int, off int64) // called before each read
}

func newMemSource(known bool, blobs ...[]byte) *memSource {
	s := &memSource{blobs: blobs}
	for _, b := range blobs {
		d := v1.Descriptor{MediaType: "application/octet-stream", Size: int64(len(b))}
		if known {
			d.Digest = digest.FromBytes(b)
		}
		s.descs = append(s.descs, d)
	}
	return s
}

func (s *memSource) Blobs(context.Context) ([]v1.Descriptor, error) { return s.descs, nil }

func (s *memSource) Open(_ context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	for i := range s.descs {
		if s.descs[i].Digest == d.Digest && s.descs[i].Size == d.Size {
			r := bytes.NewReader(s.blobs[i][off:])
			return io.NopCloser(readFunc(func(p []byte) (int, error) {
				if s.read != nil {
					s.read(i, int64(len(s.blobs[i])-r.Len()))
				}
				return r.Read(p)
			})), nil
		}
	}
	return nil, errors.New("no such blob")
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// memSink is a Sink in memory that can replay.
type memSink struct {
	mu        sync.Mutex
	have      map[digest.Digest][]byte // complete blobs, kept between transfers
	parts     [][]byte
	published int
	closed    int
	fail      func(what string, blob int) error
	descs     []v1.Descriptor
}

func newMemSink() *memSink { return &memSink{have: map[digest.Digest][]byte{}} }

func (s *memSink) try(what string, blob int) error {
	if s.fail == nil {
		return nil
	}
	return s.fail(what, blob)
}

func (s *memSink) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.descs = blobs
	held := make([]int64, len(blobs))
	s.parts = make([][]byte, len(blobs))
	for i, d := range blobs {
		if b, ok := s.have[d.Digest]; ok && d.Digest != "" {
			held[i], s.parts[i] = d.Size, b
		}
	}
	return held, -1, s.try("offer", 0)
}

func (s *memSink) index(d v1.Descriptor) int {
	for i := range s.descs {
		if s.descs[i].Digest == d.Digest && s.descs[i].Size == d.Size {
			return i
		}
	}
	return -1
}

func (s *memSink) Begin(_ context.Context, d v1.Descriptor, off int64) (Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.index(d)
	// All of it at once: memory that grows is copied, and each byte of each copy is checked for races.
	s.parts[i] = make([]byte, 0, min(max(d.Size, 0), 64<<20))
	return &memWriter{s, i}, s.try("begin", i)
}

func (s *memSink) Publish(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published++
	return s.try("publish", 0)
}

func (s *memSink) Close() error { s.mu.Lock(); defer s.mu.Unlock(); s.closed++; return nil }

func (s *memSink) Open(_ context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(readFunc(func(p []byte) (int, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b := s.parts[s.index(d)]
		if off >= int64(len(b)) {
			return 0, io.EOF
		}
		n := copy(p, b[off:])
		off += int64(n)
		return n, nil
	})), nil
}

type memWriter struct {
	s *memSink
	i int
}

func (w *memWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := w.s.try("write", w.i); err != nil {
		return 0, err
	}
	w.s.parts[w.i] = append(w.s.parts[w.i], p...)
	return len(p), nil
}

func (w *memWriter) Commit(_ context.Context, final v1.Descriptor) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := w.s.try("commit", w.i); err != nil {
		return err
	}
	b := w.s.parts[w.i]
	if sum := digest.FromBytes(b); sum != final.Digest || int64(len(b)) != final.Size {
		return fmt.Errorf("told to commit %v, holds %v of %d bytes", final.Digest, sum, len(b))
	}
	w.s.have[final.Digest] = b
	return nil
}

func (w *memWriter) Abort(int64) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.parts[w.i] = nil
	return nil
}

// blind hides that a sink is an Opener.
type blind struct{ Sink }

// cluster is a set of nodes on loopback with real keys.
type cluster struct {
	t     *testing.T
	send  *identity.Identity
	nodes []*testNode
}

type testNode struct {
	name     string
	node     *Node
	addr     string
	sink     *memSink
	listener *killListener
	outcomes chan Outcome
}

// window has the transfers that begin from now on share so many bytes of memory for replay.
func (n *testNode) window(bytes int) {
	n.node.mu.Lock()
	defer n.node.mu.Unlock()
	n.node.pool = relay.NewPool(bytes, relay.Sizes{})
}

var keys = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "ring-keys-")
	if err == nil {
		err = identity.Init(dir, identity.InitOptions{Cluster: "test"})
	}
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(keys())
	os.Exit(code)
}

// clientOf tells who opened a connection with one of our keys.
func clientOf(cs tls.ConnectionState) (string, Role) {
	peer, _ := identity.PeerOf(cs)
	return peer.Name, Role(peer.Role)
}

func newCluster(t *testing.T, n int, edit func(i int, c *NodeConfig)) *cluster {
	t.Helper()
	id, err := identity.Load(keys(), identity.Sender)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, send: id}
	for i := range n {
		c.nodes = append(c.nodes, startNode(t, fmt.Sprintf("n%02d", i+1), func(cfg *NodeConfig) {
			if edit != nil {
				edit(i, cfg)
			}
		}))
	}
	return c
}

func startNode(t *testing.T, name string, edit func(*NodeConfig)) *testNode {
	t.Helper()
	id, err := identity.Load(keys(), identity.Node)
	if err != nil {
		t.Fatal(err)
	}
	tn := &testNode{name: name, sink: newMemSink(), outcomes: make(chan Outcome, 16)}
	cfg := NodeConfig{
		TLS:        id.ServerConfig(ALPNControl, ALPNData),
		DataTLS:    func(node string) *tls13 { return id.ClientConfig(ALPNData, node) },
		Client:     clientOf,
		Accept:     func(context.Context, Request) (Sink, error) { return tn.sink, nil },
		Finished:   func(_ Request, o Outcome) { tn.outcomes <- o },
		AllowPlain: true,
		Transfers:  1,
		Log:        testLog(t),
	}
	edit(&cfg)
	if tn.node, err = NewNode(cfg); err != nil {
		t.Fatal(err)
	}
	tn.window(leastWindow)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tn.addr = l.Addr().String()
	tn.listener = &killListener{Listener: l}
	served := make(chan error, 1)
	go func() { served <- tn.node.Serve(tn.listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		tn.node.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return tn
}

// killListener remembers connections, so that a test can end a node the way
// SIGKILL does: all sockets closed, nothing said.
type killListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *killListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

func (n *testNode) die() {
	n.node.mu.Lock()
	defer n.node.mu.Unlock()
	n.node.closing = true
	n.listener.Listener.Close()
	n.listener.mu.Lock()
	defer n.listener.mu.Unlock()
	for _, c := range n.listener.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	for _, t := range n.node.sessions {
		go t.kill()
	}
}

func (c *cluster) config(src Source) Config {
	cfg := Config{
		Source:  src,
		TLS:     func(n string) *tls13 { return c.send.ClientConfig(ALPNControl, n) },
		DataTLS: func(n string) *tls13 { return c.send.ClientConfig(ALPNData, n) },
		Log:     testLog(c.t),
	}
	for _, n := range c.nodes {
		cfg.Nodes = append(cfg.Nodes, Peer{Name: n.name, Addrs: []string{n.addr}})
	}
	return cfg
}

func testLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// random returns n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// wants checks that a good row has what the source has, and that others
// published nothing.
func (c *cluster) wants(r *Report, state State, blobs ...[]byte) {
	c.t.Helper()
	if len(r.Nodes) != len(c.nodes) {
		c.t.Fatalf("%d rows for %d nodes", len(r.Nodes), len(c.nodes))
	}
	for i, row := range r.Nodes {
		if row.State != state {
			c.t.Errorf("%s: %s (%s), want %s", row.Node, row.State, row.Reason, state)
		}
		c.nodes[i].check(c.t, row, blobs...)
	}
}

func (n *testNode) check(t *testing.T, row Row, blobs ...[]byte) {
	t.Helper()
	n.sink.mu.Lock()
	defer n.sink.mu.Unlock()
	if !row.State.Good() {
		if n.sink.published > 0 {
			t.Errorf("%s: %s, but it published", row.Node, row.State)
		}
		return
	}
	if n.sink.published == 0 {
		t.Errorf("%s: %s, but it published nothing", row.Node, row.State)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(blobs[len(blobs)-1])); row.Digest != want {
		t.Errorf("%s: digest %s, want %s", row.Node, row.Digest, want)
	}
	for i, b := range blobs {
		if got, ok := n.sink.have[digest.FromBytes(b)]; !ok || !bytes.Equal(got, b) {
			t.Errorf("%s: blob %d is not there as sent", row.Node, i)
		}
	}
}

const testLimit = 60 * time.Second

// callBare has a server open control connections without TLS.
func callBare(s *sender) {
	s.secure = func(_ context.Context, raw net.Conn, _ string) (net.Conn, error) { return raw, nil }
}

// bareControl has a node take control connections without TLS, too: they begin with the byte 0, which
// is the first of a message's length.
func bareControl(n *Node) {
	next := n.authenticate
	n.authenticate = func(guard *stranger, first []byte, cfg *NodeConfig) (peer, bool) {
		if first[0] != 0 {
			return next(guard, first, cfg)
		}
		low := relay.NewLowConn(guard, false, first)
		return peer{ALPNControl, low, low}, true
	}
}
