package tree

import "bytes"

// queue holds bytes of the stream in memory until they are known to be right. Zeros that came without their bytes take no room.
type queue struct {
	begin, end int64 // what it holds, as offsets in the stream
	runs       []run
	data       bytes.Buffer
}

// run is a run of n bytes, which are zeros or are in data.
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
	q.data.Write(b)
	q.add(int64(len(b)), false)
}

// drain gives x what stands before off, and drops it.
func (q *queue) drain(off int64, x *extractor) error {
	for q.begin < off && len(q.runs) > 0 {
		r := &q.runs[0]
		n := min(r.n, off-q.begin)
		var err error
		if r.zero {
			err = x.zero(n)
		} else {
			err = x.write(q.data.Next(int(n)))
		}
		if err != nil {
			return err
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
			q.data.Truncate(q.data.Len() - int(n))
		}
		q.end -= n
		if last.n -= n; last.n == 0 {
			q.runs = q.runs[:len(q.runs)-1]
		}
	}
}
