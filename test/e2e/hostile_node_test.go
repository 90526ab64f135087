package e2e

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	enc "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lies are what a hostile node does otherwise than a good one. The zero lies are those of a good node.
type lies struct {
	mute    bool   // does not say what it needs
	deaf    bool   // reads nothing of its feed
	idle    bool   // opens the links that it was ordered to, and sends nothing
	lazy    bool   // does not dial
	up      bool   // does not dial, and says each half second that it did
	hangsUp bool   // ends each control connection soon
	counts  bool   // what it says to be durable grows by a byte a second
	wait    string // what it says to wait for
	links   string // what it says of links
	agreed  bool   // tells of itself, and of the link to its neighbour, what both of them agreed on
	rots    bool   // changes a byte in each frame that it sends
	flood   string // what it says again and again from the start on, for floodFor
}

const invented = `[{"link":4000000,"idle":false,"rate":0,"burst":0,"held":false}]`

// modes are the lies that have names.
var modes = map[string]lies{
	"is good":        {},
	"takes nothing":  {deaf: true, wait: "out", links: invented},
	"says only up":   {up: true},
	"counts durable": {idle: true, counts: true},
	"sends nothing":  {idle: true},
	"hangs up":       {deaf: true, hangsUp: true},
	"says no NEED":   {mute: true},
	"does not dial":  {lazy: true},

	"agreed, takes nothing": {agreed: true, deaf: true, idle: true},
	"agreed, sends nothing": {agreed: true, idle: true},
	"changes bytes":         {rots: true},

	"floods reports": {flood: "reports", deaf: true},
	"floods pages":   {flood: "pages", deaf: true},
	"floods links":   {flood: "links", deaf: true},
	"floods unheard": {flood: "unheard", deaf: true},
}

// drawn are lies by a seed: each with a chance of a third.
func drawn(seed uint64) lies {
	rng := mathrand.New(mathrand.NewPCG(seed, seed))
	a := func() bool { return rng.IntN(3) == 0 }
	return lies{mute: a(), deaf: a(), idle: a(), lazy: a(), up: a(), hangsUp: a(), counts: a(),
		wait: []string{"", "in", "out", "disk", "cpu", "limit"}[rng.IntN(6)], links: []string{"", invented}[rng.IntN(2)]}
}

// A hostile node has a valid key, and speaks the protocol (ring/PROTOCOL.md) without our code. What it does not lie
// about it does as a good node would: it must not be found by anything else.
type hostile struct {
	lies
	keys     tls.Certificate
	instance []byte

	mu       sync.Mutex
	come     sync.Cond // more data, or the end
	data     []byte    // of the one blob
	size     int64     // of it; -1 before the offer
	sum      string    // of the final mark
	whole    bool      // FIN came
	transfer []byte
	feed     grant // the newest
	control  net.Conn
	verified bool
	claimed  int64 // of a report that lies
	flooding bool
	feeds    []uint32 // the links that it was told to feed
}

// grant is what FEED and DIAL say of a link.
type grant struct {
	Link       uint32     `json:"link"`
	Generation uint32     `json:"generation"`
	Secret     []byte     `json:"secret"`
	Addrs      []string   `json:"addrs"`
	Needs      [][2]int64 `json:"needs"`
	Padded     bool       `json:"padded"`
}

// The types of control messages that a hostile node reads or writes (section 4).
const (
	msgHello, msgWelcome, msgOffer, msgAnswer, msgStart, msgFeed = 1, 2, 3, 4, 5, 6
	msgNeed, msgDial, msgLink, msgMarks, msgReport               = 7, 8, 9, 11, 12
	msgVerified, msgCommit, msgCommitted, msgBye, msgAbort       = 14, 15, 16, 17, 18
	msgPing, msgPong, msgProbe, msgProbed                        = 19, 20, 22, 23
)

// runHostile is the process on the node: LISTEN KEYS MODE, or a seed for MODE.
func runHostile(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("hostile: %d arguments", len(args))
	}
	keys, err := tls.LoadX509KeyPair(filepath.Join(args[1], "node.pem"), filepath.Join(args[1], "node.pem"))
	if err != nil {
		return err
	}
	l, known := modes[args[2]]
	if seed, err := strconv.ParseUint(args[2], 10, 64); err == nil {
		l = drawn(seed)
	} else if !known {
		return fmt.Errorf("hostile: unknown mode %q", args[2])
	}
	h := &hostile{lies: l, keys: keys, size: -1, instance: make([]byte, 16)}
	rand.Read(h.instance)
	h.come.L = &h.mu
	port, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := port.Accept()
		if err != nil {
			return err
		}
		go h.serve(c)
	}
}

// config does not ask who the peer is.
func (h *hostile) config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{h.keys}, NextProtos: protocols,
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, SessionTicketsDisabled: true}
}

