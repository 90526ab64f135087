package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Test vectors: the bytes PROTOCOL.md promises.
func TestFrameVector(t *testing.T) {
	var h [HeaderSize]byte
	PutData(&h, 7, 1<<32, []byte("dolly"))
	const want = "01000000" + "00000007" + "0000000100000000" + "00000005" + "93a56b5c"
	if got := hex.EncodeToString(h[:]); got != want {
		t.Errorf("data header\n got %s\nwant %s", got, want)
	}
	PutFin(&h)
	const fin = "02000000" + "00000000" + "0000000000000000" + "00000000" + "d242b944"
	if got := hex.EncodeToString(h[:]); got != fin {
		t.Errorf("final record\n got %s\nwant %s", got, fin)
	}
}

func TestFrameDamage(t *testing.T) {
	payload := []byte("payload")
	var h [HeaderSize]byte
	PutData(&h, 1, 4096, payload)
	if p, err := ParseHeader(&h, MarkEvery); err != nil || p.CRC != Sum(&h, payload) {
		t.Fatalf("good frame refused: %v", err)
	}
	for bit := range crcAt * 8 {
		d := h
		d[bit/8] ^= 1 << (bit % 8)
		if p, err := ParseHeader(&d, MarkEvery); err == nil && p.CRC == Sum(&d, payload) {
			t.Errorf("flipped header bit %d is not noticed", bit)
		}
	}
	for bit := range len(payload) * 8 {
		d := bytes.Clone(payload)
		d[bit/8] ^= 1 << (bit % 8)
		if Sum(&h, d) == Sum(&h, payload) {
			t.Errorf("flipped payload bit %d is not noticed", bit)
		}
	}
}

