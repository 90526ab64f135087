package ring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// prepare asks the source what there is to send, and makes what depends on that.
func (s *sender) prepare(ctx context.Context) error {
	blobs, err := s.cfg.Source.Blobs(ctx)
	if err != nil {
		return err
	}
	if len(blobs) == 0 {
		return errors.New("nothing to send")
	}
	if err := checkBlobs(blobs); err != nil {
		return err
	}
	blobs = annotated(blobs, s.cfg.Annotations)
	s.blobs = blobs
	if slices.ContainsFunc(blobs, leaf.In) {
		s.least = max(s.least, wire.LeavesSince)
	}
	meta := s.cfg.Meta
	if meta == nil {
		meta = []byte("null")
	}
	s.offer, err = wire.Encode(&wire.Offer{Blobs: blobs, Meta: meta, Plain: s.cfg.Plain})
	if err != nil {
		return err
	}
	chain := coordinatorConfig(s.cfg, s.pool.MarkEvery())
	chain.Compare = s.updates()
	s.chain = coordinator.New(chain, s.blobs)
	s.relay = relay.New(s.pool, s.blobs)
	s.marks.log.every, s.marks.ahead = s.pool.MarkEvery(), s.pool.Ahead()
	return nil
}

// annotated returns the blobs with annotations added to the first one.
func annotated(blobs []v1.Descriptor, with map[string]string) []v1.Descriptor {
	if len(with) == 0 {
		return blobs
	}
	blobs = slices.Clone(blobs)
	all := maps.Clone(with)
	maps.Copy(all, blobs[0].Annotations)
	blobs[0].Annotations = all
	return blobs
}

// limiter bounds bytes per second. 0 is no bound.
func limiter(most int64) *rate.Limiter { return rate.NewLimiter(limitOf(most), wire.MaxPayload) }

func limitOf(most int64) rate.Limit {
	if most <= 0 {
		return rate.Inf
	}
	return rate.Limit(most)
}

// limitTo takes a bound of Config.Rates, or that there are no more, and returns what the coordinator has to know.
func (s *sender) limitTo(most int64, more bool) coordinator.EvRate {
	if !more {
		s.rates = nil
		return coordinator.EvRate{Rate: s.cfg.Rate}
	}
	s.cfg.Rate = max(0, most)
	s.limit.SetLimit(limitOf(most))
	return coordinator.EvRate{Rate: s.cfg.Rate}
}

// pump makes what reads these blobs of the source, and what says that one of them has another digest than it should.
func (s *sender) pump(blobs []int) (p *relay.Pump, differs func(b int, got digest.Digest) error) {
	p = &relay.Pump{Relay: s.relay, Open: s.cfg.Source.Open, Blobs: blobs, Hops: len(s.cfg.Nodes), Limit: s.limit}
	if u, ok := s.cfg.Source.(Unverified); ok {
		p.Open = u.OpenUnverified
		return p, func(b int, _ digest.Digest) error { // what Open would have said
			return errkind.Errorf("image-damaged", "blob %s: has other bytes than its digest says", s.blobs[b].Digest)
		}
	}
	return p, func(b int, got digest.Digest) error {
		return fmt.Errorf("%s: read bytes have digest %s, expected %s", wire.Called(s.blobs, b), got, s.blobs[b].Digest)
	}
}

