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

var warmKills = flag.Int("warm.kills", 2, "moments at which TestWarm kills the controller while it serves a tag that has moved")

// warmRig is a registry with images, nodes, and a controller that keeps them there.
type warmRig struct {
	*rig
	g          *registry
	list       string // its file
	socket     string
	controller *netns.Process
}

const warmHead = `[defaults]
every = "10s"
catch-up = "5s"
retry = "1s..5s"
keys = %q
state = %q
socket = %q
[nodes.all]
command = "cat %s"
`

// writeList writes the list, with all images of the registry for all nodes.
func (w *warmRig) writeList(head string, images ...string) {
	w.t.Helper()
	nodes := filepath.Join(w.dir, "nodes")
	text := head + fmt.Sprintf(warmHead, w.keys, filepath.Join(w.dir, "state"), w.socket, nodes)
	for _, i := range images {
		text += fmt.Sprintf("[[image]]\nref = \"docker://%s/lab/%s:1\"\nnodes = [\"all\"]\nkeep = 2\nauthfile = %q\n", w.g.addr(), i, w.g.auth)
	}
	err := os.WriteFile(nodes, []byte(strings.ReplaceAll(w.rig.list(), ",", "\n")), 0o600)
	if err == nil {
		err = os.WriteFile(w.list, []byte(text), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *warmRig) begin() {
	w.t.Helper()
	conf := filepath.Join(w.dir, "registries.conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", w.g.addr()), 0o600)
	if err == nil {
		w.controller, err = netns.Start(w.net.Server.Command(w.ctx, "env", "CONTAINERS_REGISTRIES_CONF="+conf,
			binary, "warm", "--config", w.list, "--cache", w.g.serverCache()))
	}
	if err == nil {
		_, err = w.controller.Line(w.ctx, "msg=starting")
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// fill makes an image of a version, and moves the tag 1 of a repository to it.
func (w *warmRig) fill(repository string, version int) digest.Digest {
	w.t.Helper()
	layout := filepath.Join(w.dir, fmt.Sprintf("%s-%d", repository, version))
	if _, err := testimage.Layout(layout, "1", testimage.Options{Layers: 2, Size: 200_000, Version: version}); err != nil {
		w.t.Fatal(err)
	}
	w.g.fill(layout, "lab/"+repository+":1")
	_, d := manifest(w.t, layout, "1", "amd64")
	return d
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
	w.t.Logf("%s: warm after %v", what, time.Since(begun).Round(time.Second/10))
}

// accepted counts the transfers that the daemons have accepted.
func (w *warmRig) accepted() (n int) {
	for _, node := range w.nodes {
		n += strings.Count(node.daemon.Output(), "msg=accepted")
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
	ctx := need(t, 5*time.Minute+time.Duration(*warmKills)*20*time.Second, "docker-registry", "skopeo")
	r := newRig(t, ctx, netns.Config{Nodes: 13})
	w := &warmRig{rig: r, g: newRegistry(r), list: filepath.Join(r.dir, "warm.toml"), socket: filepath.Join(r.dir, "w.sock")}
	r.start()
	want := map[string]digest.Digest{}
	for i, name := range []string{"a", "b", "c"} {
		want[name] = w.fill(name, i+1)
	}
	w.writeList("", "a", "b", "c")
	w.begin()
	w.warm("three images", time.Minute, want)

	old := want["a"]
	want["a"] = w.fill("a", 10)
	w.warm("a tag moved", time.Minute, want)
	code, out := r.run(r.net.Server, "status", "--keys", r.keys, "--nodes", r.list(), old.String())
	if code != 0 || !strings.Contains(out, "12 of 12 warm") {
		t.Errorf("the older digest: %d\n%s", code, out)
	}
	// Once each, but for configs, which the lookup reads as well, and for layers of two images that came at the same moment.
	for blob, n := range w.g.asked() {
		if n > 2 {
			t.Errorf("the registry was asked for %s %d times", blob, n)
		}
	}
	w.killed(want)

	w.g.process.Kill()
	w.wipe(r.nodes[0], r.nodes[5], r.nodes[11])
	w.warm("three nodes were wiped, and the registry is away", time.Minute, want)
	if _, err := w.controller.Line(ctx, "msg=lookup"); err != nil {
		t.Error(err)
	}
	w.refused(want)
	w.controller.Signal(syscall.SIGTERM)
	if code, err := w.controller.Wait(ctx); code != 0 || err != nil {
		t.Errorf("ended with %d, %v\n%s", code, err, w.controller.Output())
	}
}

// killed kills the controller at moments while a tag has moved, and at last when all is warm: then it pushes nothing again.
func (w *warmRig) killed(want map[string]digest.Digest) {
	w.t.Helper()
	for i := range *warmKills {
		want["b"] = w.fill("b", 20+i)
		// Any moment of a round will do: of the lookup, of the questions, of the ring.
		select {
		case <-time.After(time.Duration(i*700%10_000) * time.Millisecond):
		case <-w.ctx.Done():
		}
		w.controller.Kill()
		w.begin()
		w.warm(fmt.Sprintf("killed at moment %d", i), time.Minute, want)
	}
	w.controller.Kill()
	before := w.accepted()
	w.begin()
	eventually(w.t, time.Minute, "the controller knows that all is warm", func() (bool, string) {
		code, out := w.run(w.net.Server, "status", "--keys", w.keys, "--socket", w.socket)
		return code == 0 && !strings.Contains(out, "no controller"), out
	})
	if now := w.accepted(); now != before {
		w.t.Errorf("%d transfers to nodes that had everything\n%s", now-before, w.controller.Output())
	}
}

// refused has the controller read a wrong list, and a list of nodes that is empty. Neither changes anything.
func (w *warmRig) refused(want map[string]digest.Digest) {
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
	w.wipe(w.nodes[3])
	w.warm("a wrong list and no nodes", time.Minute, want)
}
