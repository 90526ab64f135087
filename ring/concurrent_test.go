package ring

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
)

// Several servers at once, to nodes that they share.

// targets are the files of one node: who writes to one keeps others away from it.
type targets struct {
	mu    sync.Mutex
	files map[string]*target
	used  func() // called at every write
}

type target struct {
	holder  string
	content []byte
	by      []string // transfers that published, in order
}

// targetSink is one transfer's hold on a target.
type targetSink struct {
	*memSink
	of       *targets
	name     string
	transfer string
}

// accept opens the target that Meta names.
func (n *targets) accept(_ context.Context, r Request) (Sink, error) {
	var name string
	if err := json.Unmarshal(r.Meta, &name); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.files[name]
	if f == nil {
		f = &target{}
		n.files[name] = f
	}
	if f.holder != "" {
		return nil, fmt.Errorf("transfer %s writes to %s: %w", f.holder, name, ErrBusy)
	}
	f.holder = r.Transfer
	s := newMemSink()
	s.fail = func(what string, _ int) error {
		if n.used != nil && what == "write" {
			n.used()
		}
		return nil
	}
	return &targetSink{s, n, name, r.Transfer}, nil
}

func (s *targetSink) Publish(ctx context.Context) error {
	if err := s.memSink.Publish(ctx); err != nil {
		return err
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	f := s.of.files[s.name]
	f.content, f.by = s.parts[len(s.parts)-1], append(f.by, s.transfer)
	return nil
}

func (s *targetSink) Close() error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.files[s.name].holder = ""
	return s.memSink.Close()
}

// is says what a target holds and who published it.
func (n *targets) is(name string) ([]byte, []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.files[name]; f != nil {
		return f.content, slices.Clone(f.by)
	}
	return nil, nil
}

// targetCluster is a cluster whose nodes have such files.
func targetCluster(t *testing.T, n, transfers, window int) (*cluster, []*targets) {
	var all []*targets
	c := newCluster(t, n, func(_ int, cfg *NodeConfig) {
		files := &targets{files: map[string]*target{}}
		all = append(all, files)
		cfg.Accept, cfg.Transfers = files.accept, transfers
		cfg.Finished = nil
	})
	for _, n := range c.nodes {
		n.window(window)
	}
	return c, all
}

func (c *cluster) push(name string, src Source, nodes ...int) Config {
	cfg := c.config(src)
	cfg.Meta, _ = json.Marshal(name)
	peers := cfg.Nodes
	cfg.Nodes = nil
	for _, i := range nodes {
		cfg.Nodes = append(cfg.Nodes, peers[i])
	}
	return cfg
}

