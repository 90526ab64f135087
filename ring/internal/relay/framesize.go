package relay

import "time"

// frameSize chooses the payload of frames: what the chain carries in some milliseconds. Every hop holds a
// frame until its CRC is checked, so the last node is behind by as much at each hop, by the largest frame there
// ever was; and every hop is woken for each frame, which on nodes with few cores is what the chain waits for.
//
// So sizes start small, and follow the mean rate of the last moments. They grow twofold with each sample at most,
// and only if that sample is as fast: a burst that a shaper or a buffer lets through is not the link's rate. The rate
// is what the first receiver's kernel acknowledged, not what ours took into its buffer.
type frameSize struct {
	size    int
	samples [frameSamples]frameSample // the newest is at n-1, modulo their number
	n       int                       // samples taken
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

// frameTime is how long the chain may take for one frame: all hops together 100 ms, but in short chains one no
// more than 10 ms, and in long ones no less than 5.
func frameTime(hops int) time.Duration {
	return min(10*time.Millisecond, max(5*time.Millisecond, 100*time.Millisecond/time.Duration(max(hops, 1))))
}

// next is the payload of the next frame, of sizes between those of z. acked is asked for how many bytes the first
// receiver has acknowledged, when it is time for a sample.
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

// since is what was acknowledged since an older sample, within a time.
func (f frameSample) since(old frameSample, in time.Duration) float64 {
	return float64(f.acked-old.acked) / f.at.Sub(old.at).Seconds() * in.Seconds()
}
