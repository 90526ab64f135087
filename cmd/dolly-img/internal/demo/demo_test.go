package demo

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

func TestFates(t *testing.T) {
	for _, c := range []struct {
		faults Faults
		nodes  int
		want   []fate
	}{
		{Faults{}, 2, []fate{"", ""}},
		{Faults{Kill: 2, Slow: 1}, 5, []fate{"", toKill, toKill, toSlow, ""}},
		{Faults{Slow: 1, Freeze: 1, Corrupt: 1}, 3, []fate{toCorrupt, toSlow, toFreeze}},
	} {
		if got := c.faults.fates(c.nodes); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.faults, got, c.want)
		}
	}
}

// A damager changes one byte of one frame, on links with and without padded headers, and nothing of what is no link.
func TestDamager(t *testing.T) {
	for preamble, header := range map[string]int{linkUnpadded: frameHeader, "DLINK/2\n": paddedHeader, "DLINK/3\n": paddedHeader} {
		node, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		hit := make(chan uint64, 10)
		d, err := newDamager(node.Addr().String(), 100, func(off uint64) { hit <- off })
		if err != nil {
			t.Fatal(err)
		}
		const other = "\x16 no link"
		if b := make([]byte, 500); !slices.Equal(through(t, d, node, other, b), append([]byte(other), b...)) {
			t.Error("what is no link was changed")
		}
		rest := make([]byte, linkHello)
		for off := range 4 {
			frame := make([]byte, header+60)
			frame[0] = frameData
			binary.BigEndian.PutUint64(frame[offsetInFrame:], uint64(60*off))
			binary.BigEndian.PutUint32(frame[lengthInFrame:], 60)
			rest = append(rest, frame...)
		}
		got, link := through(t, d, node, preamble, rest), append([]byte(preamble), rest...)
		var changed []int
		for i := range min(len(got), len(link)) {
			if got[i] != link[i] {
				changed = append(changed, i)
			}
		}
		if want := len(preamble) + linkHello + 3*(header+60) - 1; len(got) != len(link) || !slices.Equal(changed, []int{want}) {
			t.Errorf("%q: %d of %d bytes, changed %v, want %d", preamble, len(got), len(link), changed, want)
		}
		d.close()
		close(hit)
		var told []uint64
		for off := range hit {
			told = append(told, off)
		}
		if !slices.Equal(told, []uint64{179}) {
			t.Errorf("%q: told of bytes %d", preamble, told)
		}
	}
}

// through sends first, and the rest once the node has answered that, as a feeder does. It returns what arrives.
func through(t *testing.T, d *damager, node net.Listener, first string, rest []byte) []byte {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", d.addr())
	must(err)
	defer c.Close()
	at, err := node.Accept()
	must(err)
	defer at.Close()
	must(at.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = c.Write([]byte(first))
	must(err)
	got := make([]byte, len(first))
	_, err = io.ReadFull(at, got)
	must(err)
	_, err = at.Write([]byte{0})
	must(err)
	_, err = io.ReadFull(c, make([]byte, 1))
	must(err)
	_, err = c.Write(rest)
	must(err)
	must(c.(*net.TCPConn).CloseWrite())
	more, err := io.ReadAll(at)
	must(err)
	return append(got, more...)
}
