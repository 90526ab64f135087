package relay

import "time"

// frameSize chooses the payload of frames: as much as the chain carries in some milliseconds. Large frames cost
// time, because every hop holds a frame until its CRC is checked: at each hop the last node falls behind by the time
// of the largest frame that there was. Small frames cost processor time, because every hop is woken for each, and the
// chain waits for that on nodes with few cores.
//
// So sizes start small, and follow the mean rate of the last moments. A sample can double the size at most, and only
// if the link was as fast within that sample: what a shaper or a buffer lets through in a burst is not the link's
// rate. The rate is that of the bytes which the first receiver's kernel acknowledged, not of those which ours took
// into its buffer.
type frameSize struct {
	size int
	// samples is a ring of which the newest is at n-1, modulo its length; n counts all samples.
	samples [frameSamples]frameSample
	n       int
}

type frameSample struct {
	at    time.Time
	acked uint64
}

const (
	frameUnit    = 4 << 10
	frameEvery   = 10 * time.Millisecond // between samples
	frameSamples = 11                    // the mean is over ten times as long

	// minFrame is the smallest payload that is chosen. At 50 Mbit/s, 48 KiB were faster than 16, 32 and
	// 64 with 33 processes on two cores.
	minFrame = 48 << 10
)

// frameTime returns how long one hop may take for a frame. All hops together have 100 ms, but each has at most 10 ms
// and at least 5 ms.
func frameTime(hops int) time.Duration {
	return min(10*time.Millisecond, max(5*time.Millisecond, 100*time.Millisecond/time.Duration(max(hops, 1))))
}

// next returns the payload of the next frame in bytes, from z.Frame to z.Chunk. When it is time for a sample it calls
// acked, which tells how many bytes the first receiver has acknowledged.
func (s *frameSize) next(z Sizes, hops int, acked func() (uint64, bool)) int {
	if s.size == 0 {
		s.size = z.Frame
	}
	now := time.Now()
	if s.n > 0 && now.Sub(s.samples[(s.n-1)%frameSamples].at) < frameEvery {
		return s.size
	}
	bytes, ok := acked()
	if !ok || bytes == 0 {
		return s.size
	}
	sample := frameSample{now, bytes}
	if s.n > 0 {
		last, first := s.samples[(s.n-1)%frameSamples], s.samples[max(0, s.n-frameSamples+1)%frameSamples]
		if bytes < first.acked { // another link is the first now
			s.n = 0
		} else {
			in := frameTime(hops)
			want := sample.since(first, in)
			if size := float64(s.size); want > size {
				want = min(want, 2*size, max(size, sample.since(last, in)))
			}
			s.size = max(int(min(want, float64(z.Chunk)))&^(frameUnit-1), z.Frame)
		}
	}
	s.samples[s.n%frameSamples] = sample
	s.n++
	return s.size
}

// since returns how many bytes were acknowledged within a time, at the mean rate since an older sample.
func (f frameSample) since(old frameSample, in time.Duration) float64 {
	return float64(f.acked-old.acked) / f.at.Sub(old.at).Seconds() * in.Seconds()
}
