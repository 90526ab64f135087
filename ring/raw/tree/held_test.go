package tree

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever a queue is given and cut to, it drains that in its order. One file takes it.
func TestQueue(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var q queue
		var want []byte
		x := newExtractor(-1, "", false, nil)
		x.need = 1 << 30 // all that comes is collected as headers
		for range 60 {
			switch rnd.IntN(4) {
			case 0:
				n := rnd.IntN(5000)
				q.add(int64(n), true)
				want = append(want, make([]byte, n)...)
			case 1:
				b := bytes.Repeat([]byte{byte(1 + rnd.IntN(255))}, rnd.IntN(3<<19))
				q.write(b)
				want = append(want, b...)
			case 2:
				keep := q.begin + rnd.Int64N(q.end-q.begin+1)
				q.cut(keep)
				want = want[:keep]
			default:
				if err := q.drain(q.begin+rnd.Int64N(q.end-q.begin+1), x); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := q.drain(q.end, x); err != nil || !bytes.Equal(x.head, want) || len(q.runs) > 0 || q.begin != q.end {
			t.Fatalf("seed %d: %d bytes, want %d, %v", seed, len(x.head), len(want), err)
		}
	}
}
