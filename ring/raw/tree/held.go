package tree

// chunk is in what pieces a queue holds bytes.
const chunk = 1 << 20

// queue holds bytes of the stream in memory until they are known to be right. Zeros that came without their bytes take no room.
type queue struct {
	begin, end int64 // what it holds, as offsets in the stream
	runs       []run
	chunks     [][]byte // the bytes of those runs that are no zeros
	skip       int      // bytes of the first chunk that were drained
	free       [][]byte // chunks that were drained
}

// run is a run of n bytes, which are zeros or are in chunks.
type run struct {
	n    int64
	zero bool
}

func (q *queue) add(n int64, zero bool) {
	q.end += n
	if last := len(q.runs) - 1; last >= 0 && q.runs[last].zero == zero {
		q.runs[last].n += n
		return
	}
	q.runs = append(q.runs, run{n, zero})
}

func (q *queue) write(b []byte) {
	if len(b) == 0 {
		return
	}
	q.add(int64(len(b)), false)
	for len(b) > 0 {
		last := len(q.chunks) - 1
		if last < 0 || len(q.chunks[last]) == chunk {
			q.chunks = append(q.chunks, q.empty())
			last++
		}
		n := min(len(b), chunk-len(q.chunks[last]))
		q.chunks[last] = append(q.chunks[last], b[:n]...)
		b = b[n:]
	}
}

func (q *queue) empty() []byte {
	if last := len(q.free) - 1; last >= 0 {
		c := q.free[last]
		q.free = q.free[:last]
		return c
	}
	return make([]byte, 0, chunk)
}

// drain gives x what stands before off, and drops it.
func (q *queue) drain(off int64, x *extractor) error {
	for q.begin < off && len(q.runs) > 0 {
		r := &q.runs[0]
		n := min(r.n, off-q.begin)
		if r.zero {
			if err := x.zero(n); err != nil {
				return err
			}
		} else {
			front := q.chunks[0][q.skip:]
			n = min(n, int64(len(front)))
			if err := x.write(front[:n]); err != nil {
				return err
			}
			if q.skip += int(n); q.skip == len(q.chunks[0]) {
				q.free = append(q.free, q.chunks[0][:0])
				q.chunks, q.skip = q.chunks[1:], 0
			}
		}
		q.begin += n
		if r.n -= n; r.n == 0 {
			q.runs = q.runs[1:]
		}
	}
	return nil
}

// cut drops what stands behind off.
func (q *queue) cut(off int64) {
	for q.end > off {
		last := &q.runs[len(q.runs)-1]
		n := min(last.n, q.end-off)
		if !last.zero {
			k := len(q.chunks) - 1
			first := 0
			if k == 0 {
				first = q.skip
			}
			n = min(n, int64(len(q.chunks[k])-first))
			q.chunks[k] = q.chunks[k][:len(q.chunks[k])-int(n)]
			if len(q.chunks[k]) == first {
				q.free = append(q.free, q.chunks[k][:0])
				if q.chunks = q.chunks[:k]; k == 0 {
					q.skip = 0
				}
			}
		}
		q.end -= n
		if last.n -= n; last.n == 0 {
			q.runs = q.runs[:len(q.runs)-1]
		}
	}
}
