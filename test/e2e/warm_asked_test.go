package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/testimage"
)

// askedOnce demands that the registry, since it began, was asked for these versions of repositories and for nothing else: for what only this version has once,
// whoever gets it, and for what others have, too, at most once by each of two rings that begin at the same moment. Manifest and config are asked for
// by the lookup and by the ring.
func (w *warmRig) askedOnce(versions ...string) {
	w.t.Helper()
	left, own, shared := map[string]int{}, []string{}, map[string]int{}
	for _, v := range versions {
		repository, number, _ := strings.Cut(v, "-")
		version, _ := strconv.Atoi(number)
		m, d := manifest(w.t, w.layout(repository, version), "1", "amd64")
		path := "lab/" + repository
		left[path+"/manifests/"+w.index(repository, version).String()] = 1
		left[path+"/manifests/"+d.String()] = 2
		left[path+"/blobs/"+m.Config.Digest.String()] = 2
		for _, l := range m.Layers {
			left[path+"/blobs/"+l.Digest.String()] = 1
		}
		own = append(own, path+"/blobs/"+m.Layers[len(m.Layers)-1].Digest.String())
	}
	for _, r := range w.g.requests() {
		if r.agent == "dolly-img" && r.path != "" && r.method != http.MethodHead {
			left[r.path]--
			if _, d, ok := strings.Cut(r.path, "/blobs/"); ok {
				shared[d]++
			}
		}
	}
	for path, n := range left {
		if n < 0 || n > 0 && slices.Contains(own, path) {
			w.t.Errorf("the registry was asked %d times too often for %s", -n, path)
		}
	}
	for d, n := range shared {
		if n > 2 {
			w.t.Errorf("the registry was asked %d times for %s", n, d)
		}
	}
}

// askedRarely demands that the registry was asked for tags, and only so often, by so many controllers since it began.
func (w *warmRig) askedRarely(since time.Time, controllers int) {
	w.t.Helper()
	heads := map[string]int{}
	for _, r := range w.g.requests() {
		if r.agent == "dolly-img" && r.method == http.MethodHead {
			heads[r.path]++
		}
	}
	rounds := int(time.Since(since) / warmEvery)
	for _, repository := range []string{"a", "b", "c"} {
		if n := heads["lab/"+repository+"/manifests/1"]; n < max(1, rounds/2) || n > controllers+rounds*10/9+1 {
			w.t.Errorf("the registry was asked %d times for the tag of %s in %d rounds", n, repository, rounds)
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
// Meanwhile its list and its nodes are lost. When the registry is back, and a tag has moved, all are warm for that, by the last good list.
func (w *warmRig) without(want map[string]digest.Digest) {
	w.t.Helper()
	w.askedRarely(w.begun, w.lives)
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
	eventually(w.t, time.Minute, "all are warm and stale", func() (bool, string) {
		_, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket)
		return strings.Count(out, "12 of 12 warm; "+stale) == 3 && strings.Count(out, "the registry is not there: the connection is refused") == 3, out
	})
	w.unevicted(w.nodes[7])
	w.sameAsCaches("the registry is away")
	w.refused()

	tried, lookups, took := w.g.refusals()-before, strings.Count(w.controller.Output(), "msg=lookup "), time.Since(begun)
	// Each of three images at once, after a second, and then every 2.
	if most := 3 * (3 + int(took/(2*time.Second))); tried == 0 || lookups > most || tried > 4*most {
		w.t.Errorf("the registry was away for %v: %d lookups, at most %d, with %d connections", took, lookups, most, tried)
	}
	w.t.Logf("the registry was away for %v: %d lookups, %d connections", took.Round(time.Second/10), lookups, tried)
	w.g.start()
	back := time.Now()
	w.wipe(w.nodes[3])
	want["c"] = w.fill("c", 30, smallImage)
	w.warm("the registry is back, and a node is wiped", time.Minute, want)
	eventually(w.t, time.Minute, "no image is stale any more", func() (bool, string) {
		_, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket)
		return !strings.Contains(out, "; "+stale), out
	})
	w.askedOnce("c-30")
	w.askedRarely(back, 1)
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