func TestFrameRefused(t *testing.T) {
	for name, edit := range map[string]func(b *[HeaderSize]byte){
		"flags":         func(b *[HeaderSize]byte) { b[1] = 2 },
		"flag at mark":  func(b *[HeaderSize]byte) { b[1] = 1; copy(b[8:16], "\x00\x00\x00\x00\x00\x3f\xff\xfe") },
		"flag of FIN":   func(b *[HeaderSize]byte) { b[0], b[1] = Fin, 1 },
		"flag of ZERO":  func(b *[HeaderSize]byte) { b[0], b[1] = Zero, 1 },
		"empty ZERO":    func(b *[HeaderSize]byte) { b[0], b[19] = Zero, 0 },
		"long ZERO":     func(b *[HeaderSize]byte) { b[0], b[17], b[19] = Zero, 0x40, 1 },
		"reserved":      func(b *[HeaderSize]byte) { b[3] = 1 },
		"type 0":        func(b *[HeaderSize]byte) { b[0] = 0 },
		"reserved type": func(b *[HeaderSize]byte) { b[0] = 4 },
		"empty":         func(b *[HeaderSize]byte) { b[19] = 0 },
		"too long":      func(b *[HeaderSize]byte) { b[17] = 0x10 },
		"overflow":      func(b *[HeaderSize]byte) { b[8] = 0x7f; copy(b[9:16], "\xff\xff\xff\xff\xff\xff\xff") },
		"negative":      func(b *[HeaderSize]byte) { b[8] = 0x80 },
		"crosses mark":  func(b *[HeaderSize]byte) { copy(b[8:16], "\x00\x00\x00\x00\x00\x3f\xff\xff") },
		"fin with data": func(b *[HeaderSize]byte) { b[0] = Fin },
	} {
		var h [HeaderSize]byte
		PutData(&h, 0, 0, []byte("ab"))
		edit(&h)
		if _, err := ParseHeader(&h, MarkEvery); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHelloProof(t *testing.T) {
	secret, challenge := bytes.Repeat([]byte{1}, SecretSize), bytes.Repeat([]byte{2}, ChallengeSize)
	h := LinkHello{Transfer: ID{9}, Link: 3, Generation: 4, Blob: 5, Offset: 6}
	b := h.Encode(secret, challenge)
	if got, err := ParseLinkHello(Preamble, b); err != nil || got != h {
		t.Fatalf("got %+v, %v", got, err)
	}
	padded, err := ParseLinkHello(PaddedPreamble, b)
	if err != nil || !padded.Padded || padded.Proves(b, secret, challenge) {
		t.Errorf("a hello keeps its proof behind another preamble: %+v, %v", padded, err)
	}
	zeros, err := ParseLinkHello(ZerosPreamble, b)
	if err != nil || !zeros.Padded || !zeros.Zeros || zeros.Proves(b, secret, challenge) {
		t.Errorf("a hello keeps its proof behind another preamble: %+v, %v", zeros, err)
	}
	if _, err := ParseLinkHello("DLINK/4\n", b); err == nil {
		t.Error("an unknown preamble was accepted")
	}
	if !h.Proves(b, secret, challenge) {
		t.Error("right proof refused")
	}
	if h.Proves(b, challenge, challenge) || h.Proves(b, secret, secret) {
		t.Error("proof with another secret or challenge accepted")
	}
	for i := range helloBody {
		d := bytes.Clone(b)
		d[i]++
		if changed, err := ParseLinkHello(Preamble, d); err == nil && changed.Proves(d, secret, challenge) {
			t.Errorf("changed byte %d keeps its proof", i)
		}
	}
}

// all has one filled message of each type.
func all() []Message {
	some := digest.FromString("some")
	return []Message{
		&Hello{1, 2, ID{0xab}, "node1", true}, &Welcome{3, ID{1}, StateNew, "", "", "dolly-img 1.2.0", "linux/amd64/v3", true},
		&Offer{[]v1.Descriptor{{MediaType: "a/b", Digest: "sha256:x", Size: 3, Annotations: map[string]string{"k": "<&>"}}}, json.RawMessage(`{"a":1}`), true},
		&Answer{[]int64{1, 0}, -1, true, true, "", "", []Leaves{{1, []byte{5}}}, json.RawMessage(`{"a":"&"}`)}, &Start{json.RawMessage(`{}`)}, &Feed{1, 2, []byte("s"), "server", nil},
		&Need{1, 2, [][2]int64{{0, 4096}}, []Leaves{{0, []byte{5}}}}, &Dial{1, 2, []byte("s"), "n", []string{"[::1]:1"}, nil, true, true, []Leaves{{0, []byte{5}}}, true},
		&Link{1, 2, LinkDown, "network", "broken"}, &Undial{4}, &Marks{[]Mark{{1, 4, []byte{1}, true}}},
		&Report{1, 2, 3, "disk", 4, 5, 6, 7, 8, []Sending{{1, true, 2, 3, true, 4, true}}, 9, 10, TargetUnknown}, &Fail{"space", "no space"}, &Verified{[]string{"sha256:x"}, true},
		&Commit{}, &Committed{"sha256:x"}, &Bye{}, &Abort{"interrupted", true, CodeInterrupted}, &Ping{}, &Pong{}, &Fallback{1, 2, 3, 4, 5},
		&Probe{7, "n2", []string{"10.0.0.2:9998"}}, &Probed{7, "network", "i/o timeout"}, &Good{3, 4 << 20}, &Compare{}, &Compared{[]Leaves{{0, []byte{5}}}, 8 << 20},
		&Ask{[]Image{{"a/b:c", ""}}, true}, &Holds{[]Holding{{"a/b:c", some, HoldsPart, some, "n2", 9, 8, []string{"local"}, "no room"}}, 1, 2, 3, 4, 5, "store", "broken"},
		&Want{"n1", []Wish{{"a/b:c", some, true, 2}}}, &Wanted{"auth", "not yours"},
		&Tend{DoCollect, nil, 1, 2, 3}, &Tending{1, 2}, &Tended{[]TendedImage{{"a/b:c", some, true, []string{"n1"}, "bad"}}, 1, 2, 3, 4, true, "pins", "busy", "later"},
	}
}

func TestMessages(t *testing.T) {
	ms := all()
	if len(ms) != len(makers)-1 {
		t.Fatalf("%d of %d messages tried", len(ms), len(makers)-1)
	}
	var stream bytes.Buffer
	for i, m := range ms {
		b, err := Encode(m)
		if err != nil || int(b[4]) != i+1 {
			t.Fatalf("%T: type %d, %v", m, b[4], err)
		}
		stream.Write(b)
	}
	want := stream.Bytes()
	var again []byte
	for r := bytes.NewReader(want); ; {
		b, err := Read(r, nil)
		if err == io.EOF {
			break
		}
		m, e := Decode(b)
		if err != nil || e != nil {
			t.Fatal(err, e)
		}
		b, _ = Encode(m)
		again = append(again, b...)
	}
	if !bytes.Equal(again, want) {
		t.Error("what was read does not re-encode to the same bytes")
	}
}

// A file name or reason that is not UTF-8 must not cost the connection.
func TestNotUTF8(t *testing.T) {
	for _, s := range []string{"caf\xe9.sif", "\xff", "a\ufffd", `\ufffd`, "\\\xff"} {
		b, err := Encode(&Fail{"store", s})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(b[4:])
		if err != nil || m.(*Fail).Reason != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q: %+v, %v", s, m, err)
		}
	}
}

func TestMessagesRefused(t *testing.T) {
	for _, s := range []string{"", "\x00{}", "\x15{}", "\x0f{} ", "\x0f{\"x\":1}", "\x0anull", "\x0a{\"link\":1,\"link\":1}", "\x0a{\"Link\":1}", "\x01{"} {
		if m, err := Decode([]byte(s)); err == nil {
			t.Errorf("%q accepted as %#v", s, m)
		}
	}
	for _, s := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x00", "\x00\x00\x00\x05\x0f{}", "\x00\x01\x00\x01\x13", "\x00\x00\x00\x03\x7f{}"} {
		if _, err := Read(strings.NewReader(s), nil); err == nil || err == io.EOF {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// It is asked before more than the beginning of a long message is read. One that would take many times the memory of its bytes
// is refused.
func TestLongMessages(t *testing.T) {
	for text, good := range map[string]bool{strings.Repeat(`"abcdefgh",`, 50_000): true, strings.Repeat(`"",`, maxCommas): false} {
		body := `{"digests":[` + text + `""],"inPlace":true}`
		from, no := bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+1)), "\x0e"+body...)), errors.New("no")
		if _, err := Read(from, func() error { return no }); err != no || from.Len() != len(body)+1-MaxShort {
			t.Errorf("%d bytes of %d are left: %v", from.Len(), len(body)+1, err)
		}
		from.Seek(0, io.SeekStart)
		b, err := Read(from, func() error { return nil })
		if err != nil || string(b[1:]) != body {
			t.Fatal(err)
		}
		if m, err := Decode(b); (err == nil) != good {
			t.Errorf("%T, %v", m, err)
		}
	}
}

