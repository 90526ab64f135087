package warm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

var simRefs = []string{"docker://a.example/torch:25", "docker://a.example/chem:1", "docker://b.example/mpi:4", "/images/tool.sif"}

// simTags is a repository of which all tags 1.* are wanted.
const simTags = "docker://b.example/apps"

const week = 7 * 24 * time.Hour

// newWorld makes a cluster of two groups, three images and a pattern of tags in registries, and a SIF.
func newWorld(seed uint64, nodes int, catchUp time.Duration) *world {
	c := &cluster{rng: rand.New(rand.NewPCG(seed, 1)), wall: time.Date(2026, 3, 25, 12, 0, 0, 0, time.UTC), // it has a change of the clocks
		tags: map[string]digest.Digest{}, tagsOf: map[string][]string{}, size: map[digest.Digest]int64{}, nodes: map[string]*simNode{}, nodesOf: map[string][]string{}, quiet: week - 6*time.Hour}
	w := c.control("a")
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		panic(err)
	}
	w.list = &List{Every: 10 * time.Minute, Zone: zone, Rings: 2, Retry: Retry{time.Minute, time.Hour}, CatchUp: catchUp,
		Groups: []Group{{Name: "cpu", Command: "cpus", Platform: "linux/amd64"}, {Name: "gpu", Command: "gpus", Platform: "linux/arm64"}}}
	if seed%2 == 0 {
		window, _ := ParseWindow("Mon-Fri 18:00-08:00")
		weekend, _ := ParseWindow("Sat-Sun")
		w.list.Windows, w.list.Outside = []Window{window, weekend}, Outside{Off: seed%4 == 0, Rate: 50e6}
		w.list.Every = 3 * time.Minute
	}
	for i, ref := range simRefs {
		image := Image{Ref: ref, Nodes: []string{"cpu", "gpu"}, Keep: 1 + i%2, Min: 90, Priority: i % 3}
		if i == 2 {
			image.Nodes = []string{"gpu"}
		}
		w.list.Images = append(w.list.Images, image)
		w.move(ref)
	}
	w.list.Images = append(w.list.Images, Image{Ref: simTags, Tags: "1.*", Nodes: []string{"gpu"}, Keep: 1, Min: 90})
	w.setTags(1, 2)
	for i := range nodes {
		group := []string{"cpu", "gpu"}[i%2]
		w.add(newSimNode(fmt.Sprintf("%s%04d", group, i)), group)
	}
	return w
}

// control adds a controller to a cluster.
func (c *cluster) control(owner string) *world {
	w := &world{cluster: c, owner: owner, pushes: map[int]*simPush{}, check: newChecker()}
	c.controllers = append(c.controllers, w)
	return w
}

func (c *cluster) add(n *simNode, group string) {
	c.nodes[n.name] = n
	c.order = append(c.order, n)
	c.nodesOf[group] = append(slices.Clone(c.nodesOf[group]), n.name)
}

// move gives a Ref new images, or those that it had once.
func (c *cluster) move(ref string) {
	generation := c.rng.IntN(6)
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		d := digest.FromString(fmt.Sprintf("%s %s %d", ref, platform, generation))
		c.tags[ref+platform] = d
		c.size[d] = 2e9 + int64(d[10])*20e6
		if ref == simRefs[0] {
			c.size[d] *= 6
		}
	}
}

// setTags gives the repository these tags.
func (c *cluster) setTags(versions ...int) {
	c.tagsOf[simTags] = nil
	for _, v := range versions {
		ref := fmt.Sprint(simTags, ":1.", v)
		if c.tagsOf[simTags] = append(c.tagsOf[simTags], ref); c.tags[ref+"linux/amd64"] == "" {
			c.move(ref)
		}
	}
}

// often does something again and again, about so many times a week.
func (w *world) often(times int, do func()) {
	for range times {
		w.after(w.between(0, w.quiet-5*time.Hour), do)
	}
}

func (w *world) anyNode() *simNode { return w.order[w.rng.IntN(len(w.order))] }

func (n *simNode) down(w *world) {
	if n.up {
		n.up, n.changed = false, w.now
		n.outages = append(n.outages, w.now)
	}
}

func (n *simNode) rise(w *world, wipe bool) {
	if !n.up {
		n.up, n.changed = true, w.now
		if wipe {
			n.wiped, n.grew = w.now, w.now
			clear(n.blobs)
			clear(n.names)
			clear(n.owners)
			clear(n.wished)
			clear(n.under)
		}
	}
}

