package ring

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// What a loss costs in bytes that are sent again: at most the window and a mark, whatever
// the size of the image. Every payload byte that is written to a link is counted.

// frameTap counts the payload of the frames that are written to a link.
type frameTap struct {
	net.Conn
	hdr   []byte // of the frame whose payload comes next
	count func(off, n int64)
}

func (c *frameTap) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	switch {
	case c.hdr != nil:
		c.count(int64(binary.BigEndian.Uint64(c.hdr[8:])), int64(n))
		c.hdr = nil
	case len(b) == wire.PaddedHeader && b[0] == wire.Data: // a message of control begins with its length
		c.hdr = slices.Clone(b)
	}
	return n, err
}

// sentParts are parts of the one blob, as they were sent.
type sentParts [][2]int64

// again is how many bytes were sent that had been sent before.
func (p sentParts) again() (n int64) {
	end := int64(0)
	for _, x := range slices.SortedFunc(slices.Values(p), func(a, b [2]int64) int { return int(a[0] - b[0]) }) {
		n += max(0, min(end, x[1])-x[0])
		end = max(end, x[1])
	}
	return n
}

// resendCase is what happens to six nodes and an image of 112 MiB, of which 64 MiB come in a
// second. The disk of the node behind the one that is lost hangs from the first 19 MiB on: it
// takes no more than its window. When the link into it is made anew then, the one that is
// lost goes on, and is a whole window before it at its loss.
type resendCase struct {
	name   string
	losses int64
	faults []fault
	// second: somebody feeds two: the server those that are cut off, beside the first of the chain. Then what
	// a feeder sends twice is not sent again.
	second bool
	blamed string
	full   bool // a window of bytes has to travel again, or nothing was tried
}

func resendCases() (all []resendCase) {
	const ms = 1000
	at := func(when int, what string, node int) fault {
		return fault{What: what, Node: node, Peer: node - 1, At: when * ms}
	}
	hung := func(node int) fault { return fault{What: simcheck.Hang, Node: node, At: 300 * ms, For: 7000 * ms} }
	for _, what := range []string{simcheck.Kill, simcheck.Freeze, simcheck.Island} {
		cut := what == simcheck.Island
		for i, place := range []string{1: "first", 3: "middle", 5: "last but one"} {
			if place != "" {
				all = append(all, resendCase{name: what + " the " + place, losses: 1, second: cut, full: !cut,
					faults: []fault{hung(i + 1), at(2000, simcheck.ResetLink, i+1), at(4000, what, i)}})
			}
		}
		all = append(all, resendCase{name: what + " the last", losses: 1, second: cut,
			faults: []fault{hung(6), at(2000, simcheck.ResetLink, 6), at(4000, what, 6)}})
		all = append(all, resendCase{name: what + " two adjacent", losses: 2, second: cut, full: !cut,
			faults: []fault{hung(5), at(2000, simcheck.ResetLink, 5), at(3000, simcheck.ResetLink, 4), at(4000, what, 3), at(4000, what, 4)}})
	}
	for i, place := range []string{1: "first", 3: "middle", 5: "last but one"} {
		if place == "" {
			continue
		}
		lie := fault{What: simcheck.Lie, Node: i, Rate: 19 << 20}
		blamed := fmt.Sprintf("bytes were changed on link n%02d -> n%02d", i, i+1)
		// Those below find out first and wait for the hung one, which is no liar.
		// The receiver of a blamed link never feeds the other end of it: where it is the last of the chain, the
		// node before both feeds the one beside the other.
		second := place == "last but one"
		all = append(all, resendCase{name: "the " + place + " changes bytes before a hung disk", losses: 1, second: second,
			faults: []fault{lie, hung(i + 1)}, blamed: blamed})
		faults := []fault{lie}
		for k := i + 1; k <= 6; k++ {
			faults = append(faults, hung(k))
		}
		all = append(all, resendCase{name: "the " + place + " changes bytes", losses: 1, faults: faults, second: second, full: true, blamed: blamed})
		for _, how := range []string{"flip", "drop", "repeat"} {
			damage := at(0, simcheck.Corrupt, i)
			damage.How, damage.Rate = how, 30<<20
			all = append(all, resendCase{name: how + " on the link into the " + place, losses: 1, faults: []fault{damage}})
		}
	}
	return all
}

// TestSentAgain measures all of them with every size 64 times smaller, and some as they are.
func TestSentAgain(t *testing.T) {
	t.Run("smaller", func(t *testing.T) {
		for _, c := range resendCases() {
			t.Run(c.name, func(t *testing.T) { sendAgain(t, c, (4<<20)/simMark, simSizes) })
		}
	})
	if testing.Short() || raceDetector {
		return // it takes ten times as long
	}
	for _, c := range resendCases() {
		switch c.name {
		case "kill the middle", "freeze two adjacent", "the middle changes bytes":
			t.Run(c.name, func(t *testing.T) { sendAgain(t, c, 1, relay.Sizes{}) })
		}
	}
}

func sendAgain(t *testing.T, c resendCase, scale int64, sizes relay.Sizes) {
	window, mark := relay.DefaultWindow/scale, wire.MarkEvery/scale
	sc := simCase{Seed: 1, Nodes: 6, Blobs: []simBlobCase{{Size: 112 << 20 / scale, Digest: true}}, Pace: 250 * int(scale),
		Fsync: 1000, Buffer: int(128 << 10 / scale), Window: int(window), Patient: true}
	for _, f := range c.faults {
		f.Rate /= scale
		sc.Faults = append(sc.Faults, f)
	}
	var mu sync.Mutex
	from, to := map[string]sentParts{}, map[string]sentParts{}
	var events []simcheck.Event
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, sc, sizes)
		s.tap = func(feeder, node string, conn net.Conn) net.Conn {
			return &frameTap{Conn: conn, count: func(off, n int64) {
				mu.Lock()
				defer mu.Unlock()
				from[feeder] = append(from[feeder], [2]int64{off, off + n})
				to[node] = append(to[node], [2]int64{off, off + n})
			}}
		}
		events = s.run()
	})
	for _, err := range simcheck.Check(events) {
		t.Error(err)
	}
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n*scale)/(1<<20)) }
	most, blamed := int64(0), false
	judge := func(node, what string, n int64) {
		if most = max(most, n); n > c.losses*(window+mark) {
			t.Errorf("%s was %s %s again, at most %s", node, what, mib(n), mib(c.losses*(window+mark)))
		}
	}
	var figures []string
	for _, ev := range append(events, simcheck.Event{Kind: simcheck.Row, Node: "server", State: "committed"}) {
		if ev.Kind != simcheck.Row {
			continue
		}
		blamed = blamed || c.blamed != "" && ev.Note == c.blamed
		if ev.State != "committed" {
			continue
		}
		in, out := to[ev.Node].again(), from[ev.Node].again()
		figures = append(figures, fmt.Sprintf("%s %s %s", ev.Node, mib(in), mib(out)))
		judge(ev.Node, "sent", in)
		if !c.second {
			judge(ev.Node, "made to send", out)
		}
	}
	t.Logf("sent again to and by: %s", strings.Join(figures, ", "))
	if c.full && most < window-window/16 {
		t.Errorf("at most %s were sent again: no window was full", mib(most))
	}
	if c.blamed != "" && !blamed {
		t.Errorf("nobody's row says: %s", c.blamed)
	}
}
