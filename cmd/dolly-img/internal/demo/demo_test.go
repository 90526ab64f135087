package demo

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
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

// A damager changes one byte of one frame, and nothing of what is no link.
func TestDamager(t *testing.T) {
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
	// pass sends b and returns what arrives.
	pass := func(b []byte) []byte {
		t.Helper()
		c, err := net.Dial("tcp", d.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		at, err := node.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(at)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if b := append([]byte{0x16}, make([]byte, 500)...); !slices.Equal(pass(b), b) {
		t.Error("what is no link was changed")
	}
	link := append([]byte{linkOpening}, make([]byte, linkHello-1)...)
	for off := range 4 {
		frame := make([]byte, frameHeader+60)
		frame[0] = frameData
		binary.BigEndian.PutUint64(frame[offsetInFrame:], uint64(60*off))
		binary.BigEndian.PutUint32(frame[lengthInFrame:], 60)
		link = append(link, frame...)
	}
	got := pass(link)
	var changed []int
	for i := range got {
		if got[i] != link[i] {
			changed = append(changed, i)
		}
	}
	if want := linkHello + 3*(frameHeader+60) - 1; len(got) != len(link) || !slices.Equal(changed, []int{want}) {
		t.Errorf("%d of %d bytes, changed %v, want %d", len(got), len(link), changed, want)
	}
	d.close()
	if off := <-hit; off != 179 || len(hit) > 0 {
		t.Errorf("told of byte %d, and %d more", off, len(hit))
	}
}
