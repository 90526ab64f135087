package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

const (
	controlProtocol = "dolly-img-control/1"
	dataProtocol    = "dolly-img-data/1"
)

// attacker speaks to a node's port from a host of its own, without our code.
type attacker struct {
	t    *testing.T
	from *netns.Host
	to   netip.AddrPort
}

// dial runs f on a connection and gives it 10 s.
func (a *attacker) dial(f func(net.Conn) error) error {
	return a.from.Inside(func() error {
		c, err := net.DialTimeout("tcp", a.to.String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return f(c)
	})
}

// refused sends bytes and demands that the node ends the connection without a word.
func (a *attacker) refused(what string, send []byte) {
	a.t.Helper()
	err := a.dial(func(c net.Conn) error {
		if _, err := c.Write(send); err != nil {
			return nil // ended already
		}
		answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return errors.New("not ended in 10 s")
		}
		if len(answer) > 0 && answer[0] != 21 { // a TLS alert is no answer
			return fmt.Errorf("answered %d bytes: %.60q", len(answer), answer)
		}
		return nil
	})
	if err != nil {
		a.t.Errorf("%s: %v", what, err)
	}
}

// strayLink opens a plain data link that no coordinator asked for: it gets a challenge,
// and its made-up answer ends it.
func (a *attacker) strayLink() {
	a.t.Helper()
	err := a.dial(func(c net.Conn) error {
		if _, err := c.Write(firstWords(dataProtocol)); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, challengeSize)); err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		c.Write(make([]byte, helloSize))
		if answer, _ := io.ReadAll(c); len(answer) > 1 || len(answer) == 1 && answer[0] == 0 {
			return fmt.Errorf("answered %x", answer)
		}
		return nil
	})
	if err != nil {
		a.t.Errorf("a link nobody asked for: %v", err)
	}
}

// The first words of the two planes (ring/PROTOCOL.md, sections 2 and 5), well-formed.
func firstWords(protocol string) []byte {
	if protocol == dataProtocol {
		return []byte(linkMagic)
	}
	body := `{"min":1,"max":1,"transfer":"00112233445566778899aabbccddeeff","node":"x","resume":false}`
	return append([]byte{0, 0, 0, byte(len(body) + 1), 1}, body...) // HELLO: length, type, body
}

// challengeSize is how long a node's first word on a data link is.
const challengeSize = 32

// say opens a TLS connection with cfg, says the first words of its protocol and returns
// what comes until the node ends it, or bytes have come.
func (a *attacker) say(cfg *tls.Config, protocol string, bytes int64) (answer []byte, err error) {
	cfg.InsecureSkipVerify = true // who the node is does not matter to an attacker
	err = a.dial(func(raw net.Conn) error {
		c := tls.Client(raw, cfg)
		if err := c.Handshake(); err != nil {
			return err
		}
		c.Write(firstWords(protocol)) // in TLS 1.3 the refusal comes after the client's handshake
		var err error
		answer, err = io.ReadAll(io.LimitReader(c, bytes))
		return err
	})
	return answer, err
}

// noEntry demands that a TLS client with cfg gets nothing out of the node, whichever of
// the two protocols it speaks.
func (a *attacker) noEntry(what string, cfg *tls.Config) {
	a.t.Helper()
	for _, protocol := range []string{controlProtocol, dataProtocol} {
		if len(cfg.NextProtos) == 1 && (cfg.NextProtos[0] == controlProtocol || cfg.NextProtos[0] == dataProtocol) && cfg.NextProtos[0] != protocol {
			continue // it agreed on the other
		}
		answer, err := a.say(cfg, protocol, 1<<20)
		if len(answer) > 0 {
			a.t.Errorf("%s: answered %d bytes: %.60q", what, len(answer), answer)
		}
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			a.t.Errorf("%s: not ended in 10 s", what)
		}
	}
}

