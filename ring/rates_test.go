package ring

import (
	"testing"
	"testing/synctest"
	"time"
)

// The rate of a transfer that runs is lowered, and then taken away. Each limit holds from then on, and no node is taken for slow for it.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 << 20
		c := newMemCluster(t, newMemSource(true, random(1, size)))
		for _, name := range []string{"a:1", "b:1"} {
			c.node(name)
		}
		rates := make(chan int64)
		c.cfg.Rate, c.cfg.Rates = 512<<10, rates
		var said Event
		c.cfg.OnEvent = func(ev Event) {
			if ev.Kind == EventProgress {
				said = ev
			}
		}
		begun := time.Now()
		ended := make(chan *Report)
		go func() {
			r, err := c.send()
			if err != nil {
				t.Error(err)
			}
			ended <- r
		}()
		// The burst of a limit is a frame of 1 MiB, which passes at once.
		for _, step := range []struct {
			after       time.Duration
			least, most int64
			rate        int64
		}{{2500 * time.Millisecond, 512 << 10, 5 << 19, 64 << 10}, {3 * time.Second, 1 << 20, 11 << 18, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			if said.Bytes < step.least || said.Bytes > step.most {
				t.Errorf("after %v: %d bytes, want %d to %d", time.Since(begun), said.Bytes, step.least, step.most)
			}
			rates <- step.rate
		}
		close(rates)
		r := <-ended
		if took := time.Since(begun); took > 7*time.Second {
			t.Errorf("ended after %v", took)
		}
		for _, row := range r.Nodes {
			if row.State != Committed {
				t.Errorf("%+v", row)
			}
		}
	})
}
