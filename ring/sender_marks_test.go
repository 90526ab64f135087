package ring

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// sumNo is a sum that no other number has.
func sumNo(n int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 24), uint64(n)) }

// logOf makes the marks of blobs of these sizes in their order, with an every of 10 bytes.
func logOf(sizes ...int64) (all []wire.Mark) {
	for b, size := range sizes {
		for off := int64(10); off <= size; off += 10 {
			all = append(all, wire.Mark{Blob: b, Offset: off, Sum: sumNo(len(all))})
		}
		all = append(all, wire.Mark{Blob: b, Offset: size, Sum: sumNo(len(all)), Final: true})
	}
	return all
}

// Of each mark only the sum is kept, and it comes back as it was, whatever is known by then.
func TestMarkLog(t *testing.T) {
	all := logOf(25, 0, 30, 7, 100_000, 10)
	p := newMarkPages(1)
	p.log.every = 10
	l := &p.log
	for n, m := range all {
		if l.has(m.Blob, m.Offset) && !m.Final {
			t.Fatalf("mark %d is there before it came", n)
		}
		l.add(m)
		for _, k := range []int{0, n / 2, n} {
			if got := l.mark(int64(k)); got.Blob != all[k].Blob || got.Offset != all[k].Offset || got.Final != all[k].Final || !bytes.Equal(got.Sum, all[k].Sum) {
				t.Fatalf("after %d: %+v, want %+v", n, got, all[k])
			}
		}
		if !l.has(m.Blob, m.Offset) || l.has(m.Blob, m.Offset+1) || l.has(m.Blob+1, m.Offset) {
			t.Fatalf("mark %d: other marks are there than came", n)
		}
	}
	for _, c := range []struct {
		blob int
		off  int64
		want int64
	}{
		{0, 0, 0}, {0, 9, 0}, {0, 10, 1}, {0, 20, 2}, {0, 25, 2}, {0, math.MaxInt64, 2}, {1, 0, 3}, {2, 0, 4}, {2, 30, 7}, {3, 0, 8},
		{4, 50_000, 5009}, {6, 0, int64(len(all))}, {-1, 30, 0}, {2, -5, 4}, {math.MaxInt, 4, int64(len(all))}, {math.MinInt, -1, 0},
	} {
		if got := l.behind(c.blob, c.off); got != c.want {
			t.Errorf("behind byte %d of blob %d is mark %d, want %d", c.off, c.blob, got, c.want)
		}
	}
}

// markedNode is a node that compares: it has the marks in the order in which they come, and hashes as far as it likes.
type markedNode struct {
	next, good int // the mark that it was not sent yet, and the mark that it did not compare yet
}

func (n *markedNode) report(all []wire.Mark) (blob int, off int64) {
	if n.good == len(all) {
		return math.MaxInt, 0
	}
	k := all[n.good]
	if n.good > 0 && all[n.good-1].Blob == k.Blob {
		off = all[n.good-1].Offset
	}
	return k.Blob, off
}

// Whoever compares what it has gets all marks, each once and in order, and never more than the window and a page ahead of what it
// reported; one that comes back goes on with what it reported; nodes in the same place share the bytes.
func TestMarkPages(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var sizes []int64
		for range 1 + rnd.IntN(30) {
			sizes = append(sizes, []int64{0, 5, 10, rnd.Int64N(50), rnd.Int64N(2000)}[rnd.IntN(5)])
		}
		all := logOf(sizes...)
		nodes := make([]markedNode, 4)
		p := newMarkPages(len(nodes))
		p.log.every, p.ahead, p.page = 10, 1+rnd.Int64N(20), 1+rnd.Int64N(10)
		for done := 0; done < len(nodes); {
			for k := rnd.IntN(10); k > 0 && p.log.n < int64(len(all)); k-- {
				p.log.add(all[p.log.n])
			}
			done = 0
			for i := range nodes {
				n := &nodes[i]
				n.good += rnd.IntN(n.next - n.good + 1)
				if n.good == len(all) {
					done++
				}
				if rnd.IntN(50) == 0 {
					p.again(i + 1)
					n.next = n.good // the rest is lost on the way
				}
				blob, off := n.report(all)
				for b := p.due(i+1, blob, off); b != nil; b = p.due(i+1, blob, off) {
					m, err := wire.Decode(b[4:])
					if err != nil {
						t.Fatal(err)
					}
					marks := m.(*wire.Marks).Marks
					if ahead := n.next - n.good - (all[min(n.next, len(all)-1)].Blob - all[min(n.good, len(all)-1)].Blob); int64(ahead) >= p.ahead || int64(len(marks)) > p.page {
						t.Fatalf("gets %d marks, %d ahead of what is good; the window is %d, a page %d", len(marks), ahead, p.ahead, p.page)
					}
					for _, k := range marks {
						if want := all[n.next]; k.Blob != want.Blob || k.Offset != want.Offset || k.Final != want.Final || !bytes.Equal(k.Sum, want.Sum) {
							t.Fatalf("gets %+v, want %+v", k, want)
						}
						n.next++
					}
				}
			}
		}
	}
}

// A page is encoded once, also for nodes that began elsewhere.
func TestMarkPagesShared(t *testing.T) {
	p := newMarkPages(3)
	p.log.every = 10
	for _, m := range logOf(100_000) {
		p.log.add(m)
	}
	first := p.due(1, 0, 0)
	if again := p.due(2, 0, 0); &again[0] != &first[0] {
		t.Error("two nodes do not get the same bytes")
	}
	second := p.due(1, 0, 0)
	p.due(3, 0, 1000)
	if joined := p.due(3, 0, 1000); &joined[0] != &second[0] {
		t.Error("a node that began in the middle of a page gets other pages for ever")
	}
}

// The longest page is no long message, and what a node may be sent at once fits what may wait for it.
func TestMarkPageIsShort(t *testing.T) {
	m := wire.Marks{Marks: make([]wire.Mark, markPage)}
	for i := range m.Marks {
		m.Marks[i] = wire.Mark{Blob: wire.MaxBlobs, Offset: math.MaxInt64, Sum: bytes.Repeat([]byte{0xff}, 32)}
	}
	b, err := wire.Encode(&m)
	if err != nil || len(b) > wire.MaxShort {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if most := (wire.MaxBlobs + wire.MarksAhead + markPage) * len(b) / markPage; most+2*wire.MaxMessage > serverMemory().queue {
		t.Errorf("a node may be sent marks of %d bytes at once", most)
	}
}