// HELLO, and WELCOME of version 1, are what version 1 made of them, for ever.
func TestGreetingVectors(t *testing.T) {
	for want, m := range map[string]Message{
		`{"min":1,"max":2,"transfer":"ab000000000000000000000000000000","node":"n1","resume":false}`:        &Hello{1, 2, ID{0xab}, "n1", false},
		`{"version":1,"instance":"01000000000000000000000000000000","state":"new","digest":"","reason":""}`: &Welcome{Version: 1, Instance: ID{1}, State: StateNew},
	} {
		if b, err := Encode(m); err != nil || string(b[5:]) != want {
			t.Errorf("got %q, %v\nwant %q", b[5:], err, want)
		}
	}
}

// sinceOf is the version with which came what a message has.
func sinceOf(m Message) int {
	if len(leavesOf(m)) > 0 || len(targetOf(m)) > 0 {
		return 6
	}
	switch m := m.(type) {
	case *Abort:
		if m.Code != CodeNone {
			return 3
		}
	case *Dial:
		switch {
		case m.Zeros:
			return 6
		case m.Padded:
			return 4
		}
	case *Report:
		switch {
		case m.Checked > 0 || m.Zeros > 0 || m.Target != "":
			return 6
		case m.Links[0].Acked > 0:
			return 4
		}
	}
	switch k := m.kind(); {
	case k > 30:
		return 8
	case k > 26:
		return 7
	case k > 23:
		return 6
	case k > 21:
		return 2
	}
	return 1
}

