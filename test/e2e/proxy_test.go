package e2e

import (
	"bufio"
	enc "encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A damager stands in front of a node's port and changes bytes of the plain data links
// that pass it (ring/PROTOCOL.md, sections 5 and 6); control is TLS and passes as it is.
type damager struct {
	to    string
	lie   bool         // with a checksum that fits: the sender seems to have sent it so
	from  uint64       // offset in the blob
	times atomic.Int64 // still to be done
}

const (
	linkMagic  = "DLINK/3\n"
	helloSize  = 68
	headerSize = 64
	typeData   = 1
	typeZero   = 3 // has no payload
)

// runDamager is the process on the node: LISTEN TO crc|lie OFFSET TIMES.
func runDamager(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("damager: %d arguments", len(args))
	}
	d := &damager{to: args[1], lie: args[2] == "lie"}
	from, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return err
	}
	times, err := strconv.ParseInt(args[4], 10, 64)
	if err != nil {
		return err
	}
	d.from = from
	d.times.Store(times)
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go d.serve(c.(*net.TCPConn))
	}
}

func (d *damager) serve(up *net.TCPConn) {
	defer up.Close()
	c, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	down := c.(*net.TCPConn)
	defer down.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(up, down)
		up.CloseWrite()
		// A receiver that is done with the link ends it: then nobody reads what else comes.
		up.CloseRead()
	}()
	r := bufio.NewReaderSize(up, 1<<20)
	if first, err := r.Peek(1); err == nil && first[0] == linkMagic[0] {
		d.link(r, down)
	} else {
		io.Copy(down, r)
	}
	down.CloseWrite()
	<-ended
}

// link passes a plain link on, frame by frame.
func (d *damager) link(r io.Reader, down io.Writer) {
	magic := make([]byte, len(linkMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != linkMagic {
		return // nothing that a test of this version expects
	}
	// The feeder sends its hello only when the node has answered the magic.
	if _, err := down.Write(magic); err != nil {
		return
	}
	if _, err := io.CopyN(down, r, helloSize); err != nil {
		return
	}
	for frame := make([]byte, headerSize+1<<20); ; {
		if _, err := io.ReadFull(r, frame[:headerSize]); err != nil {
			return
		}
		n := enc.BigEndian.Uint32(frame[16:])
		if frame[0] == typeZero {
			n = 0
		}
		if n > 1<<20 {
			return
		}
		all := frame[:headerSize+n]
		if _, err := io.ReadFull(r, all[headerSize:]); err != nil {
			return
		}
		if all[0] == typeData && enc.BigEndian.Uint64(all[8:]) >= d.from && d.times.Add(-1) >= 0 {
			d.damage(all)
		}
		if _, err := down.Write(all); err != nil {
			return
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (d *damager) damage(frame []byte) {
	frame[len(frame)-1] ^= 0x40
	if d.lie {
		sum := crc32.Update(crc32.Checksum(frame[:20], castagnoli), castagnoli, frame[headerSize:])
		enc.BigEndian.PutUint32(frame[20:], sum)
	}
}

// damaged puts a damager before a node, from now on the node is named by its port.
func (n *node) damaged(kind string, from, times int64) {
	n.rig.t.Helper()
	n.port = 9997
	p, err := netns.Start(n.Command(n.rig.ctx, os.Args[0], "damager", fmt.Sprintf("%s:%d", n.Addr, n.port),
		fmt.Sprintf("%s:9998", n.Addr), kind, fmt.Sprint(from), fmt.Sprint(times)))
	if err == nil {
		_, err = p.Line(n.rig.ctx, "listening")
	}
	if err != nil {
		n.rig.t.Fatal(err)
	}
}

// What the damager makes is what the matrix says it is.
func TestDamager(t *testing.T) {
	for _, lie := range []bool{false, true} {
		d := &damager{lie: lie}
		frame := make([]byte, headerSize+100)
		frame[0], frame[19] = typeData, 100
		d.damage(frame)
		sum := crc32.Update(crc32.Checksum(frame[:20], castagnoli), castagnoli, frame[headerSize:])
		if fits := enc.BigEndian.Uint32(frame[20:]) == sum; fits != lie || frame[headerSize+99] == 0 {
			t.Errorf("lie %v: the checksum fits: %v", lie, fits)
		}
	}
}
