package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/testimage"
)

// askedOnce demands that the registry was asked for nothing but these versions of repositories, each layer once for all nodes: that of an image that is new
// at another moment not at all, if it is a layer of an earlier one, too. Manifest and config are asked for by the lookup and by the ring. A tag is
// asked for its digest, and only every so often.
func (w *warmRig) askedOnce(versions ...string) {
	w.t.Helper()
	most, layers, heads := map[string]int{}, map[digest.Digest]int{}, map[string]int{}
	for _, v := range versions {
		repository, number, _ := strings.Cut(v, "-")
		version, _ := strconv.Atoi(number)
		m, d := manifest(w.t, w.layout(repository, version), "1", "amd64")
		path := "lab/" + repository
		most[path+"/manifests/"+w.index(repository, version).String()] = 1
		most[path+"/manifests/"+d.String()] = 2
		most[path+"/blobs/"+m.Config.Digest.String()] = 2
		for _, l := range m.Layers {
			most[path+"/blobs/"+l.Digest.String()] = 1
			layers[l.Digest] = 0
		}
	}
	for _, r := range w.g.requests() {
		switch {
		case r.agent != "dolly-img" || r.path == "":
		case r.method == "HEAD":
			heads[r.path]++
		default:
			most[r.path]--
			_, d, _ := strings.Cut(r.path, "/blobs/")
			if _, is := layers[digest.Digest(d)]; is {
				layers[digest.Digest(d)]++
			}
		}
	}
	for path, left := range most {
		if left < 0 {
			w.t.Errorf("the registry was asked %d times too often for %s", -left, path)
		}
	}
	for d, n := range layers {
		if n < 1 || n > 2 { // Two rings may begin at the same moment.
			w.t.Errorf("the registry was asked %d times for layer %s", n, d)
		}
	}
	least, limit := int(time.Since(w.begun)/warmEvery)/2, w.lives+int(time.Since(w.begun)/(warmEvery*9/10))
	for _, repository := range []string{"a", "b", "c"} {
		if n := heads["lab/"+repository+"/manifests/1"]; n < max(1, least) || n > limit {
			w.t.Errorf("the registry was asked %d times for the tag of %s, want between %d and %d", n, repository, least, limit)
		}
	}
	if len(heads) != 3 {
		w.t.Errorf("the registry was asked for %v", slices.Collect(maps.Keys(heads)))
	}
}

// index is the digest of the list of platforms that a version of a repository has.
func (w *warmRig) index(repository string, version int) digest.Digest {
	w.t.Helper()
	var top struct {
		Manifests []struct{ Digest digest.Digest }
	}
	text, err := os.ReadFile(w.layout(repository, version) + "/index.json")
	if err == nil {
		err = json.Unmarshal(text, &top)
	}
	if err != nil || len(top.Manifests) != 1 {
		w.t.Fatalf("%v: %s", err, text)
	}
	return top.Manifests[0].Digest
}

// refusals counts the connections that the registry's host has refused.
func (g *registry) refusals() (n int) {
	g.rig.t.Helper()
	err := g.host.Inside(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if words[0] != "Tcp:" {
				continue
			}
			if names == nil {
				names = words
				continue
			}
			n, err = strconv.Atoi(words[slices.Index(names, "OutRsts")])
			return err
		}
		return fmt.Errorf("no TCP in %s", text)
	})
	if err != nil {
		g.rig.t.Fatal(err)
	}
	return n
}

// without goes on without the registry, while three nodes lack something. They are warm again, nothing is evicted, and the registry is not asked all the time.
// When it is back, and a tag has moved meanwhile, all are warm for that.
func (w *warmRig) without(want map[string]digest.Digest) {
	w.t.Helper()
	w.g.process.Kill()
	before, begun := w.g.refusals(), time.Now()
	w.begin()
	w.warm("three nodes lack something, and the registry is away", time.Minute, want)
	for repository := range want {
		if _, err := w.controller.Line(w.ctx, "msg=lookup of="+w.ref(repository)); err != nil {
			w.t.Error(err)
		}
	}
	const stale = "stale since "
	w.said(stale)
	_, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket)
	if n := strings.Count(out, "the registry is not there: the connection is refused"); n != 3 || strings.Count(out, "12 of 12 warm") != 3 {
		w.t.Errorf("%d of 3 images are stale\n%s", n, out)
	}
	w.unevicted(w.nodes[7])
	w.sameAsCaches("the registry is away")

	tried, lookups, took := w.g.refusals()-before, strings.Count(w.controller.Output(), "msg=lookup "), time.Since(begun)
	// Each of three images after 1, 2 and 4 seconds, and then every 5.
	if most := 3 * (4 + int(took/(5*time.Second))); tried == 0 || lookups > most || tried > 4*most {
		w.t.Errorf("the registry was away for %v: %d lookups, at most %d, with %d connections", took, lookups, most, tried)
	}
	w.t.Logf("the registry was away for %v: %d lookups, %d connections", took.Round(time.Second/10), lookups, tried)
	w.g.start()
	want["c"] = w.fill("c", 30, testimage.Options{Layers: 1, Size: 100_000})
	w.warm("the registry is back", time.Minute, want)
	if _, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket); strings.Contains(out, "c:1  ") && strings.Contains(strings.Split(out, "c:1  ")[1], stale) {
		w.t.Errorf("the registry is back\n%s", out)
	}
}

