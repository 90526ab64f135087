package ring

import (
	"crypto/sha256"
	"encoding/hex"
	"sort"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// markPage is how many marks are in one MARKS at most, which is then no long message (PROTOCOL.md section 7, "Pages").
const markPage = 512

// markLog has all marks of a transfer once, for all nodes. They have one order: blob by blob, and the final mark of a
// blob behind its others. The number of a mark is its place in this order. Only the sum of a mark is kept, because the rest
// follows from the number.
type markLog struct {
	every int64 // the distance of marks, in bytes
	n     int64 // how many marks there are
	// first has the numbers of the first marks of the blobs that have begun.
	first []int64
	// sizes are those of the blobs whose final mark is there.
	sizes map[int]int64
	// parts have the sums one behind the other, logPart of them in each part but the last.
	parts [][]byte
}

const logPart = 4096

// add takes the next mark.
func (l *markLog) add(m wire.Mark) {
	for len(l.first) <= m.Blob {
		l.first = append(l.first, l.n)
	}
	if m.Final {
		l.sizes[m.Blob] = m.Offset
	}
	if l.n%logPart == 0 {
		l.parts = append(l.parts, nil)
	}
	last := &l.parts[len(l.parts)-1]
	*last = append(*last, m.Sum...)
	l.n++
}

// blob returns the blob that a mark is of.
func (l *markLog) blob(number int64) int {
	return sort.Search(len(l.first), func(b int) bool { return l.first[b] > number }) - 1
}

// end returns the number behind the last mark of a blob, as far as they are there.
func (l *markLog) end(blob int) int64 {
	if blob+1 < len(l.first) {
		return l.first[blob+1]
	}
	return l.n
}

// mark returns the mark that has a number.
func (l *markLog) mark(number int64) wire.Mark {
	b := l.blob(number)
	m := wire.Mark{Blob: b, Offset: (number - l.first[b] + 1) * l.every}
	if size, final := l.sizes[b]; final && number == l.end(b)-1 {
		m.Offset, m.Final = size, true
	}
	at := number % logPart * sha256.Size
	m.Sum = l.parts[number/logPart][at : at+sha256.Size]
	return m
}

// behind returns the number of the first mark that is not known to be right to a node which has everything before byte off
// of a blob. The two come from the node, and may be anything.
func (l *markLog) behind(blob int, off int64) int64 {
	switch {
	case blob < 0:
		return 0
	case blob >= len(l.first):
		return l.n
	}
	first, end := l.first[blob], l.end(blob)
	if _, final := l.sizes[blob]; final {
		end-- // until the node goes on to the next blob, it needs the final mark
	}
	return first + min(max(off, 0)/l.every, end-first)
}

// has says whether there is a mark of a blob at an offset. The two come from a node, and may be anything.
func (l *markLog) has(blob int, off int64) bool {
	if blob < 0 || blob >= len(l.first) || off < 0 {
		return false
	}
	size, final := l.sizes[blob]
	if final && off == size {
		return true
	}
	marks := l.end(blob) - l.first[blob]
	if final {
		marks--
	}
	return off > 0 && off%l.every == 0 && off/l.every <= marks
}

// inside returns how many of the first marks are not final ones.
func (l *markLog) inside(number int64) int64 { return number - int64(l.blob(number)) }

// markPages says which marks each node is sent next, in pages that are encoded once for all who get the same.
type markPages struct {
	log markLog
	// ahead is how many marks a node is sent ahead of what it said to be good, page how many are in a page.
	ahead, page int64
	// sent has, by the number of the node, the number of the first mark that it was not sent, and good that of the first
	// which it did not say to be good in a GOOD.
	sent, good []int64
	// pages are those that were encoded last, and next is which of them is given up first.
	pages [64]encodedMarks
	next  int
}

// encodedMarks is a MARKS with the marks from one number to before another.
type encodedMarks struct {
	from, to int64
	bytes    []byte
}

func newMarkPages(nodes int) *markPages {
	return &markPages{log: markLog{sizes: map[int]int64{}}, ahead: wire.MarksAhead, page: markPage, sent: make([]int64, nodes+1), good: make([]int64, nodes+1)}
}

// again has a node be sent again what was lost with its connection.
func (p *markPages) again(node int) { p.sent[node], p.good[node] = 0, 0 }

// said takes the GOOD of a node.
func (p *markPages) said(node int, m *wire.Good) {
	p.good[node] = max(p.good[node], p.log.behind(m.Blob, m.Good))
}

// due returns the next MARKS for a node which reported that it has everything before byte off of a blob, or nil if there is
// nothing to be sent to it by now.
func (p *markPages) due(node, blob int, off int64) []byte {
	good := max(p.good[node], p.log.behind(blob, off))
	from := max(p.sent[node], good)
	if from >= p.log.n || p.log.inside(from)-p.log.inside(good) >= p.ahead {
		return nil
	}
	page := p.encoded(from)
	p.sent[node] = page.to
	return page.bytes
}

// encoded returns the page that begins with a mark. It ends where the number is a multiple of the size of a page, so
// that nodes which began at different marks get the same pages soon.
func (p *markPages) encoded(from int64) *encodedMarks {
	to := min(p.log.n, from+p.page-from%p.page)
	for i := range p.pages {
		if e := &p.pages[i]; e.from == from && e.to == to {
			return e
		}
	}
	var m wire.Marks
	for number := from; number < to; number++ {
		m.Marks = append(m.Marks, p.log.mark(number))
	}
	b, err := wire.Encode(&m)
	if err != nil {
		panic(err) // a page is far below the limit
	}
	e := &p.pages[p.next]
	p.next = (p.next + 1) % len(p.pages)
	*e = encodedMarks{from, to, b}
	return e
}

// mark keeps a sum of the server's own hash and has it broadcast.
func (s *sender) mark(m wire.Mark) {
	s.relay.SetReadable(m.Blob, m.Offset)
	s.mu.Lock()
	s.fresh = append(s.fresh, m)
	s.mu.Unlock()
	select {
	case s.newMark <- struct{}{}:
	default:
	}
}

// broadcastMarks sends the marks that are new, to the nodes that have come so far.
func (s *sender) broadcastMarks() {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	for _, m := range fresh {
		s.marks.log.add(m)
		if m.Final {
			s.addUnread(m.Blob + 1)
		}
	}
	for i := range s.cfg.Nodes {
		s.sendMarks(i + 1)
	}
}

// addUnread adds the final marks of the blobs that are not read, from one on to the next that is. A node that joins late
// may lack one of them though all others have it.
func (s *sender) addUnread(from int) {
	for b := from; b < len(s.blobs) && !s.read[b]; b++ {
		d := s.blobs[b]
		if d.Digest == "" {
			continue // no node was there to be served
		}
		if sum, err := hex.DecodeString(d.Digest.Encoded()); err == nil {
			s.marks.log.add(wire.Mark{Blob: b, Offset: d.Size, Sum: sum, Final: true})
		}
	}
}

// sendMarks sends a node the marks that it is to have by now.
func (s *sender) sendMarks(node int) {
	blob, off, ok := s.chain.Good(node)
	for ok {
		b := s.marks.due(node, blob, off)
		if b == nil {
			return
		}
		s.conns[node].sendBytes(b)
	}
}