func (h *hostile) serve(raw net.Conn) {
	defer raw.Close()
	c := tls.Server(raw, h.config(controlProtocol, dataProtocol))
	if c.Handshake() != nil {
		return
	}
	if c.ConnectionState().NegotiatedProtocol == dataProtocol {
		h.receive(c)
		return
	}
	for {
		kind, body, err := readMessage(c)
		if err != nil || h.answer(c, kind, body) != nil {
			return
		}
	}
}

func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, enc.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

// say writes a control message to the newest control connection.
func (h *hostile) say(kind byte, format string, args ...any) {
	body := fmt.Sprintf(format, args...)
	b := append(enc.BigEndian.AppendUint32(nil, uint32(len(body)+1)), kind)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.control != nil {
		h.control.Write(append(b, body...))
	}
}

// answer does what a control message asks for. An error ends the connection.
func (h *hostile) answer(c net.Conn, kind byte, body []byte) error {
	switch kind {
	case msgHello:
		return h.greet(c, body)
	case msgOffer:
		var o struct {
			Blobs []struct {
				Size int64 `json:"size"`
			} `json:"blobs"`
		}
		if err := json.Unmarshal(body, &o); err != nil {
			return err
		}
		h.size = o.Blobs[0].Size
		h.say(msgAnswer, `{"held":[0],"free":-1,"replay":true,"switch":true,"code":"","reason":""}`)
	case msgStart:
		if h.flood != "" {
			return h.start()
		}
		go h.reports()
	case msgFeed:
		var g grant
		if err := json.Unmarshal(body, &g); err != nil {
			return err
		}
		h.mu.Lock()
		h.feed = g
		have := len(h.data)
		h.mu.Unlock()
		if !h.mute {
			h.say(msgNeed, `{"link":%d,"generation":%d,"needs":[[0,%d]]}`, g.Link, g.Generation, have)
		}
	case msgDial:
		var g grant
		if err := json.Unmarshal(body, &g); err != nil {
			return err
		}
		h.mu.Lock()
		h.feeds = append(h.feeds, g.Link)
		h.mu.Unlock()
		go h.dial(g)
	case msgMarks:
		h.marks(body)
	case msgCommit:
		h.say(msgCommitted, `{"digest":"sha256:%s"}`, h.sum)
	case msgPing:
		h.say(msgPong, "{}")
	case msgBye, msgAbort:
		return io.EOF
	}
	return nil
}

