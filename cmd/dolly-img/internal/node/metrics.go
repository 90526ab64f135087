package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/mirror"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
	"github.com/dolly-img/dolly-img/ring"
)

// counts is what a node counts and remembers for its metrics, also while nobody reads them.
type counts struct {
	transfers, faults *metrics.Counter
	// mirror is nil where no mirror is served. hit is when it was last a hit, in nanoseconds since 1970.
	mirror *metrics.Counter
	hit    atomic.Int64
	// usage is what the cache had when somebody last looked. Whoever changes the cache puts something into changed.
	usage   atomic.Pointer[cache.Usage]
	changed chan struct{}
	refused atomic.Bool // the last reload was
	// ring is nil before the node serves.
	ring atomic.Pointer[ring.Node]
}

func newCounts() *counts {
	return &counts{
		transfers: metrics.NewCounter(metrics.Transfers), faults: metrics.NewCounter(metrics.LinkFaults), changed: make(chan struct{}, 1),
	}
}

// ended counts a transfer. One that never began was counted as refused, and one that only asked moved nothing.
func (c *counts) ended(o ring.Outcome) {
	switch {
	case o.Refused || o.Asked:
		return
	case o.Interrupted:
		c.transfers.Add("interrupted")
	default:
		c.transfers.Add(string(o.State))
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// answered counts a request to the mirror.
func (c *counts) answered(r mirror.Result) {
	c.mirror.Add(string(r))
	if r == mirror.Hit {
		c.hit.Store(time.Now().UnixNano())
	}
}

// usageEvery is how often the cache is looked at for the metrics although no transfer has ended: other programs change it, too.
const usageEvery = time.Minute

// ServeMetrics answers scrapes at addr, as metrics.Address returns it, until stop is called, and does nothing if addr is "". A mirror has to be
// served before.
func (s *Node) ServeMetrics(addr string, build metrics.Build) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	unserve, err := metrics.Serve(addr, s.log, metrics.Daemon, build.Put, s.counts.transfers.Put, s.counts.faults.Put, s.put)
	if err != nil {
		cancel()
		return nil, err
	}
	go s.watchUsage(ctx)
	return func() { unserve(); cancel() }, nil
}

// watchUsage looks at the cache at once, whenever a transfer has ended, and every minute, until ctx ends. A scrape does not wait for it.
func (s *Node) watchUsage(ctx context.Context) {
	tick := time.NewTicker(usageEvery)
	defer tick.Stop()
	for {
		u, err := s.cache.Usage()
		if err != nil {
			s.log.Warn("the size of the cache is not known", "error", err)
			s.counts.usage.Store(nil)
		} else {
			s.counts.usage.Store(&u)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.counts.changed:
		}
	}
}

// put has the metrics that are no counters of their own.
func (s *Node) put(ctx context.Context, put metrics.Put) {
	c := s.counts
	own, authority := s.rules.Load().id.Until()
	metrics.PutTime(put, metrics.CertificateExpiry, own, "own")
	metrics.PutTime(put, metrics.CertificateExpiry, authority, "authority")
	metrics.PutBool(put, metrics.ConfigValid, !c.refused.Load())
	var received, sent int64
	if n := c.ring.Load(); n != nil {
		received, sent = n.Traffic()
	}
	put(metrics.TransferBytes, float64(received), "received")
	put(metrics.TransferBytes, float64(sent), "sent")
	if u := c.usage.Load(); u != nil {
		put(metrics.CacheBytes, float64(u.Bytes))
		put(metrics.CacheImages, float64(u.Images))
	}
	if c.mirror == nil {
		return
	}
	c.mirror.Put(ctx, put)
	if hit := c.hit.Load(); hit != 0 {
		metrics.PutTime(put, metrics.MirrorLastSuccess, time.Unix(0, hit))
	}
}
