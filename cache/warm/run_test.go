package warm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// fleet is a registry and nodes that a Controller is run with. Transfers take a minute.
type fleet struct {
	mu      sync.Mutex
	nodes   map[string]map[string]digest.Digest // what each node holds, by name; nil is down
	wishes  map[string][]Wish
	digest  digest.Digest
	failing error
	lookups int
	pushes  []Push
	rates   []int64
	kept    []Wish
	names   []string
	text    string // the list
}

func (f *fleet) Nodes(context.Context, *Group) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names, nil
}

func (f *fleet) Lookup(_ context.Context, l *Lookup) ([]Tag, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	if f.failing != nil {
		return nil, f.failing
	}
	return []Tag{{Ref: l.Image.Ref, List: f.digest, Variants: []Found{{"", "torch", f.digest, 1e9}}}}, nil
}

func (f *fleet) Ask(_ context.Context, queries []*Query, answer func(*Query, Answer, error)) {
	for _, q := range queries {
		f.mu.Lock()
		node := f.nodes[q.Node]
		a := Answer{Room: 1e12}
		for _, question := range q.Images {
			h := Holding{Named: node[question.Name]}
			if h.Named != question.Digest {
				h.Lacks = 1e9
			}
			a.Images = append(a.Images, h)
		}
		var err error
		if node == nil {
			err = errors.New("no route to host")
		} else if q.Wishes != nil {
			f.wishes[q.Node] = q.Wishes
		}
		f.mu.Unlock()
		answer(q, a, err)
	}
}

func (f *fleet) Push(ctx context.Context, p *Push, rates <-chan int64, progress func(Progress)) ([]Row, error) {
	f.mu.Lock()
	f.pushes = append(f.pushes, *p)
	f.mu.Unlock()
	progress(Progress{16e6, time.Minute, 0})
	done := time.After(time.Minute)
	for {
		select {
		case rate := <-rates:
			f.mu.Lock()
			f.rates = append(f.rates, rate)
			f.mu.Unlock()
		case <-ctx.Done():
			return []Row{{Node: p.Nodes[0], Outcome: Interrupted}}, ctx.Err()
		case <-done:
			f.mu.Lock()
			defer f.mu.Unlock()
			var rows []Row
			for _, n := range p.Nodes {
				r := Row{Node: n, Outcome: Committed}
				if f.nodes[n] == nil {
					r.Outcome, r.Why = Unreachable, "no route to host"
				} else {
					f.nodes[n][p.Name] = p.Digest
				}
				rows = append(rows, r)
			}
			return rows, nil
		}
	}
}

func (f *fleet) Keep(_ context.Context, wishes []Wish) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = wishes
	return nil
}

func (f *fleet) list() (*List, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Parse([]byte(f.text))
}

// set changes something.
func (f *fleet) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// pushed returns the pushes up to now.
func (f *fleet) pushed() []Push {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pushes)
}

// later is an error of a registry that does not want to be asked for a while.
type later struct{ error }

func (later) RetryAfter() time.Duration { return 20 * time.Minute }