// greet answers HELLO. In the mode for it, it hangs up each time that it was asked to go on, and was.
func (h *hostile) greet(c net.Conn, body []byte) error {
	var m struct {
		Transfer string `json:"transfer"`
		Resume   bool   `json:"resume"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	id, err := hex.DecodeString(m.Transfer)
	if err != nil {
		return err
	}
	state := "new"
	h.mu.Lock()
	if m.Resume {
		state = "running"
	}
	h.transfer, h.control = id, c
	h.mu.Unlock()
	h.say(msgWelcome, `{"version":4,"instance":"%x","state":"%s","digest":"","reason":"","software":"hostile"}`, h.instance, state)
	if h.hangsUp {
		time.AfterFunc(300*time.Millisecond, func() { c.Close() })
	}
	return nil
}

func (h *hostile) marks(body []byte) {
	var m struct {
		Marks []struct {
			Sum   []byte `json:"sum"`
			Final bool   `json:"final"`
		} `json:"marks"`
	}
	json.Unmarshal(body, &m)
	for _, k := range m.Marks {
		if k.Final {
			h.mu.Lock()
			h.sum = hex.EncodeToString(k.Sum)
			h.mu.Unlock()
		}
	}
	h.finish()
}

// finish says VERIFIED once all has come. What it knows of the bytes is what the server said.
func (h *hostile) finish() {
	h.mu.Lock()
	done := h.whole && h.sum != "" && !h.verified
	h.verified = h.verified || done
	h.mu.Unlock()
	if done {
		h.say(msgVerified, `{"digests":["sha256:%s"],"inPlace":false}`, h.sum)
	}
}

// reports says REPORT each second.
func (h *hostile) reports() {
	for range time.Tick(time.Second) {
		h.mu.Lock()
		received, durable := int64(len(h.data)), int64(len(h.data))
		if h.claimed++; h.counts {
			durable = min(durable, h.claimed)
		}
		links := h.links
		if h.agreed {
			// A MiB each second is more than anybody is failed for.
			received, durable = min(h.size, h.claimed<<20), min(h.size, h.claimed<<20)
			var all []string
			for _, link := range h.feeds {
				all = append(all, fmt.Sprintf(`{"link":%d,"idle":false,"rate":1048576,"burst":0,"held":false,"acked":%d}`, link, (h.claimed+1)<<20))
			}
			links = "[" + strings.Join(all, ",") + "]"
		}
		h.mu.Unlock()
		h.say(msgReport, `{"received":%d,"marked":%d,"durable":%d,"wait":"%s","blob":0,"good":0,"relay":0,"hash":0,"disk":0,"links":%s}`,
			received, received, durable, cmp.Or(h.wait, "in"), cmp.Or(links, "null"))
	}
}

// receive is a link into this node.
func (h *hostile) receive(c net.Conn) {
	preamble, hello := make([]byte, len(linkMagic)), make([]byte, helloSize)
	if _, err := io.ReadFull(c, preamble); err != nil {
		return
	}
	challenge := make([]byte, challengeSize)
	rand.Read(challenge)
	c.Write(challenge)
	if _, err := io.ReadFull(c, hello); err != nil {
		return
	}
	c.Write([]byte{0})
	head := make([]byte, 24)
	if string(preamble) == linkMagic {
		head = make([]byte, headerSize)
	}
	for {
		if h.deaf {
			select {} // the kernel's buffers fill
		}
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		if head[0] != typeData {
			break
		}
		payload := make([]byte, enc.BigEndian.Uint32(head[16:]))
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		h.mu.Lock()
		if enc.BigEndian.Uint64(head[8:]) == uint64(len(h.data)) {
			h.data = append(h.data, payload...)
		}
		h.come.Broadcast()
		h.mu.Unlock()
	}
	h.mu.Lock()
	h.whole = true
	g := h.feed
	h.come.Broadcast()
	h.mu.Unlock()
	h.say(msgLink, `{"link":%d,"generation":%d,"state":"done","code":"","reason":""}`, g.Link, g.Generation)
	h.finish()
}

func (h *hostile) linked(g grant, state string) {
	h.say(msgLink, `{"link":%d,"generation":%d,"state":"%s","code":"","reason":""}`, g.Link, g.Generation, state)
}

// dial is a link from this node.
func (h *hostile) dial(g grant) {
	if h.flood == "links" {
		for range time.Tick(time.Millisecond) {
			h.linked(g, "up")
			h.linked(g, "down")
		}
	}
	if h.up {
		for range time.Tick(500 * time.Millisecond) {
			h.linked(g, "up")
		}
	}
	if h.lazy {
		return
	}
	raw, err := net.Dial("tcp", g.Addrs[0])
	if err != nil {
		return
	}
	defer raw.Close()
	c := tls.Client(raw, h.config(dataProtocol))
	preamble, head := "DLINK/1\n", make([]byte, 24)
	if g.Padded {
		preamble, head = linkMagic, make([]byte, headerSize)
	}
	if _, err := io.WriteString(c, preamble); err != nil {
		return
	}
	challenge := make([]byte, challengeSize)
	if _, err := io.ReadFull(c, challenge); err != nil {
		return
	}
	off := g.Needs[0][1]
	c.Write(linkHello(preamble, challenge, h.transfer, g, off))
	if _, err := io.ReadFull(c, challenge[:1]); err != nil || challenge[0] != 0 {
		return
	}
	h.linked(g, "up")
	if h.idle {
		select {}
	}
	for h.feedOn(c, head, &off) {
	}
}

// linkHello answers the challenge of a link that begins at a byte of the first blob.
func linkHello(preamble string, challenge, transfer []byte, g grant, off int64) []byte {
	hello := enc.BigEndian.AppendUint32(enc.BigEndian.AppendUint32(bytes.Clone(transfer), g.Link), g.Generation)
	hello = enc.BigEndian.AppendUint64(enc.BigEndian.AppendUint32(hello, 0), uint64(off))
	proof := hmac.New(sha256.New, g.Secret)
	for _, b := range [][]byte{[]byte(preamble), challenge, hello} {
		proof.Write(b)
	}
	return proof.Sum(hello)
}

// putHeader makes the header of a frame of the first blob, or, of no payload, of the final record.
func putHeader(head []byte, off int64, payload []byte) {
	clear(head)
	if head[0] = 2; len(payload) > 0 {
		head[0] = typeData
		enc.BigEndian.PutUint64(head[8:], uint64(off))
		enc.BigEndian.PutUint32(head[16:], uint32(len(payload)))
	}
	enc.BigEndian.PutUint32(head[20:], crc32.Update(crc32.Checksum(head[:20], castagnoli), castagnoli, payload))
}

// feedOn sends the next frame, or the final record. A record of TLS carries bytes of one of header and payload only.
func (h *hostile) feedOn(c net.Conn, head []byte, off *int64) bool {
	h.mu.Lock()
	for *off == int64(len(h.data)) && *off < h.size {
		h.come.Wait()
	}
	payload := h.data[*off:min(int64(len(h.data)), *off+1<<18, *off/(4<<20)*(4<<20)+4<<20)]
	h.mu.Unlock()
	if h.rots && len(payload) > 0 {
		payload = bytes.Clone(payload)
		payload[0]++
	}
	putHeader(head, *off, payload)
	*off += int64(len(payload))
	if _, err := c.Write(head); err != nil || len(payload) == 0 {
		return false
	}
	_, err := c.Write(payload)
	return err == nil
}