// welcome demands the opposite: the same client with the right key is answered. It
// shows that the others were refused for their keys.
func (a *attacker) welcome(what string, cfg *tls.Config, bytes int64) {
	a.t.Helper()
	answer, err := a.say(cfg, cfg.NextProtos[0], bytes)
	if int64(len(answer)) != bytes {
		a.t.Errorf("%s: answered %d bytes of %d: %.60q, %v", what, len(answer), bytes, answer, err)
	}
}

// tryKeys connects with right keys, which the node has to answer, and then with wrong ones of every kind.
func (a *attacker) tryKeys(keys string) {
	a.t.Helper()
	ca := readAuthority(a.t, keys)
	a.welcome("the sender itself", clientConfig(readKey(a.t, keys, "sender.pem"), controlProtocol), 5)
	a.welcome("the sender itself, data", clientConfig(readKey(a.t, keys, "sender.pem"), dataProtocol), challengeSize)
	a.welcome("a node itself, data", clientConfig(readKey(a.t, keys, "node.pem"), dataProtocol), challengeSize)
	a.welcome("a node with a key made here", clientConfig(ca.issue(a.t, "dolly-img://test/node/", time.Hour), dataProtocol), challengeSize)
	for what, cfg := range map[string]*tls.Config{
		"no certificate":          {NextProtos: []string{controlProtocol}},
		"no certificate, data":    {NextProtos: []string{dataProtocol}},
		"no certificate, both":    {NextProtos: []string{dataProtocol, controlProtocol}},
		"node of another place":   clientConfig(ca.issue(a.t, "dolly-img://other/node/", time.Hour), dataProtocol),
		"no role, data":           clientConfig(ca.issue(a.t, "dolly-img://test/king/x", time.Hour), dataProtocol),
		"a node as sender":        clientConfig(readKey(a.t, keys, "node.pem"), controlProtocol),
		"no protocol":             clientConfig(readKey(a.t, keys, "sender.pem")),
		"another protocol":        clientConfig(readKey(a.t, keys, "sender.pem"), "http/1.1"),
		"expired sender":          clientConfig(ca.issue(a.t, "dolly-img://test/sender/late", -time.Hour), controlProtocol),
		"expired node":            clientConfig(ca.issue(a.t, "dolly-img://test/node/", -time.Hour), dataProtocol),
		"sender of another place": clientConfig(ca.issue(a.t, "dolly-img://other/sender/x", time.Hour), controlProtocol),
		"no role":                 clientConfig(ca.issue(a.t, "dolly-img://test/king/x", time.Hour), controlProtocol),
		"forged sender":           clientConfig(newAuthority(a.t, "test").issue(a.t, "dolly-img://test/sender/x", time.Hour), controlProtocol),
		"forged node":             clientConfig(newAuthority(a.t, "test").issue(a.t, "dolly-img://test/node/", time.Hour), dataProtocol),
	} {
		a.noEntry(what, cfg)
	}
	old := clientConfig(readKey(a.t, keys, "sender.pem"), controlProtocol)
	old.MaxVersion = tls.VersionTLS12
	a.noEntry("TLS 1.2", old)
}

// tryJunk sends bytes that belong to no protocol of ours.
func (a *attacker) tryJunk() {
	a.t.Helper()
	a.refused("plain HTTP", []byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"))
	a.strayLink()
	a.refused("a TLS record of zeros", append([]byte{0x16, 3, 1, 0x40, 0}, make([]byte, 1<<16)...))
	a.refused("nothing", nil)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		junk := make([]byte, 1+rng.IntN(1<<15))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		if junk[0] == 0x16 || junk[0] == 'D' {
			junk[0]++
		}
		a.refused("random bytes", junk)
	}
}