// runFleet runs a Controller for a list of one image on three nodes, in a bubble where time is fake.
func runFleet(t *testing.T, test func(t *testing.T, f *fleet, c *Controller, reload chan<- struct{}, state string)) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{digest: digest.FromString("1"), nodes: map[string]map[string]digest.Digest{}, wishes: map[string][]Wish{}, text: fleetList, names: []string{"n1", "n2", "n3"}}
		for _, n := range f.names {
			f.nodes[n] = map[string]digest.Digest{}
		}
		reload := make(chan struct{})
		c := NewController(Config{List: f.list, Reload: reload, Effects: f, State: durable.Dir(state)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		test(t, f, c, reload, state)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

const fleetList = "[nodes.all]\ncommand = \"x\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"all\"]\nkeep = 2\n"

// snapshotImage returns the status of the only image.
func snapshotImage(t *testing.T, c *Controller) (*Snapshot, ImageStatus) {
	t.Helper()
	synctest.Wait()
	s, err := c.Snapshot(t.Context())
	if err != nil || len(s.Images) != 1 {
		t.Fatal(s, err)
	}
	return s, s.Images[0]
}

// An image comes on all nodes; a node that is wiped is warm again within catch-up, two seconds and the transfer; a tag that moves is
// on all within every and the transfer, and the old digest stays wanted; a registry that is away changes nothing and is not asked in a loop.
func TestRun(t *testing.T) {
	runFleet(t, func(t *testing.T, f *fleet, c *Controller, _ chan<- struct{}, state string) {
		time.Sleep(10 * time.Second)
		if _, i := snapshotImage(t, c); i.State != ImageWarming || i.Rate != 16e6 || i.Left != time.Minute || i.Nodes[0].State != NodeWarming {
			t.Errorf("after 10 s: %+v", i)
		}
		time.Sleep(time.Minute)
		if _, i := snapshotImage(t, c); i.State != ImageWarm || i.Warm != 3 || len(f.pushed()) != 1 || len(f.pushed()[0].Nodes) != 3 {
			t.Errorf("after 70 s: %+v, %+v", i, f.pushed())
		}
		f.set(func() { f.nodes["n2"], f.nodes["n3"] = nil, nil })
		time.Sleep(5 * time.Minute)
		if _, i := snapshotImage(t, c); i.State != ImageDegraded || i.Reason != "2 of 3 away" || i.Nodes[1].State != NodeAway || i.Nodes[1].Reason != "no route to host" {
			t.Errorf("two nodes stopped: %+v", i)
		}
		f.set(func() { f.nodes["n2"], f.nodes["n3"] = map[string]digest.Digest{}, map[string]digest.Digest{} })
		time.Sleep(time.Minute + 2*time.Second + time.Minute)
		if _, i := snapshotImage(t, c); i.State != ImageWarm || i.Warm != 3 || len(f.pushed()) != 2 || !slices.Equal(f.pushed()[1].Nodes, []string{"n2", "n3"}) {
			t.Errorf("two nodes came back: %+v, %+v", i, f.pushed())
		}

		old := f.digest
		f.set(func() { f.digest = digest.FromString("2") })
		time.Sleep(10*time.Minute + 5*time.Second + time.Minute)
		if _, i := snapshotImage(t, c); i.State != ImageWarm || i.Digest != f.digest || len(f.pushed()) != 3 {
			t.Errorf("the tag moved: %+v", i)
		}
		wants := func(list []Wish, d digest.Digest) bool {
			return slices.ContainsFunc(list, func(w Wish) bool { return w.Digest == d && w.Name == "torch" && w.Keep == 2 })
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		f.mu.Lock()
		for n, list := range f.wishes {
			if !wants(list, old) || !wants(list, f.digest) {
				t.Errorf("%s: wishes %v", n, list)
			}
		}
		if !wants(f.kept, old) || !wants(f.kept, f.digest) {
			t.Errorf("kept here: %v", f.kept)
		}
		f.mu.Unlock()

		f.set(func() { f.failing, f.lookups = later{errors.New("429 too many requests")}, 0 })
		time.Sleep(70 * time.Minute)
		lookups := 0
		f.set(func() { lookups = f.lookups })
		if _, i := snapshotImage(t, c); i.State != ImageWarm || !strings.HasPrefix(i.Stale, "429") || lookups < 3 || lookups > 4 || len(f.pushed()) != 3 {
			t.Errorf("the registry is away: %+v, %d lookups", i, lookups)
		}
		data, err := os.ReadFile(filepath.Join(state, stateFile))
		if err != nil || !strings.Contains(string(data), f.digest.String()) || !strings.Contains(string(data), old.String()) {
			t.Errorf("state %s, %v", data, err)
		}
	})
}

// A wrong list and a command without nodes leave what was; windows interrupt a ring, and it goes on when they open; a controller that is
// started again pushes nothing twice.
func TestRunReload(t *testing.T) {
	runFleet(t, func(t *testing.T, f *fleet, c *Controller, reload chan<- struct{}, state string) {
		time.Sleep(70 * time.Second)
		f.set(func() { f.text = "imags = 1\n" })
		reload <- struct{}{}
		f.set(func() { f.names = nil })
		time.Sleep(3 * time.Minute)
		s, i := snapshotImage(t, c)
		if s.Refused != `line 1: unknown key "imags"` || s.Groups[0].Stale != "no nodes in it" || s.Groups[0].Nodes != 3 || i.Warm != 3 {
			t.Errorf("%+v", s)
		}
		// The bubble begins on a Saturday at midnight.
		text := strings.Replace("[defaults]\nwindows = [\"Mon-Fri\", \"01:00-02:00\"]\nzone = \"UTC\"\noutside = \"5M\"\n"+fleetList, "keep = 2", "rate = \"9M\"", 1)
		f.set(func() { f.digest, f.names, f.text = digest.FromString("2"), []string{"n1", "n2", "n3"}, text })
		reload <- struct{}{}
		time.Sleep(10*time.Minute + 20*time.Second)
		if s, i := snapshotImage(t, c); s.Refused != "" || len(f.pushed()) != 2 || f.pushed()[1].Rate != 5e6 || i.Warm == 3 && i.Digest == f.pushed()[0].Digest {
			t.Errorf("%+v, pushes %+v", i, f.pushed())
		}
		time.Sleep(2 * time.Minute)
		f.set(func() { f.nodes["n1"] = map[string]digest.Digest{} })
		for len(f.pushed()) < 3 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for _, outside := range []string{"\"3M\"", "\"off\""} {
			f.set(func() { f.text = strings.Replace(text, `"5M"`, outside, 1) })
			reload <- struct{}{}
			synctest.Wait()
		}
		time.Sleep(2 * time.Minute)
		var rates []int64
		f.set(func() { rates = slices.Clone(f.rates) })
		if _, i := snapshotImage(t, c); !slices.Equal(rates, []int64{3e6}) || len(f.pushed()) != 3 || i.State != ImageBlocked || !strings.HasPrefix(i.Reason, "outside of the windows until ") || i.Nodes[0].State != NodeMissing {
			t.Errorf("outside: %+v, %d pushes, rates %v", i, len(f.pushed()), rates)
		}
		time.Sleep(time.Until(time.Date(2000, 1, 1, 1, 2, 0, 0, time.UTC)))
		if _, i := snapshotImage(t, c); i.State != ImageWarm || len(f.pushed()) != 4 || f.pushed()[3].Rate != 9e6 {
			t.Errorf("inside: %+v, %+v", i, f.pushed())
		}
		ctx, cancel := context.WithCancel(t.Context())
		again := NewController(Config{List: f.list, Effects: f, State: durable.Dir(state)})
		go again.Run(ctx)
		time.Sleep(5 * time.Minute)
		if _, i := snapshotImage(t, again); i.Warm != 3 || len(f.pushed()) != 4 {
			t.Errorf("started again: %+v, %d pushes", i, len(f.pushed()))
		}
		cancel()
		synctest.Wait()
	})
	if err := NewController(Config{List: func() (*List, error) { return Parse([]byte("imags = 1\n")) }}).Run(t.Context()); err == nil || err.Error() != `line 1: unknown key "imags"` {
		t.Error(err)
	}
}

// An edit of what concerns nodes alone takes effect at once, and not at the next catch-up: which nodes, pin, keep and min.
func TestRunEdits(t *testing.T) {
	runFleet(t, func(t *testing.T, f *fleet, c *Controller, reload chan<- struct{}, _ string) {
		edit := func(text string) {
			f.set(func() { f.text = "[defaults]\ncatch-up = \"24h\"\n" + text })
			reload <- struct{}{}
			time.Sleep(soonest + 3*tick)
			synctest.Wait()
		}
		wished := func(node string) []Wish {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.wishes[node]
		}
		time.Sleep(3 * time.Minute)
		edit(fleetList)
		two := f.digest
		want := func(what string, nodes map[string]int, pin bool, keep int) {
			t.Helper()
			for node, n := range nodes {
				got := wished(node)
				if len(got) != n || n > 0 && (got[0] != Wish{"torch", f.digest, pin, keep}) {
					t.Errorf("%s: %s has wishes %+v", what, node, got)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if (f.kept[0] != Wish{"torch", f.digest, pin, keep}) {
				t.Errorf("%s: kept here %+v", what, f.kept)
			}
		}
		want("before", map[string]int{"n1": 1, "n4": 0}, false, 2)
		edit(strings.Replace(fleetList, "keep = 2", "keep = 2\npin = true", 1))
		want("pin", map[string]int{"n1": 1, "n3": 1}, true, 2)
		edit(strings.Replace(fleetList, "keep = 2", "keep = 3", 1))
		want("keep", map[string]int{"n1": 1, "n3": 1}, false, 3)
		f.set(func() { f.nodes["n4"] = map[string]digest.Digest{} })
		edit(strings.Replace(fleetList, `["all"]`, `["all", "more"]`, 1) + "[nodes.more]\nlist = \"n4\"\n")
		want("nodes", map[string]int{"n1": 1, "n4": 1}, false, 2)
		time.Sleep(2 * time.Minute)
		if _, i := snapshotImage(t, c); i.Warm != 4 || len(i.Nodes) != 4 {
			t.Errorf("%+v", i)
		}
		// Fewer are kept: what is over goes when the list says so.
		f.set(func() { f.digest = digest.FromString("2") })
		time.Sleep(15 * time.Minute)
		edit(fleetList)
		if got := wished("n1"); len(got) != 2 || got[1].Digest != two {
			t.Errorf("two of them: %+v", got)
		}
		edit(strings.Replace(fleetList, "keep = 2", "min = \"50%\"", 1))
		edit(strings.Replace(fleetList, "keep = 2", "min = \"50%\"", 1))
		want("fewer", map[string]int{"n1": 1, "n3": 1}, false, 1)
	})
}
