package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	enc "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A hostile sender has the valid key of a sender, and speaks the protocol (ring/PROTOCOL.md) to one node without our code.
type hostileSender struct {
	node *node
	key  tls.Certificate
	ctx  context.Context // ends with the attack, and closes what it has opened
}

// order is a transfer of a hostile sender.
type order struct {
	*hostileSender
	control net.Conn
	id      []byte
}

// dial opens a connection to the node.
func (h *hostileSender) dial(protocol string) (c *tls.Conn, err error) {
	r := h.node.rig
	var raw net.Conn
	err = r.net.Server.Inside(func() (err error) {
		raw, err = net.DialTimeout("tcp", netip.AddrPortFrom(h.node.Addr, 9998).String(), 5*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(h.ctx, func() { raw.Close() })
	conf := clientConfig(h.key, protocol)
	conf.InsecureSkipVerify = true
	c = tls.Client(raw, conf)
	return c, c.Handshake()
}

// greet opens a control connection and says HELLO. It reads no answer.
func (h *hostileSender) greet() (*order, error) {
	c, err := h.dial(controlProtocol)
	if err != nil {
		return nil, err
	}
	o := &order{h, c, make([]byte, 16)}
	rand.Read(o.id)
	return o, o.say(msgHello, `{"min":4,"max":4,"transfer":"%x","node":"n","resume":false}`, o.id)
}

// begin starts a transfer of such blobs, which the node writes to a file, or throws away where that is "".
// The node may need some time to see that the transfers of the attack before are lost, and refuses as busy until then.
func (h *hostileSender) begin(output, blobs string) (*order, error) {
	for {
		o, err := h.greet()
		if err != nil {
			return nil, err
		}
		o.offer(output, blobs)
		body, err := o.await(msgAnswer)
		if err == nil && bytes.Contains(body, []byte(`"code":""`)) {
			return o, o.say(msgStart, "{}")
		}
		if err != nil || h.ctx.Err() != nil || !bytes.Contains(body, []byte(`"code":"busy"`)) {
			return nil, fmt.Errorf("the offer was answered %s, %v", body, err)
		}
		o.control.Close()
	}
}

func (o *order) offer(output, blobs string) error {
	where := `"discard":true`
	if output != "" {
		where = fmt.Sprintf(`"output":%q`, o.node.rig.data+"/"+output)
	}
	return o.say(msgOffer, `{"blobs":[%s],"meta":{"version":1,"kind":"raw",%s},"plain":false}`, blobs, where)
}

func (o *order) say(kind byte, format string, args ...any) error {
	return o.write(message(kind, fmt.Sprintf(format, args...)))
}

// write gives up when the node reads nothing for three seconds, since one that is attacked computes for long.
func (o *order) write(b []byte) error {
	o.control.SetWriteDeadline(time.Now().Add(3 * time.Second))
	_, err := o.control.Write(b)
	return err
}

// await reads until a message of that kind comes. A node that is attacked four times at once computes for seconds before it answers.
func (o *order) await(kind byte) (body []byte, err error) {
	o.control.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		if k, body, err := readMessage(o.control); err != nil || k == kind {
			return body, err
		}
	}
}

// message is the bytes of a control message.
func message(kind byte, body string) []byte {
	return append(append(enc.BigEndian.AppendUint32(nil, uint32(len(body)+1)), kind), body...)
}

// list is a JSON list of n elements, without its brackets.
func list(n int, each string) string { return strings.TrimSuffix(strings.Repeat(each+",", n), ",") }

func blob(size int64) string { return fmt.Sprintf(`{"mediaType":"","digest":"","size":%d}`, size) }

// noSecret is the secret of all links: 32 zeros.
var noSecret = base64.StdEncoding.EncodeToString(make([]byte, 32))

// feed sends the node bytes of the first blob, and a mark for them, and waits until they are good.
func (o *order) feed(data []byte) error {
	g := grant{Link: 1, Generation: 1, Secret: make([]byte, 32)}
	o.say(msgFeed, `{"link":1,"generation":1,"secret":"%s","from":"server","addrs":null}`, noSecret)
	if _, err := o.await(msgNeed); err != nil {
		return err
	}
	link, err := o.dial(dataProtocol)
	if err != nil {
		return err
	}
	io.WriteString(link, linkMagic)
	challenge, head := make([]byte, challengeSize), make([]byte, headerSize)
	if _, err := io.ReadFull(link, challenge); err != nil {
		return err
	}
	link.Write(linkHello(linkMagic, challenge, o.id, g, 0))
	if _, err := io.ReadFull(link, challenge[:1]); err != nil || challenge[0] != 0 {
		return fmt.Errorf("link refused: %d, %v", challenge[0], err)
	}
	for off := 0; off < len(data); off += 1 << 20 {
		payload := data[off : off+1<<20]
		putHeader(head, int64(off), payload)
		link.Write(head)
		if _, err := link.Write(payload); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(data)
	o.say(msgMarks, `{"marks":[{"blob":0,"offset":%d,"sum":"%s","final":false}]}`, len(data), base64.StdEncoding.EncodeToString(sum[:]))
	for {
		body, err := o.await(msgReport)
		if err != nil || bytes.Contains(body, fmt.Appendf(nil, `"marked":%d`, len(data))) {
			return err
		}
	}
}

// receiver accepts links, takes them as a node does, or not even that, and reads nothing of them. It returns its address.
func (h *hostileSender) receiver(takes bool) (addr string, err error) {
	r := h.node.rig
	var l net.Listener
	err = r.net.Server.Inside(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(r.net.Server.Addr, 0).String())
		return err
	})
	if err != nil {
		return "", err
	}
	context.AfterFunc(h.ctx, func() { l.Close() })
	key := readKey(r.t, r.keys, "node.pem")
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(h.ctx, func() { raw.Close() })
			if takes {
				go func() {
					c := tls.Server(raw, (&hostile{keys: key}).config(dataProtocol))
					io.ReadFull(c, make([]byte, len(linkMagic)))
					c.Write(make([]byte, challengeSize))
					io.ReadFull(c, make([]byte, helloSize))
					c.Write([]byte{0})
				}()
			}
		}
	}()
	return l.Addr().String(), nil
}