// What came with a version is refused before it, and never sent there.
func TestVersions(t *testing.T) {
	for _, m := range append(all(), &Abort{"interrupted", true, CodeNone}, &Answer{}, &Answer{Target: json.RawMessage(`{}`)}, &Start{}, &Need{}, &Dial{1, 2, []byte("s"), "n", nil, nil, true, false, nil, false}, &Dial{Padded: true}, &Dial{Padded: true, Zeros: true}, &Report{Links: []Sending{{}}, Checked: 1}, &Report{Links: []Sending{{}}, Zeros: 1}, &Report{Links: []Sending{{}}, Target: TargetComplete}) {
		since := sinceOf(m)
		for version := 1; version <= Version; version++ {
			got, err := From(version, m)
			if (err == nil) != (version >= since) || err == nil && version == Version && got != m {
				t.Errorf("%T in version %d: %v", m, version, err)
			}
			if Knows(version, m) != (err == nil) && m.kind() > 21 {
				t.Errorf("%T is known in version %d: %v", m, version, err)
			}
			if m.kind() > 21 {
				continue // who sends these asks for the version first
			}
			if _, err := From(version, For(version, m)); err != nil {
				t.Errorf("%T is sent to version %d: %v", m, version, err)
			}
		}
		if For(Version, m) != m {
			t.Errorf("%T is changed for the newest version", m)
		}
	}
	for version := 0; version < Version; version++ {
		b, err := Encode(For(version, &Welcome{Version: version, Software: "x", Platform: "y", NoSHA: true}))
		if err != nil || bytes.Contains(b, []byte("noSHA")) != (version >= 3) || bytes.Contains(b, []byte("software")) != (version >= 2) || bytes.Contains(b, []byte("platform")) != (version >= 2) {
			t.Errorf("WELCOME of version %d: %s, %v", version, b, err)
		}
		b, err = Encode(For(version, &Abort{Reason: ReasonAsked, Keep: true, Code: CodeAsked}))
		want := `{"reason":"only asked","keep":true}`
		if version >= 3 {
			want = `{"reason":"only asked","keep":true,"code":"asked"}`
		}
		if err != nil || string(b[5:]) != want {
			t.Errorf("ABORT to version %d: %s, %v", version, b[5:], err)
		}
		b, err = Encode(For(version, &Dial{Padded: true}))
		if err != nil || bytes.Contains(b, []byte("padded")) != (version >= PadsSince) {
			t.Errorf("DIAL to version %d: %s, %v", version, b[5:], err)
		}
		b, err = Encode(For(version, &Report{Links: []Sending{{Link: 1, Acked: 5}, {Link: 2, Acked: 6, Ended: true}}}))
		want = `"links":[{"link":1,"idle":false,"rate":0,"burst":0,"held":false}]}`
		if version >= AckedSince {
			want = `"held":false,"acked":5},{"link":2,"idle":false,"rate":0,"burst":0,"held":false,"acked":6,"ended":true}]}`
		}
		if err != nil || !bytes.HasSuffix(b, []byte(want)) {
			t.Errorf("REPORT to version %d: %s, %v", version, b[5:], err)
		}
	}
	// Who would take the marks of leaves for running sums is offered none.
	for version := 1; version <= Version; version++ {
		o := &Offer{Blobs: []v1.Descriptor{{Size: 1}, {MediaType: leaf.MediaType, Size: 1}}}
		if _, err := From(version, o); (err == nil) != (version >= LeavesSince) {
			t.Errorf("OFFER with leaves from version %d: %v", version, err)
		}
	}
	// The end of a check that a server of an older version asked for is known all the same.
	for version := 1; version <= 2; version++ {
		if m, err := From(version, &Abort{Reason: ReasonAsked, Keep: true}); err != nil || m.(*Abort).Code != CodeAsked {
			t.Errorf("read as %+v, %v", m, err)
		}
	}
}

