package leaf

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// A set says the same as a list of bools.
func TestSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int64{1, 7, 8, 9, 63, 64, 65, 100, 1000} {
		const each = 4
		want := make([]bool, (size+each-1)/each)
		for k := range want {
			want[k] = rnd.IntN(2) == 0
		}
		s := SetOf(size, each, func(off int64) bool { return want[off/each] })
		again, err := ParseSet(s.Bits(), size, each)
		if err != nil || !bytes.Equal(again.Bits(), s.Bits()) {
			t.Fatalf("size %d: %v", size, err)
		}
		for off := range size {
			if s.Has(off) != want[off/each] {
				t.Fatalf("size %d: Has(%d) is %v", size, off, s.Has(off))
			}
			next, until, sum := off, off, int64(0)
			for next < size && want[next/each] {
				next++
			}
			for until < size && !want[until/each] {
				until++
			}
			for b := (off + each - 1) / each * each; b < size; b++ {
				if want[b/each] {
					sum++
				}
			}
			if s.Next(off) != next || s.Until(off) != until || s.Bytes(off) != sum {
				t.Fatalf("size %d: from %d on: next %d, until %d, %d bytes; want %d, %d, %d", size, off, s.Next(off), s.Until(off), s.Bytes(off), next, until, sum)
			}
			if got := s.Any(off, off+each); got != (until < min(off+each, size)) {
				t.Fatalf("size %d: Any(%d) is %v", size, off, got)
			}
		}
		o := SetOf(size, each, func(off int64) bool { return off/each%2 == 0 })
		o.Keep(s)
		for off := range size {
			if o.Has(off) != (want[off/each] && off/each%2 == 0) {
				t.Fatalf("size %d: Keep: %d", size, off)
			}
		}
		if o.Keep(nil); o.Bytes(0) != 0 {
			t.Fatal("kept what is not in an empty set")
		}
	}
}

// Beyond 2 TiB a bit stands for several leaves, and counts only if all of them are there.
func TestSetLarge(t *testing.T) {
	size := int64(5<<40 + 5)
	s := SetOf(size, Size, func(off int64) bool { return off != 9*Size })
	if len(s.Bits()) > 64<<10 || s.Unit() != 4*Size {
		t.Errorf("%d bytes, a bit for %d", len(s.Bits()), s.Unit())
	}
	if s.Has(8*Size) || s.Has(11*Size) || !s.Has(7*Size) || !s.Has(12*Size) || !s.Has(size-1) || s.Has(size) {
		t.Error("a bit is set although one of its leaves is missing, or the other way round")
	}
	if got := s.Bytes(0); got != size-4*Size {
		t.Errorf("%d bytes", got)
	}
	var none *Set
	if none.Has(0) || none.Next(7) != 7 || none.Bytes(0) != 0 || none.Any(0, 9) || none.Clone() != nil {
		t.Error("a nil set holds something")
	}
}

// An offer may name any size, and a peer any position: neither ends the process, or takes more memory than the set of 2 TiB.
func TestSetOfAnySize(t *testing.T) {
	for _, size := range []int64{0, 1, 5*Size + 1, math.MaxInt64 - Size, math.MaxInt64 - 1, math.MaxInt64} {
		s := NewSet(size, Size)
		if again, err := ParseSet(s.Bits(), size, Size); err != nil || len(again.Bits()) > 64<<10 {
			t.Errorf("%d bytes: a set of %d bytes, %v", size, len(s.Bits()), err)
		}
		if size == 0 {
			continue
		}
		s.Add(0)
		s.Add(size - 1)
		front, rear := min(size, s.Unit()), size-(size-1)/s.Unit()*s.Unit()
		want := front
		if s.Unit() < size {
			want += rear
		}
		if s.Bytes(0) != want || s.Next(size-rear) != size || s.Until(front) != max(front, size-rear) {
			t.Errorf("%d bytes: holds %d, want %d; behind its last leaf comes %d, behind its first one %d", size, s.Bytes(0), want, s.Next(size-rear), s.Until(front))
		}
		for _, off := range []int64{size, size + 1, math.MaxInt64 - 1, math.MaxInt64} {
			if off < size {
				continue
			}
			if s.Bytes(off) != 0 || s.Next(off) != off || s.Any(off, math.MaxInt64) {
				t.Errorf("%d bytes: something is held behind the end, at %d", size, off)
			}
			if b := s.Before(off); !bytes.Equal(b.Bits(), s.Bits()) {
				t.Errorf("%d bytes: before %d there is %x, want %x", size, off, b.Bits(), s.Bits())
			}
		}
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add([]byte{0xff}, int64(32))
	f.Add([]byte{0xff, 0x01}, int64(33))
	f.Add([]byte{0xff, 0x02}, int64(33))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 || size > 1<<16 {
			return
		}
		s, err := ParseSet(b, size, 4)
		if err != nil {
			return
		}
		again := NewSet(size, 4)
		for off := s.Until(0); off < size; off = s.Until(off + 1) {
			again.Add(off)
		}
		if !bytes.Equal(again.Bits(), b) || s.Bytes(0) > size {
			t.Errorf("%x of %d bytes reads as %x", b, size, again.Bits())
		}
	})
}