// four runs f for each of as many transfers as a node takes at once.
func four(f func(nth int) error) error {
	errs := make(chan error, 4)
	for nth := range cap(errs) {
		go func() { errs <- f(nth) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// attacks are what a hostile sender tries, to make a node hold much.
var attacks = []struct {
	name string
	do   func(h *hostileSender) error
}{
	{"FEED with very many addresses", func(h *hostileSender) error {
		return four(func(int) error {
			o, err := h.begin("", blob(1<<40))
			for i := 0; i < 200 && err == nil; i++ {
				err = o.say(msgFeed, `{"link":1,"generation":%d,"secret":"%s","from":"x","addrs":[%s]}`, i+1, noSecret, list(16, fmt.Sprintf(`"10.%d.0.1:1"`, i)))
			}
			if err == nil {
				o.say(msgFeed, `{"link":1,"generation":1000,"secret":"","from":"x","addrs":[%s]}`, list(1_300_000, `""`))
			}
			return err
		})
	}},
	{"marks for 64 blobs", func(h *hostileSender) error {
		var pages [][]byte
		for at := int64(0); at < 300_000/64; at += 64 {
			var marks []string
			for off := at; off < at+64; off++ {
				for b := range 64 {
					marks = append(marks, fmt.Sprintf(`{"blob":%d,"offset":%d,"sum":"%s","final":false}`, b, (off+1)<<22, noSecret))
				}
			}
			pages = append(pages, message(msgMarks, `{"marks":[`+strings.Join(marks, ",")+`]}`))
		}
		return four(func(int) error {
			o, err := h.begin("", list(64, blob(1<<50)))
			for i := 0; i < len(pages) && err == nil; i++ {
				err = o.write(pages[i])
			}
			return err
		})
	}},
	{"thousands of DIALs and PROBEs", func(h *hostileSender) error {
		silent, err := h.receiver(false)
		if err != nil {
			return err
		}
		const many = 30_000
		needs := make([]string, many)
		for i := range needs {
			needs[i] = fmt.Sprintf("[%d,0]", i)
		}
		addrs := list(16, `"`+silent+`"`)
		return four(func(int) error {
			o, err := h.begin("", list(many, blob(1<<20)))
			for i := range 200 {
				n := needs
				if i > 10 {
					n = n[:1]
				}
				if err == nil {
					err = o.say(msgDial, `{"link":%d,"generation":1,"secret":"%s","name":"x","addrs":[%s],"needs":[%s],"lag":false}`, i+1, noSecret, addrs, strings.Join(n, ","))
				}
				if err == nil {
					err = o.say(msgProbe, `{"probe":%d,"name":"x","addrs":[%s]}`, i, addrs)
				}
			}
			return err
		})
	}},
	{"links to who reads nothing", func(h *hostileSender) error {
		deaf, err := h.receiver(true)
		if err != nil {
			return err
		}
		return four(func(nth int) error {
			o, err := h.begin(fmt.Sprint("links", nth), blob(1<<30))
			if err == nil {
				err = o.feed(make([]byte, 4<<20))
			}
			for k := 0; k < 100 && err == nil; k++ {
				err = o.say(msgDial, `{"link":%d,"generation":1,"secret":"%s","name":"x","addrs":["%s"],"needs":[[0,0]],"lag":%t}`, k+2, noSecret, deaf, k%2 == 0)
			}
			if err == nil {
				_, err = o.await(msgReport)
			}
			return err
		})
	}},
	{"outcomes with long reasons", func(h *hostileSender) error {
		for range 64 {
			o, err := h.begin("", blob(1<<30))
			if err != nil {
				return err
			}
			o.say(msgAbort, `{"reason":"%s","keep":false}`, strings.Repeat("x", 60_000))
			o.say(msgPing, "{}")
			if _, err := o.await(msgPong); err != nil {
				return err
			}
			o.control.Close()
		}
		return nil
	}},
	{"transfers that have ended", func(h *hostileSender) error {
		for range 24 { // each keeps its connection
			o, err := h.begin("", list(36_000, blob(1)))
			if err != nil {
				return err
			}
			o.say(msgAbort, `{"reason":"","keep":false}`)
		}
		return nil
	}},
	{"offers that wait", func(h *hostileSender) error {
		if err := four(func(int) error { _, err := h.begin("", blob(1<<30)); return err }); err != nil {
			return err
		}
		offers := []string{
			list(36_000, blob(1)), list(65_000, `{"mediaType":"","digest":"","size":0,"annotations":{"":""}}`), list(600_000, `{}`),
			fmt.Sprintf(`{"mediaType":"%s","digest":"","size":1}`, strings.Repeat("x", 4_000_000)),
		}
		return h.many(40, func(nth int, o *order) { o.offer("", offers[nth%len(offers)]) })
	}},
	{"offers that begin", func(h *hostileSender) error {
		long := message(msgOffer, strings.Repeat(" ", 4_000_000))
		return h.many(200, func(_ int, o *order) { o.write(long[:len(long)-1]) })
	}},
	{"answers that nobody reads", func(h *hostileSender) error {
		return four(func(int) error {
			o, err := h.begin("", list(30_000, blob(1<<40)))
			for i := range 300 {
				if err == nil && o.say(msgFeed, `{"link":1,"generation":%d,"secret":"%s","from":"x","addrs":null}`, i+1, noSecret) != nil {
					return nil // the node has hung up
				}
			}
			return err
		})
	}},
}

// many does f on so many control connections at once.
func (h *hostileSender) many(n int, f func(nth int, o *order)) error {
	var all sync.WaitGroup
	defer all.Wait()
	for nth := range n {
		o, err := h.greet()
		if err != nil {
			return err
		}
		all.Go(func() { f(nth, o) })
	}
	return nil
}

// A sender with a valid key cannot make a node hold more than 128 MiB, whatever it says and however often. It has the place of
// all transfers that a node takes at once. The node serves others as before when it is gone.
func TestHostileSender(t *testing.T) {
	const limit = 128 << 20
	ctx := need(t, 2*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 1})
	r.start()
	pid := r.nodes[0].daemon.Pid()
	key := readKey(t, r.keys, "sender.pem")
	for _, a := range attacks {
		// The kernel counts the most memory anew.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		ctx, cancel := context.WithCancel(ctx)
		err := a.do(&hostileSender{r.nodes[0], key, ctx})
		cancel()
		most, gone := netns.PeakMemory(pid)
		if err != nil || gone != nil {
			t.Fatalf("%s: %v, %v\n%s", a.name, err, gone, r.nodes[0].daemon.Output())
		}
		t.Logf("%s: %d MiB at most, in %v", a.name, most>>20, time.Since(begun).Round(time.Millisecond))
		if most > limit {
			t.Errorf("%s: %d MiB, want at most %d", a.name, most>>20, limit>>20)
		}
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 5<<20)
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file"), 0, "committed")
}