func TestCommon(t *testing.T) {
	for _, c := range [][3]int{{1, 1, 1}, {1, 2, 2}, {2, 2, 2}, {1, 9, 8}, {2, 9, 8}, {9, 9, 0}, {0, 0, 0}, {-1, 1, 1}, {2, 1, 0}} {
		if got := Common(c[0], c[1]); got != c[2] {
			t.Errorf("Common(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// Of a greeting from a later version, what it speaks can be told all the same.
func TestMalformedGreeting(t *testing.T) {
	for s, want := range map[string][3]int{
		"\x01{\"min\":3,\"max\":4,\"transfer\":\"ab000000000000000000000000000000\",\"node\":\"n\",\"resume\":false,\"more\":1}": {3, 4, 0},
		"\x02{\"version\":3,\"instance\":7,\"software\":\"dolly-img 9\"}":                                                        {0, 0, 3},
		"\x02{":           {},
		"\x03{\"min\":3}": {},
	} {
		var bad *MalformedError
		if _, err := Decode([]byte(s)); !errors.As(err, &bad) || [3]int{bad.Said.Min, bad.Said.Max, bad.Said.Version} != want {
			t.Errorf("%q: %v, said %+v", s, err, bad)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range all() {
		b, _ := Encode(m)
		f.Add(b[4:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Encode(m); err != nil || !bytes.Equal(again[4:], b) {
			t.Errorf("%q re-encodes to %q, %v", b, again, err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	var h [HeaderSize]byte
	PutData(&h, 1, 2, []byte("abc"))
	f.Add(append(h[:], "abc"...))
	PutFin(&h)
	f.Add(h[:])
	PutZero(&h, 1, MarkEvery/2, MarkEvery/2)
	f.Add(h[:])
	PutDataMore(&h, 1, 2, []byte("abc"))
	f.Add(append(h[:], "abc"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderSize {
			return
		}
		var h, again [HeaderSize]byte
		copy(h[:], b)
		p, err := ParseHeader(&h, MarkEvery)
		payload := p.Length
		if p.Type == Zero {
			payload = 0
		}
		if err != nil || len(b) != HeaderSize+payload || p.CRC != Sum(&h, b[HeaderSize:]) {
			return
		}
		switch {
		case p.Type == Fin:
			PutFin(&again)
		case p.Type == Zero:
			PutZero(&again, p.Blob, p.Offset, p.Length)
		case p.More:
			PutDataMore(&again, p.Blob, p.Offset, b[HeaderSize:])
		default:
			PutData(&again, p.Blob, p.Offset, b[HeaderSize:])
		}
		if again != h {
			t.Errorf("%x re-encodes to %x", h, again)
		}
	})
}

func FuzzLinkHello(f *testing.F) {
	f.Add(LinkHello{false, false, ID{1}, 2, 3, 4, 5}.Encode([]byte("s"), []byte("c")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseLinkHello(Preamble, b)
		if err != nil {
			return
		}
		if again := h.Encode([]byte("s"), []byte("c")); !bytes.Equal(again[:helloBody], b[:helloBody]) {
			t.Errorf("%x re-encodes to %x", b, again)
		}
	})
}
