package member

import (
	"bytes"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// In this file a node judges bytes. It compares the server's marks with the sums of its own hash (PROTOCOL.md section 7).

// mark takes one mark from the server. After a resume all marks come again.
func (m *Machine) mark(k wire.Mark) {
	if k.Blob < 0 || k.Blob >= len(m.blobs) || k.Offset < 0 || len(k.Sum) != 32 {
		m.fail(wire.Errorf(wire.CodeProtocol, "malformed mark"))
		return
	}
	b := &m.blobs[k.Blob]
	if b.held || b.final != "" {
		return
	}
	if k.Final {
		b.final = b.digest(k.Sum)
		switch {
		case b.want != "" && b.final != b.want:
			m.fail(wire.Errorf(wire.CodeMismatch, "%s: the server read %s, offered was %s", b.called, b.final, b.want))
			return
		case b.size < 0 && b.good <= k.Offset:
			b.size = k.Offset
			m.do(ActSize{k.Blob, k.Offset})
			if b.accepted > b.size { // the node has claimed part of a longer file, or its feeder has sent too much
				if m.phase == Started {
					m.fallback(k.Blob, k.Offset)
				}
				return
			}
			if m.feedFin && b.accepted < b.size {
				m.say(&wire.Link{Link: m.feedLink, Generation: m.feedGen, State: wire.LinkDown, Code: wire.CodeProtocol, Reason: earlyFin})
			}
		case b.size != k.Offset:
			m.fail(wire.Errorf(wire.CodeMismatch, "%s: the server read %d bytes, the node knows of %d", b.called, k.Offset, max(b.size, b.accepted)))
			return
		}
		m.judge(k.Blob)
		return
	}
	if k.Offset%m.markEvery != 0 || b.size >= 0 && k.Offset > b.size {
		m.fail(wire.Errorf(wire.CodeProtocol, "a mark at byte %d of blob %d, where there is none", k.Offset, k.Blob))
		return
	}
	// Marks come in order, and all of them come again after a resume. If one is left out, the bytes before it become
	// good only with the next one.
	if k.Offset <= b.good || m.marks >= maxMarks || len(b.marks) > 0 && k.Offset <= b.marks[len(b.marks)-1].off {
		return
	}
	b.marks = append(b.marks, mark{k.Offset, [32]byte(k.Sum)})
	m.marks++
	m.compare(k.Blob)
}

// dropMark drops the first mark of a blob.
func (m *Machine) dropMark(b *blob) {
	b.marks = b.marks[1:]
	m.marks--
}

// sum takes the sum of a mark or of a blob from the node's own hash.
func (m *Machine) sum(ev EvSum) {
	b := &m.blobs[ev.Blob]
	if m.resetting {
		return // the sum is of bytes that are dropped
	}
	if ev.End {
		b.sum = b.digest(ev.Sum)
		m.judge(ev.Blob)
		return
	}
	if m.sums < m.maxSums {
		b.sums = append(b.sums, blobSum{ev.Offset, ev.Sum})
		m.sums++
	}
	m.compare(ev.Blob)
}

// dropSums drops the first n sums of a blob, because they were compared or are of bytes that are dropped.
func (m *Machine) dropSums(b *blob, n int) {
	b.sums = b.sums[n:]
	m.sums -= n
}

// compare advances good over the marks for which the node has an equal sum. A running sum vouches for all bytes before
// it, but the sum of a leaf vouches for that leaf only. So if the mark of a leaf was left out, what is behind that leaf
// waits for the blob's digest.
func (m *Machine) compare(i int) {
	b := &m.blobs[i]
	for len(b.marks) > 0 && len(b.sums) > 0 && m.phase == Started {
		k, s := b.marks[0], b.sums[0]
		switch {
		case s.off < k.off:
			m.dropSums(b, 1)
		case s.off > k.off:
			m.dropMark(b)
		case !bytes.Equal(s.sum, k.sum[:]):
			m.fallback(i, k.off)
			return
		default:
			m.dropMark(b)
			m.dropSums(b, 1)
			if !b.leaves || k.off == b.good+m.markEvery {
				m.advance(i, k.off)
			}
		}
	}
}

// advance notes that the bytes below off are good.
func (m *Machine) advance(i int, off int64) {
	b := &m.blobs[i]
	m.marked += off - b.good
	b.good = off
	m.do(ActGood{i, off})
	if m.marked-m.told >= m.goodEvery {
		r := m.Report()
		m.say(&wire.Good{Blob: r.Blob, Good: r.Good})
	}
}

// fallback goes back to the last good mark, in every blob that is not finished. The window has the bytes of all of them
// in one sequence, and is dropped as a whole.
func (m *Machine) fallback(i int, off int64) {
	m.say(m.Report())
	m.say(&wire.Fallback{Link: m.feedLink, Generation: m.feedGen, Blob: i, Offset: off, Good: m.blobs[i].good})
	if m.feedOpen {
		m.feedOpen = false
		m.do(ActCloseFeed{})
	}
	m.resetting, m.next = true, 0
	m.falls++
	m.blobs[i].miss(off, false)
	for k := range m.blobs {
		b := &m.blobs[k]
		if b.held || b.judged {
			continue
		}
		m.dropSums(b, len(b.sums))
		b.claim, b.sum, b.sums = min(b.claim, b.good), "", nil
		b.miss(0, m.falls >= wire.MaxMissed)
		b.walk(b.good)
	}
	m.do(ActReset{})
}

// judge compares a finished blob with its final mark once both are there.
func (m *Machine) judge(i int) {
	b := &m.blobs[i]
	if b.judged || b.sum == "" || b.final == "" || m.phase != Started || m.resetting {
		return
	}
	if b.sum != b.final {
		m.fallback(i, b.size)
		return
	}
	m.marks -= len(b.marks)
	m.dropSums(b, len(b.sums))
	b.judged, b.marks, b.sums = true, nil, nil
	m.advance(i, b.size)
	m.do(ActSettle{i, v1.Descriptor{Digest: b.final, Size: b.size}})
}