// all sends at the same time.
func all(t *testing.T, cfgs ...Config) []*Report {
	reports := make([]*Report, len(cfgs))
	var work sync.WaitGroup
	for i, cfg := range cfgs {
		work.Go(func() {
			var err error
			if reports[i], err = send(t, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	return reports
}

// Two servers, overlapping nodes in opposite orders, different targets: both commit everywhere.
func TestTwoServers(t *testing.T) {
	c, files := targetCluster(t, 4, 2, 2*leastWindow)
	blobs := map[string][]byte{"x": random(1, 12<<20+1), "y": random(2, 9<<20+7)}
	orders := map[string][]int{"x": {0, 1, 2}, "y": {3, 2, 1}}
	r := all(t, c.push("x", newMemSource(true, blobs["x"]), orders["x"]...), c.push("y", newMemSource(true, blobs["y"]), orders["y"]...))
	for k, name := range []string{"x", "y"} {
		if r[k].Count() != 3 {
			t.Errorf("%s: %+v", name, r[k].Nodes)
		}
		for i := range files {
			got, by := files[i].is(name)
			if want := slices.Contains(orders[name], i); want != bytes.Equal(got, blobs[name]) || len(by) > 1 {
				t.Errorf("node %d: %s is right: %v, published by %v", i, name, !want, by)
			}
		}
	}
}

// oneOf checks a target that several pushes wrote to: each row that is good published there, no
// other did, those that are not were refused as busy with another, and the file is what the
// last one sent.
func oneOf(t *testing.T, files []*targets, nodes [][]int, blobs [][]byte, r []*Report) {
	t.Helper()
	for i := range files {
		got, by := files[i].is("x")
		var want []string
		for k := range r {
			at := slices.Index(nodes[k], i)
			if at < 0 {
				continue
			}
			row := r[k].Nodes[at]
			if row.State.Good() {
				want = append(want, r[k].Transfer)
			} else if row.State != Refused || !strings.Contains(row.Reason, "writes to x: busy") || strings.Contains(row.Reason, r[k].Transfer) {
				t.Errorf("transfer %s: %+v", r[k].Transfer, row)
			}
			if len(by) > 0 && by[len(by)-1] == r[k].Transfer && !bytes.Equal(got, blobs[k]) {
				t.Errorf("node %d holds other bytes than %s sent, which was the last to publish", i, r[k].Transfer)
			}
		}
		slices.Sort(want)
		slices.Sort(by)
		if len(by) == 0 || !slices.Equal(want, by) {
			t.Errorf("node %d: rows say that %v committed, but %v published", i, want, by)
		}
	}
}

// The same target: one is first, the other waits and then commits, too.
func TestTwoServersOneTarget(t *testing.T) {
	c, files := targetCluster(t, 3, 2, 2*leastWindow)
	blobs := [][]byte{random(1, 6<<20), random(2, 5<<20)}
	first := newMemSource(true, blobs[0])
	second := make(chan *Report)
	var once sync.Once
	first.read = func(_ int, off int64) { // it has all of the nodes by now
		if off > 4<<20 {
			once.Do(func() {
				go func() { second <- all(t, c.push("x", newMemSource(true, blobs[1]), 0, 1, 2))[0] }()
			})
		}
	}
	r := []*Report{all(t, c.push("x", first, 0, 1, 2))[0], <-second}
	oneOf(t, files, [][]int{{0, 1, 2}, {0, 1, 2}}, blobs, r)
	if r[0].Count() != 3 || r[1].Count() != 3 {
		t.Errorf("%+v %+v", r[0].Nodes, r[1].Nodes)
	}
	for _, f := range files {
		if got, _ := f.is("x"); !bytes.Equal(got, blobs[1]) {
			t.Error("the one that waited is not the last")
		}
	}
}

// The same target in opposite orders: each has some nodes when it wants the others'. Nobody
// waits for longer than 20 s, and no row lies.
func TestTwoServersCrossed(t *testing.T) {
	for round := range 10 {
		synctest.Test(t, func(t *testing.T) {
			blobs := [][]byte{random(1, 300_000), random(2, 200_000)}
			c := newMemCluster(t, nil)
			var files []*targets
			for i, name := range []string{"a:1", "b:1", "c:1", "d:1"} {
				n, _ := c.node(name)
				f := &targets{files: map[string]*target{}}
				n.node.config().Accept, n.node.config().Finished = f.accept, nil
				files = append(files, f)
				if i%2 == round%2 { // its answer to one of them takes longer
					c.net.Shape("one", strings.TrimSuffix(name, ":1"), 0, time.Millisecond)
				} else {
					c.net.Shape("two", strings.TrimSuffix(name, ":1"), 0, time.Millisecond)
				}
			}
			nodes := [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}}
			r := make([]*Report, 2)
			var work sync.WaitGroup
			start := time.Now()
			for k, host := range []string{"one", "two"} {
				cfg := c.cfg
				cfg.Source, cfg.Meta = newMemSource(true, blobs[k]), json.RawMessage(`"x"`)
				cfg.Nodes = nil
				for _, i := range nodes[k] {
					cfg.Nodes = append(cfg.Nodes, c.cfg.Nodes[i])
				}
				work.Go(func() {
					s, err := newSender(cfg)
					if err != nil {
						t.Error(err)
						return
					}
					s.net.dial = c.net.Host(host).Dial
					if r[k], err = s.run(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			work.Wait()
			oneOf(t, files, nodes, blobs, r)
			if took := time.Since(start); took > 21*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Four transfers at once share a node's memory: what exceeds the budget is at most what each of
// them may always have, and all of it is given back.
func TestFourTransfersOneWindow(t *testing.T) {
	const transfers = 4
	limit := relay.DefaultWindow
	c, files := targetCluster(t, 3, transfers, relay.DefaultWindow)
	var mu sync.Mutex
	most := make([]int, len(files))
	for i, f := range files {
		p := c.nodes[i].node.pool
		f.used = func() {
			used := p.Used()
			mu.Lock()
			defer mu.Unlock()
			most[i] = max(most[i], used)
		}
	}
	var cfgs []Config
	var blobs [][]byte
	for k := range transfers {
		blob := random(uint64(k+1), 9<<20) // more than the limit, together
		blobs = append(blobs, blob)
		cfgs = append(cfgs, c.push(fmt.Sprint("file", k), newMemSource(true, blob), 0, 1, 2))
	}
	for k, r := range all(t, cfgs...) {
		if r.Count() != 3 {
			t.Errorf("%+v", r.Nodes)
		}
		for i, f := range files {
			if got, _ := f.is(fmt.Sprint("file", k)); !bytes.Equal(got, blobs[k]) {
				t.Errorf("node %d: file%d holds other bytes", i, k)
			}
		}
	}
	t.Logf("at most %v bytes of %d", most, limit)
	for i, n := range c.nodes {
		if most[i] > limit+transfers*leastWindow || most[i] == 0 {
			t.Errorf("%s: had %d bytes, the limit is %d", n.name, most[i], limit)
		}
		n.node.Shutdown(t.Context())
		if n.node.pool.Used() != 0 {
			t.Errorf("%s: kept %d bytes", n.name, n.node.pool.Used())
		}
	}
}