// startSource reads the source into the relay, but for the leaves of common, and hashes it beside.
func (s *sender) startSource(work context.Context, common []*leaf.Set) {
	s.first, s.past = time.Now(), nil
	blobs := s.readBlobs()
	p, differs := s.pump(blobs)
	// The store fills in what is read. Finals and sizes belong to it until it has ended, and then to the goroutine that
	// hands them to the coordinator.
	finals, sizes := s.unread()
	right := make(chan struct{}, len(blobs)) // a blob was hashed, and has its digest
	st := &relay.Store{Relay: s.relay, Blobs: blobs, Hashers: hashers()}
	tell := s.tells(st, common)
	st.Sum = func(b int, off int64, sum []byte, end bool) error {
		if end {
			finals[b], sizes[b] = digest.NewDigestFromBytes(digest.SHA256, sum), off
			if leaf.In(s.blobs[b]) {
				finals[b] = leaf.Digest(sum)
			}
			if want := s.blobs[b].Digest; want != "" && want != finals[b] {
				return differs(b, finals[b])
			}
			right <- struct{}{}
		}
		return tell(wire.Mark{Blob: b, Offset: off, Sum: sum, Final: end})
	}
	s.source = make(chan struct{})
	// The failure is told before the links are closed: else the nodes, whom nobody
	// feeds any more, would be taken for the cause.
	var once sync.Once
	fail := func(err error) {
		once.Do(func() {
			failed := &SourceError{err, errors.As(err, new(*relay.Unreadable))}
			s.post(coordinator.EvSourceFailed{Err: failed, Kept: failed.Kept})
			s.relay.Close(err)
		})
	}
	var hashed error
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		hashed = st.Run(context.Background()) // the end of the relay ends it
		if hashed != nil {
			fail(hashed) // the pump must not wait for it
		}
	}()
	go func() {
		defer close(s.source)
		read, err := p.Run(work)
		if err != nil {
			// That a blob was wrong counts more than that the next one cannot be read: nodes must not keep it.
			for range read {
				select {
				case <-right:
				case <-stored:
				}
			}
			fail(err)
		}
		if <-stored; hashed != nil || err != nil {
			return
		}
		if err := s.unchanged(work, finals); err != nil {
			fail(err)
			return
		}
		s.post(coordinator.EvSourceDone{Finals: finals, Sizes: sizes})
	}()
}

// readBlobs returns the numbers of the blobs that are read.
func (s *sender) readBlobs() (blobs []int) {
	for b, read := range s.read {
		if read {
			blobs = append(blobs, b)
		}
	}
	return blobs
}

// unread returns the digests and sizes of all blobs, as far as the offer has them of blobs that are not read.
func (s *sender) unread() (finals []digest.Digest, sizes []int64) {
	finals, sizes = make([]digest.Digest, len(s.blobs)), make([]int64, len(s.blobs))
	for b, read := range s.read {
		if !read {
			finals[b], sizes[b] = s.blobs[b].Digest, s.blobs[b].Size
		}
	}
	return finals, sizes
}

// unchanged tells the source what was read, and asks it whether it still holds that.
func (s *sender) unchanged(ctx context.Context, finals []digest.Digest) error {
	if summed, ok := s.cfg.Source.(Summed); ok {
		summed.Sums(slices.Clone(finals))
	}
	if u, ok := s.cfg.Source.(Unchanged); ok {
		return u.Unchanged(ctx)
	}
	return nil
}

// checkBlobs is what both sides demand of a list of blobs.
func checkBlobs(blobs []v1.Descriptor) error {
	if len(blobs) > wire.MaxBlobs {
		return fmt.Errorf("%d blobs, the limit is %d", len(blobs), wire.MaxBlobs)
	}
	seen := make(map[digest.Digest]bool, len(blobs))
	var total int64
	for i, d := range blobs {
		switch {
		case d.Size < -1 || d.Size < 0 && (d.Digest != "" || i < len(blobs)-1):
			return fmt.Errorf("blob %d: size %d", i, d.Size)
		case d.Digest == "":
		case d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256:
			return fmt.Errorf("blob %d: digest %q is not a sha256", i, d.Digest)
		case seen[d.Digest]:
			return fmt.Errorf("blob %d: %s is listed twice", i, d.Digest)
		}
		seen[d.Digest] = true
		if total += max(d.Size, 0); total < 0 {
			return errors.New("blobs of more than 8 EiB together")
		}
	}
	return nil
}

// totalSize is the sum of the known sizes.
func totalSize(blobs []v1.Descriptor) (n int64) {
	for _, d := range blobs {
		n += max(d.Size, 0)
	}
	return n
}
