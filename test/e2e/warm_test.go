package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

var warmKills = flag.Int("warm.kills", 1, "moments of a push at which TestWarm kills the controller")

// warmRig is a registry with images, nodes, and a controller that keeps them there.
type warmRig struct {
	*rig
	g          *registry
	list       string // its file
	state      string
	socket     string
	controller *netns.Process
	begun      time.Time
	lives      int // of controllers
}

var smallImage = testimage.Options{Layers: 2, Size: 200_000}

const (
	warmEvery = 10 * time.Second
	warmHead  = `[defaults]
every = "10s"
catch-up = "5s"
retry = "1s..2s"
keys = %q
state = %q
socket = %q
[nodes.all]
command = "cat %s"
`
)

// writeList writes the list, with all images of the registry for all nodes.
func (w *warmRig) writeList(head string, images ...string) {
	w.t.Helper()
	nodes := filepath.Join(w.dir, "nodes")
	text := head + fmt.Sprintf(warmHead, w.keys, w.state, w.socket, nodes)
	for _, i := range images {
		text += fmt.Sprintf("[[image]]\nref = %q\nnodes = [\"all\"]\nkeep = 2\nauthfile = %q\n", w.ref(i), w.g.auth)
	}
	err := os.WriteFile(nodes, []byte(strings.ReplaceAll(w.rig.list(), ",", "\n")), 0o600)
	if err == nil {
		err = os.WriteFile(w.list, []byte(text), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// ref is the image of a repository in the list.
func (w *warmRig) ref(repository string) string {
	return "docker://" + w.g.addr() + "/lab/" + repository + ":1"
}

// begin starts a controller, by a program that starts it if there are words.
func (w *warmRig) begin(by ...string) {
	w.t.Helper()
	conf := filepath.Join(w.dir, "registries.conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", w.g.addr()), 0o600)
	if err == nil {
		words := append(append([]string{"CONTAINERS_REGISTRIES_CONF=" + conf}, by...), binary, "warm", "--config", w.list, "--cache", w.g.serverCache())
		w.controller, err = netns.Start(w.net.Server.Command(w.ctx, "env", words...))
	}
	if err == nil {
		_, err = w.controller.Line(w.ctx, "msg=starting")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.lives++
}

// fill makes an image of a version, and moves the tag 1 of a repository to it.
func (w *warmRig) fill(repository string, version int, o testimage.Options) digest.Digest {
	w.t.Helper()
	layout := w.layout(repository, version)
	o.Version = version
	if _, err := testimage.Layout(layout, "1", o); err != nil {
		w.t.Fatal(err)
	}
	w.g.fill(layout, "lab/"+repository+":1")
	_, d := manifest(w.t, layout, "1", "amd64")
	return d
}

func (w *warmRig) layout(repository string, version int) string {
	return filepath.Join(w.dir, fmt.Sprintf("%s-%d", repository, version))
}

// warm waits until all nodes say that they are warm for these digests.
func (w *warmRig) warm(what string, limit time.Duration, want map[string]digest.Digest) {
	w.t.Helper()
	begun := time.Now()
	args := []string{"status", "--keys", w.keys, "--nodes", w.rig.list(), "--wait", "--timeout", limit.String()}
	for repository, d := range want {
		args = append(args, w.g.addr()+"/lab/"+repository+":1@"+d.String())
	}
	code, out := w.run(w.net.Server, args...)
	if code != 0 {
		w.t.Fatalf("%s: not warm in %v: %d\n%s\nthe controller:\n%s", what, limit, code, out, w.controller.Output())
	}
	w.t.Logf("%v: %s: warm after %v", time.Since(w.begun).Round(time.Second/10), what, time.Since(begun).Round(time.Second/10))
}

// said waits until the status, of the list's nodes, has all these texts.
func (w *warmRig) said(texts ...string) {
	w.t.Helper()
	eventually(w.t, time.Minute, "the status", func() (bool, string) {
		_, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket)
		for _, text := range texts {
			if !strings.Contains(out, text) {
				return false, fmt.Sprintf("no %q in\n%s", text, out)
			}
		}
		return true, ""
	})
}

// accepted counts the transfers of a repository's image, or of all, that daemons have accepted.
func accepted(nodes []*node, repository string) (n int) {
	for _, node := range nodes {
		for line := range strings.Lines(node.daemon.Output()) {
			if strings.Contains(line, "msg=accepted") && strings.Contains(line, "/lab/"+repository) {
				n++
			}
		}
	}
	return n
}

// wipe stops nodes, removes their caches and starts them.
func (w *warmRig) wipe(nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		n.kill()
		if err := os.RemoveAll(n.cache); err != nil {
			w.t.Fatal(err)
		}
		n.start()
	}
}

// A controller keeps three images of a registry on 12 nodes, whatever happens to the tags, the nodes, the registry, its list and itself.
func TestWarm(t *testing.T) {
	together(t)
	ctx := need(t, 5*time.Minute+time.Duration(*warmKills)*30*time.Second, "docker-registry", "skopeo")
	r := newRig(t, ctx, netns.Config{Nodes: 13})
	w := &warmRig{rig: r, g: newRegistry(r), list: filepath.Join(r.dir, "warm.toml"), state: filepath.Join(r.dir, "state"),
		socket: filepath.Join(r.dir, "w.sock"), begun: time.Now()}
	r.start()
	want := map[string]digest.Digest{} // by repository
	for i, name := range []string{"a", "b", "c"} {
		want[name] = w.fill(name, i+1, smallImage)
	}
	w.writeList("", "a", "b", "c")
	w.begin()
	w.warm("three images", time.Minute, want)

	w.askedOnce("a-1", "b-2", "c-3")
	w.killed(want)
	w.unsaved(want)
	w.sameAsCaches("the controller has ended")
	w.without(want)
	w.controller.Signal(syscall.SIGTERM)
	if code, err := w.controller.Wait(ctx); code != 0 || err != nil {
		t.Errorf("ended with %d, %v\n%s", code, err, w.controller.Output())
	}
}

// unsaved has a controller begin without a state and without room for one, which it says. It finds out by asking that all is warm, and pushes
// nothing. When it has ended, one node is wiped, one has lost an image and one a blob.
func (w *warmRig) unsaved(want map[string]digest.Digest) {
	w.t.Helper()
	before := accepted(w.nodes, "")
	w.net.Server.Mounts = []netns.Mount{netns.Tmpfs(w.state, 4096)}
	w.begin("sh", "-c", `head -c 4096 /dev/zero >"$0/fill"; exec "$@"`, w.state)
	w.net.Server.Mounts = nil
	w.said("the controller cannot keep its state since ", "no space left on device", "a:1  ", "b:1  ", "c:1  ")
	w.warm("a state directory without room", time.Minute, want)
	if now := accepted(w.nodes, ""); now != before {
		w.t.Errorf("%d transfers to nodes that had everything\n%s", now-before, w.controller.Output())
	}
	w.controller.Kill()
	w.wipe(w.nodes[0])
	if code, out := w.run(w.nodes[11].Host, "cache", "rm", "--cache", w.nodes[11].cache, w.g.addr()+"/lab/a:1"); code != 0 {
		w.t.Errorf("cache rm: %d: %s", code, out)
	}
	m, _ := manifest(w.t, w.layout("a", 10), "1", "amd64")
	if err := os.Remove(filepath.Join(w.nodes[5].cache, "blobs", "sha256", m.Layers[2].Digest.Encoded())); err != nil {
		w.t.Error(err)
	}
}

// refused has the controller read a wrong list, and a list of nodes that is empty. The status says both.
func (w *warmRig) refused() {
	w.t.Helper()
	w.writeList("rubbish = 1\n", "a")
	w.controller.Signal(syscall.SIGHUP)
	if _, err := w.controller.Line(w.ctx, "the list is refused"); err != nil {
		w.t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "nodes"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.controller.Line(w.ctx, "of=all"); err != nil { // the command has printed no node
		w.t.Error(err)
	}
	w.said("the list is refused since ", `line 1: unknown key "rubbish"`, "nodes.all: the list of 12 nodes is stale since ", "a:1  ", "b:1  ", "c:1  ")
}