// tryConnections connects many times and says nothing.
func (a *attacker) tryConnections() {
	a.t.Helper()
	if err := a.from.Inside(func() error {
		for range 10_000 {
			c, err := net.DialTimeout("tcp", a.to.String(), 5*time.Second)
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	}); err != nil {
		a.t.Errorf("connect and close: %v", err)
	}
}

// While a push runs at a given rate, one of its nodes is attacked in every way there
// is without a key. Nothing comes of it.
func TestHammeredNode(t *testing.T) {
	ctx := need(t, 3*time.Minute)
	const rate, size = 20e6, 500 << 20
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	bystander := r.nodes[3] // a host of the attacker's
	r.nodes = r.nodes[:3]
	r.start()
	target := r.nodes[1]
	a := &attacker{t, bystander.Host, netip.AddrPortFrom(target.Addr, 9998)}

	sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
	warm := makeFile(t, filepath.Join(r.dir, "warm"), 64<<20)
	r.want(r.push("raw", "--input", warm, "--output", r.data+"/file"), 0, "committed")
	pid := target.daemon.Pid()
	files, err := netns.OpenFiles(pid)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := netns.AnonMemory(pid)
	if err != nil {
		t.Fatal(err)
	}

	p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--rate", "20M", "--json")
	if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
		t.Fatal(err)
	}
	a.tryKeys(r.keys)
	a.tryJunk()
	a.tryConnections()
	select {
	case <-p.process.Done():
		t.Error("the push was over before the attack")
	default:
	}

	res := p.wait()
	r.want(res, 0, "committed")
	r.same(sent, "file", r.nodes...)
	if limit := time.Duration(size/rate*float64(time.Second)) * 11 / 10; res.took > limit+2*time.Second {
		t.Errorf("took %v, without the attack %v", res.took, time.Duration(size/rate*1e9))
	}
	for _, n := range r.nodes {
		n.empty("file")
	}
	eventually(t, 10*time.Second, "descriptors return", func() (bool, string) {
		now, err := netns.OpenFiles(pid)
		return err == nil && now <= files, fmt.Sprintf("%d, before %d, %v", now, files, err)
	})
	eventually(t, 10*time.Second, "memory returns", func() (bool, string) {
		now, err := netns.AnonMemory(pid)
		return err == nil && now <= memory+8<<20, fmt.Sprintf("%d MiB, before %d MiB, %v", now>>20, memory>>20, err)
	})
	if bytes.Contains([]byte(target.daemon.Output()), []byte("panic")) {
		t.Error(target.daemon.Output())
	}
}

// Our own command, with keys that are wrong, says so.
func TestWrongKeys(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	r.start()
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 100_000)
	right := r.keys
	try := func(what string, code int, states ...string) {
		t.Helper()
		res := r.push("raw", "--input", sent, "--output", r.data+"/file")
		if states != nil {
			r.want(res, code, states...)
		} else if res.code != code {
			t.Errorf("%s: exit %d, want %d\n%s", what, res.code, code, res.output)
		}
		for _, n := range r.nodes {
			n.empty()
		}
	}

	r.keys = filepath.Join(r.dir, "foreign")
	if code, out := r.run(r.net.Server, "keys", "init", "--keys", r.keys, "--cluster", "test"); code != 0 {
		t.Fatal(out)
	}
	try("another authority", 5, "refused")

	r.keys = filepath.Join(r.dir, "none")
	r.mkdir(r.keys)
	try("no key", 1)

	r.keys = filepath.Join(r.dir, "node")
	r.mkdir(r.keys)
	r.copy(right+"/ca.pem", r.keys+"/ca.pem")
	r.copy(right+"/node.pem", r.keys+"/sender.pem")
	try("a node's key", 1)

	r.keys = filepath.Join(r.dir, "expired")
	r.mkdir(r.keys)
	r.copy(right+"/ca.pem", r.keys+"/ca.pem")
	writeKey(t, r.keys+"/sender.pem", readAuthority(t, right).issue(t, "dolly-img://test/sender/late", -time.Hour))
	try("an expired key", 1)

	r.keys = right
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file"), 0, "committed")
}