// faults fills a week with them. The last hours are quiet.
func (w *world) faults() {
	w.often(len(w.order)*2, func() {
		n := w.anyNode()
		n.down(w)
		wipe := w.rng.IntN(3) == 0
		w.after(w.between(time.Minute, 4*time.Hour), func() { n.rise(w, wipe) })
	})
	for range max(1, len(w.order)/100) {
		n := w.anyNode()
		from, until := w.between(0, w.quiet/3), w.between(w.quiet/2, w.quiet*3/4)
		w.after(from, func() { w.flap(n, until) })
	}
	w.often(len(w.order)/4, func() { // what other senders push
		n := w.anyNode()
		if n.up {
			d := digest.FromString(fmt.Sprint("of another sender ", w.rng.IntN(50)))
			n.store(w, d, 5e9)
		}
	})
	w.often(max(5, len(w.order)/20), func() { // pins of the owner local take almost all the room, or the cache may not have more than that
		n, d := w.anyNode(), digest.FromString("pinned")
		if most := n.cap; most > 1e9 && len(n.outages)%2 == 1 {
			n.cap = 1e9
			w.after(w.between(time.Hour, 5*time.Hour), func() { n.cap, n.grew = most, w.now })
			return
		}
		n.blobs[d] = simBlob{bytes: n.cap - 1e9, pin: true, used: w.now}
		for other, b := range n.blobs {
			if !b.pin && n.wished[other] == nil {
				n.evict(other)
			}
		}
		w.after(10*time.Minute, func() { w.move(simRefs[1]) })
		w.after(w.between(time.Hour, 5*time.Hour), func() {
			n.evict(d)
			n.grew = w.now
		})
	})
	w.often(max(3, len(w.order)/50), func() {
		n := w.anyNode()
		n.broken = true
		w.after(w.between(time.Hour, 5*time.Hour), func() { n.broken, n.changed = false, w.now })
	})
	w.often(8, func() {
		n, name := w.anyNode(), "name of "+w.list.Images[0].Ref
		n.foreign[name], n.moved = true, w.now
		w.after(w.between(time.Hour, 5*time.Hour), func() { n.foreign[name], n.changed = false, w.now })
	})
	w.registryFaults()
	w.controllerFaults()
	w.often(len(w.order)/4, func() { // A sender moves a name.
		n, name := w.anyNode(), "name of "+simRefs[w.rng.IntN(2)]
		d := digest.FromString(fmt.Sprint("of a sender ", w.rng.IntN(9)))
		if _, ok := n.store(w, d, 1e9); n.up && n.names[name] != "" && ok {
			n.names[name], n.moved = d, w.now
			delete(n.owners, name)
		}
	})
	w.often(6, func() { w.join(fmt.Sprintf("late%04d", len(w.order))) })
}

// registryFaults moves tags, makes and removes them, and has registries fail.
func (w *world) registryFaults() {
	w.often(25, func() { w.move(simRefs[w.rng.IntN(4)]) })
	for day := range 5 { // a tag that moves just before the windows close
		w.after(time.Duration(day)*24*time.Hour+w.between(18*time.Hour+56*time.Minute, 18*time.Hour+58*time.Minute), func() { w.move(simRefs[0]) })
	}
	w.often(15, func() {
		versions := []int{1, 2, 3, 4}
		w.rng.Shuffle(4, func(i, j int) { versions[i], versions[j] = versions[j], versions[i] })
		w.setTags(versions[:1+w.rng.IntN(3)]...)
		if ref := w.tagsOf[simTags][0]; w.rng.IntN(3) == 0 {
			w.move(ref)
		}
	})
	w.often(4, func() {
		w.damaged = w.tagsOf[simTags][0]
		w.after(w.between(10*time.Minute, 4*time.Hour), func() { w.damaged = "" })
	})
	w.often(6, func() {
		w.failing = []string{"connection refused", "503 service unavailable", "429 too many requests", "the digest is another one"}[w.rng.IntN(4)]
		if w.failing[0] == '4' {
			w.wait = w.between(time.Minute, 30*time.Minute)
		}
		if w.rng.IntN(2) == 0 {
			w.source = w.failing
		}
		w.after(w.between(10*time.Minute, 4*time.Hour), func() { w.failing, w.wait, w.source = "", 0, "" })
	})
}

// controllerFaults kills the controller and what it needs on its machine: list commands, the clock, room for the state, its list.
func (w *world) controllerFaults() {
	w.often(4, func() {
		w.command = []string{"fails", "empty"}[w.rng.IntN(2)]
		w.after(w.between(time.Minute, 3*time.Hour), func() { w.command = "" })
	})
	w.often(5, func() {
		w.full, w.filled = "no space left on device", w.now
		w.after(w.between(time.Minute, 3*time.Hour), func() { w.full, w.filled = "", w.now })
	})
	w.often(4, func() { w.wall, w.jumped = w.wall.Add(w.between(-3*time.Hour, 3*time.Hour)), w.now })
	w.often(10, func() {
		if w.m != nil {
			w.kill()
			withState := w.rng.IntN(3) > 0
			w.after(w.between(time.Second, 10*time.Minute), func() { w.start(withState) })
		}
	})
	w.often(6, w.reload)
}

func (w *world) flap(n *simNode, until time.Duration) {
	n.flapping = w.now < until
	if !n.flapping {
		n.rise(w, false)
		return
	}
	if n.up {
		n.down(w)
	} else {
		n.rise(w, w.rng.IntN(2) == 0)
	}
	w.after(w.between(time.Minute, 9*time.Minute), func() { w.flap(n, until) })
}

// reload gives the controller another list, with an image more or less, or a wrong one.
func (w *world) reload() {
	if w.m == nil {
		return
	}
	if w.rng.IntN(3) == 0 {
		w.step(EvRefused{"line 1: unknown key"})
		return
	}
	list := *w.list
	list.Images = slices.Clone(list.Images)
	tool := slices.IndexFunc(list.Images, func(i Image) bool { return i.Ref == simRefs[3] })
	if tool >= 0 && w.rng.IntN(2) == 0 {
		list.Images = slices.Delete(list.Images, tool, tool+1)
	} else if tool < 0 {
		list.Images = append(list.Images, Image{Ref: simRefs[3], Nodes: []string{"cpu", "gpu"}, Keep: 2, Min: 90})
	}
	list.Images[0].Priority = w.rng.IntN(5)
	w.list, w.changed = &list, w.now
	w.check.reloaded()
	w.step(EvList{&list})
}

func (w *world) join(name string) {
	if w.nodes[name] == nil {
		n := newSimNode(name)
		n.changed = w.now
		w.add(n, "cpu")
	}
}