// unevicted demands that a node without room refuses what somebody pushes, and keeps what the controller wants.
func (w *warmRig) unevicted(n *node) {
	w.t.Helper()
	policy := fmt.Sprintf(openPolicy, w.data)
	_, out := w.run(w.net.Server, "status", "--keys", w.keys, "--nodes", n.name(), "--json")
	var said struct{ Wanted int64 }
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"node":`) {
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	n.reload(policy + fmt.Sprintf("[cache]\nmax = \"%d\"\n", said.Wanted+50_000))
	other := w.layout("other", 40)
	if _, err := testimage.Layout(other, "1", testimage.Options{Layers: 1, Size: 100_000, Version: 40}); err != nil {
		w.t.Fatal(err)
	}
	code, out := w.run(w.net.Server, "push", "oci:"+other, "--name", "lab/other:1", "--platform", "linux/amd64", "--keys", w.keys, "--nodes", n.name(), "--cache", w.g.serverCache())
	if code != 4 || !strings.Contains(out, "needs") {
		w.t.Errorf("a push to a node with %d bytes that are wanted, and room for 50000: %d\n%s", said.Wanted, code, out)
	}
	n.reload(policy)
}

// reload gives a running daemon another policy.
func (n *node) reload(policy string) {
	n.rig.t.Helper()
	n.setPolicy(policy)
	before := strings.Count(n.daemon.Output(), `msg="reloaded`)
	n.daemon.Signal(syscall.SIGHUP)
	eventually(n.rig.t, 10*time.Second, n.Name+" has read its policy", func() (bool, string) {
		out := n.daemon.Output()
		return strings.Count(out, `msg="reloaded`) > before, out
	})
}

// entry is what a node's own cache says of an image.
type entry struct {
	Ref, Digest, Error string
	Wanted             []string
}

// sameAsCaches compares what the status says of every node with what the node's own cache says: of each name, and of each digest that has none. The two
// are not of one moment, so it asks again where a controller that runs has just changed something.
func (w *warmRig) sameAsCaches(what string) {
	w.t.Helper()
	eventually(w.t, time.Minute, what, func() (bool, string) {
		differ := w.differ()
		return differ == "", differ
	})
}

// differ returns in what the two differ.
func (w *warmRig) differ() (text string) {
	w.t.Helper()
	has, nameless := map[string][]string{}, map[string]bool{}
	for _, n := range w.nodes {
		_, out := w.run(n.Host, "cache", "ls", "--json", "--cache", n.cache)
		for line := range strings.Lines(out) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				w.t.Fatalf("%s: %v", out, err)
			}
			if e.Ref == "" {
				nameless[e.Digest] = true
			}
			has[n.name()] = append(has[n.name()], fmt.Sprint(e.Ref, " ", e.Digest, " ", e.Error == "", " ", e.Wanted))
		}
	}
	said := w.statusOf()
	if len(nameless) > 0 {
		for n, rows := range w.statusOf(slices.Collect(maps.Keys(nameless))...) {
			for _, row := range rows { // A digest that has a name there is asked for by that already.
				if !slices.ContainsFunc(said[n], func(named string) bool { return strings.HasSuffix(named, row) }) {
					said[n] = append(said[n], row)
				}
			}
		}
	}
	for _, n := range w.nodes {
		want, got := has[n.name()], said[n.name()]
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			text += fmt.Sprintf("\nof %s the status says\n%s\nand its cache has\n%s", n.name(), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	return text
}

// statusOf returns what the status says, of all names or of digests, by node and as differ writes it.
func (w *warmRig) statusOf(digests ...string) map[string][]string {
	w.t.Helper()
	_, out := w.run(w.net.Server, append([]string{"status", "--keys", w.keys, "--nodes", w.rig.list(), "--socket", w.socket, "--json"}, digests...)...)
	said := map[string][]string{}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, `{"image":`) {
			continue
		}
		var i struct {
			Image, Digest string
			Nodes         []struct {
				Node, State, Named string
				Owners             []string
			}
		}
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			w.t.Fatal(err)
		}
		for _, n := range i.Nodes {
			leads := n.Named
			if i.Image == "" && (n.State == "warm" || n.State == "partly") {
				leads = i.Digest
			}
			state := "missing"
			switch {
			case leads == i.Digest && n.State != "partly":
				state = "warm"
			case leads == i.Digest:
				state = "partly"
			case leads != "":
				state = "behind"
			}
			if n.State != state {
				w.t.Errorf("the status calls %s %s of %s %s, and it has %q", n.Node, n.State, i.Image, i.Digest, leads)
			}
			if leads != "" {
				said[n.Node] = append(said[n.Node], fmt.Sprint(i.Image, " ", leads, " ", n.State != "partly", " ", n.Owners))
			}
		}
	}
	return said
}
