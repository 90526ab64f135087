package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

var imageSize = flag.Int64("image.size", 200<<20, "bytes of the image that TestImageOfRegistry pushes")

// makeImages makes the layouts of two versions of an image: five layers, two platforms, the
// last layer another one.
func makeImages(r *rig) (v1, v2 string) {
	r.t.Helper()
	var dirs []string
	for version := 1; version <= 2; version++ {
		dir := filepath.Join(r.dir, fmt.Sprintf("layout-v%d", version))
		_, err := testimage.Layout(dir, fmt.Sprintf("v%d", version), testimage.Options{
			Busybox: busybox, Layers: 4, Size: *imageSize, Version: version, Zstd: true,
		})
		if err != nil {
			r.t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs[0], dirs[1]
}

// manifest is what a layout has for a platform, and its digest.
func manifest(t *testing.T, dir, ref, arch string) (m v1.Manifest, d digest.Digest) {
	t.Helper()
	read := func(name string, v any) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	var top, index v1.Index
	read("index.json", &top)
	for _, e := range top.Manifests {
		if e.Annotations[v1.AnnotationRefName] != ref {
			continue
		}
		read(blob(e.Digest), &index)
		for _, p := range index.Manifests {
			if p.Platform.Architecture == arch {
				read(blob(p.Digest), &m)
				return m, p.Digest
			}
		}
	}
	t.Fatalf("%s: no %s for %s", dir, ref, arch)
	return
}

// A registry's image is asked for once, whatever the number of nodes; what nodes hold does not
// move; and what is on them is what skopeo finds in the registry.
func TestImageOfRegistry(t *testing.T) {
	ctx := need(t, 3*time.Minute+time.Duration(*imageSize/(10<<20))*time.Second, "docker-registry", "skopeo", busybox)
	r := newRig(t, ctx, netns.Config{Nodes: 5})
	g := newRegistry(r)
	r.start()
	l1, l2 := makeImages(r)
	g.fill(l1, "lab/app:v1")
	g.fill(l2, "lab/app:v2")
	m1, d1 := manifest(t, l1, "v1", "amd64")
	m2, d2 := manifest(t, l2, "v2", "amd64")

	res := r.push(g.image("lab/app:v1")...)
	r.want(res, 0, "committed")
	total := res.report.Bytes
	ref := g.addr() + "/lab/app:v1"
	for _, n := range r.nodes {
		checkHeld(r, n, ref, d1)
		// A blob is stored once.
		if used := diskUse(t, n.cache); used > total*102/100 {
			t.Errorf("%s: the cache takes %d bytes for an image of %d", n.Name, used, total)
		}
	}
	// On the server once, too.
	if used := diskUse(t, g.serverCache()); used > total*102/100 {
		t.Errorf("the server's cache takes %d bytes for an image of %d", used, total)
	}

	res = r.push(g.image("lab/app:v1")...)
	r.want(res, 0, "held")
	if res.sent > total/1000 || res.took > time.Second+slack() {
		t.Errorf("the second push took %v and sent %d of %d bytes", res.took, res.sent, total)
	}

	// Of v2 its last layer is new, and what names it.
	res = r.push(g.image("lab/app:v2")...)
	r.want(res, 0, "committed")
	last := m2.Layers[len(m2.Layers)-1]
	info, err := os.Stat(filepath.Join(l2, "blobs/sha256", d2.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	fresh := last.Size + m2.Config.Size + info.Size()
	for _, row := range res.report.Nodes {
		if row.Bytes != fresh || row.Bytes+row.Skipped != res.report.Bytes {
			t.Errorf("%s: received %d and skipped %d bytes, want %d of %d", row.Node, row.Bytes, row.Skipped, fresh, res.report.Bytes)
		}
	}
	for d, n := range g.asked() {
		if n != 1 {
			t.Errorf("the registry was asked %d times for %s", n, d)
		}
	}
	if n := len(g.asked()); n != len(m1.Layers)+3 { // two configs, a layer of v2
		t.Errorf("the registry was asked for %d blobs", n)
	}

	// Nothing of it is kept on the server where that is asked for.
	none := filepath.Join(r.dir, "no-cache")
	before := diskUse(t, r.dir)
	res = r.push(append(g.image("lab/app:v1"), "--no-cache", "--cache", none, "--discard")...)
	r.want(res, 0, "committed")
	if grown := diskUse(t, r.dir) - before; grown > total/100 {
		t.Errorf("%d bytes more on the disk after a push that keeps nothing", grown)
	}

	// A layer that rotted on one node is found, and only that node gets it again.
	rot(t, r.nodes[1], m1.Layers[2].Digest)
	if code, out := r.run(r.nodes[1].Host, "cache", "verify", "--cache", r.nodes[1].cache); code != 1 || !strings.Contains(out, "quarantine") {
		t.Errorf("verify: %d: %s", code, out)
	}
	res = r.push(g.image("lab/app:v1")...)
	if res.code != 0 || res.report.Nodes[1].Bytes != m1.Layers[2].Size || res.report.Nodes[0].Bytes != 0 {
		t.Errorf("exit %d, received %d and %d: %s", res.code, res.report.Nodes[1].Bytes, res.report.Nodes[0].Bytes, res.output)
	}
	checkHeld(r, r.nodes[1], ref, d1)

	// Every platform, under a name of its own.
	res = r.push(append(g.image("lab/app:v1"), "--all-platforms", "--name", "lab.example/all:1")...)
	r.want(res, 0, "committed")
	raw := r.on(r.nodes[2].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[2].cache+":lab.example/all:1")
	if want := r.on(r.net.Server, "skopeo", "inspect", "--raw", "oci:"+l1+":v1"); raw != want {
		t.Errorf("the index is %s, want %s", raw, want)
	}

	// Bad logins and names: one line, and never the password.
	bad := filepath.Join(r.dir, "bad.json")
	if err := os.WriteFile(bad, authFile(g.addr(), registryUser, "wrong-pass"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, flag, value, says string }{
		{"wrong password", "--authfile", bad, "log in with"},
		{"unknown certificate", "--cert-dir", r.dir, "--cert-dir DIR"},
		{"unknown platform", "--platform", "linux/s390x", "only for linux/amd64, linux/arm64"},
	} {
		res := r.push(append(g.image("lab/app:v2"), c.flag, c.value)...)
		if res.code != 1 || !strings.Contains(res.output, c.says) || strings.Contains(res.output, "wrong-pass") {
			t.Errorf("%s: exit %d: %s", c.what, res.code, res.output)
		}
	}
	res = r.push(g.image("lab/none:v2")...)
	if res.code != 1 || !strings.Contains(res.output, "manifest unknown") && !strings.Contains(res.output, "name unknown") {
		t.Errorf("unknown name: exit %d: %s", res.code, res.output)
	}

	// A login from a file, and one that others can read.
	creds := filepath.Join(r.dir, "creds")
	for mode, want := range map[fs.FileMode]int{0o600: 0, 0o644: 2} {
		if err := os.WriteFile(creds, []byte(registryUser+":"+registryPassword+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(creds, mode); err != nil {
			t.Fatal(err)
		}
		res := r.push("push", "docker://"+g.addr()+"/lab/app:v2", "--creds", creds, "--cert-dir", g.certs, "--no-cache")
		if res.code != want || strings.Contains(res.output, registryPassword) {
			t.Errorf("creds of mode %o: exit %d: %s", mode, res.code, res.output)
		}
	}
}

// A node that dies on the way, and a push again, cost the registry nothing: the server has it.
func TestImageAfterLoss(t *testing.T) {
	ctx := need(t, 2*time.Minute, "docker-registry", "skopeo")
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	g := newRegistry(r)
	r.start()
	layout := filepath.Join(r.dir, "layout")
	if _, err := testimage.Layout(layout, "v1", testimage.Options{Layers: 4, Size: 80 << 20}); err != nil {
		t.Fatal(err)
	}
	g.fill(layout, "lab/app:v1")
	m, want := manifest(t, layout, "v1", "amd64")
	p := r.startPush(append(g.image("lab/app:v1"), "--rate", "20M", "--json")...)
	if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
		t.Fatal(err)
	}
	r.nodes[1].kill()
	r.want(p.wait(), 3, "committed", "failed", "committed")
	r.nodes[1].start()
	if res := r.push(g.image("lab/app:v1")...); res.code != 0 || res.report.Nodes[0].State != "held" {
		t.Errorf("exit %d: %s", res.code, res.output)
	}
	for _, n := range r.nodes {
		checkHeld(r, n, g.addr()+"/lab/app:v1", want)
	}
	asked := g.asked()
	for d, n := range asked {
		if n != 1 {
			t.Errorf("the registry was asked %d times for %s", n, d)
		}
	}
	if len(asked) != len(m.Layers)+1 {
		t.Errorf("the registry was asked for %d blobs", len(asked))
	}
}

// checkHeld lets skopeo read the image out of a node's cache, with every digest checked.
func checkHeld(r *rig, n *node, ref string, want digest.Digest) {
	r.t.Helper()
	to := filepath.Join(r.dir, "copy-"+n.Name)
	os.RemoveAll(to)
	r.on(n.Host, "skopeo", "copy", "-q", "--preserve-digests", "oci:"+n.cache+":"+ref, "oci:"+to+":x")
	raw := r.on(n.Host, "skopeo", "inspect", "--raw", "oci:"+to+":x")
	if got := digest.FromString(raw); got != want {
		r.t.Errorf("%s: %s is %s, want %s", n.Name, ref, got, want)
	}
	os.RemoveAll(to)
}

// rot changes a byte of a blob as a bad disk would: no time in its inode tells.
func rot(t *testing.T, n *node, d digest.Digest) {
	t.Helper()
	path := filepath.Join(n.cache, "blobs/sha256", d.Encoded())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 1000); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], 1000); err != nil {
		t.Fatal(err)
	}
}

func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Archives are told by their content and read where they lie; skopeo's cache is taken over.
func TestImageOfArchives(t *testing.T) {
	ctx := need(t, 2*time.Minute, "skopeo", "gzip", busybox)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	r.start()
	layout := filepath.Join(r.dir, "layout")
	if _, err := testimage.Layout(layout, "v1", testimage.Options{Busybox: busybox, Layers: 2, Size: 10 << 20}); err != nil {
		t.Fatal(err)
	}
	_, want := manifest(t, layout, "v1", "amd64")
	oci, docker := filepath.Join(r.dir, "oci.tar"), filepath.Join(r.dir, "docker.tar")
	r.on(r.net.Server, "skopeo", "copy", "-q", "oci:"+layout+":v1", "oci-archive:"+oci+":v1")
	r.on(r.net.Server, "skopeo", "copy", "-q", "oci:"+layout+":v1", "docker-archive:"+docker+":lab.example/app:v1")
	r.on(r.net.Server, "gzip", "-1", "-k", oci)

	// skopeo fills the cache of a node before we do: nothing is to move.
	r.on(r.nodes[0].Host, "skopeo", "copy", "-q", "oci:"+layout+":v1", "oci:"+r.nodes[0].cache+":localhost/oci:latest")
	res := r.push("push", oci)
	if res.code != 0 || res.report.Nodes[0].Bytes != 0 || res.report.Nodes[1].State != "committed" {
		t.Errorf("exit %d, received %d: %s", res.code, res.report.Nodes[0].Bytes, res.output)
	}
	for _, image := range []string{oci + ".gz", layout, "oci:" + layout + ":v1", "oci-archive:" + oci} {
		res := r.push("push", image, "--name", "lab.example/x:1")
		if res.code != 0 || res.report.Nodes[1].Bytes != 0 {
			t.Errorf("%s: exit %d, received %d: %s", image, res.code, res.report.Nodes[1].Bytes, res.output)
		}
		checkHeld(r, r.nodes[1], "lab.example/x:1", want)
	}

	// An archive on the nodes is the same everywhere, and what skopeo reads; nothing moves for it.
	out := filepath.Join(r.data, "app.tar")
	res = r.push("push", oci, "--name", "lab.example/x:1", "--output", "oci-archive:"+out)
	if res.code != 0 || res.report.Nodes[0].Bytes+res.report.Nodes[1].Bytes != 0 {
		t.Errorf("exit %d: %s", res.code, res.output)
	}
	if a, b := sum(t, r.nodes[0].path("app.tar")), sum(t, r.nodes[1].path("app.tar")); a != b || a == "missing" {
		t.Errorf("archives %s and %s", a, b)
	}
	raw := r.on(r.net.Server, "skopeo", "inspect", "--raw", "oci-archive:"+r.nodes[1].path("app.tar"))
	if got := digest.FromString(raw); got != want {
		t.Errorf("the archive holds %s, want %s", got, want)
	}
	r.want(r.push("push", oci, "--name", "lab.example/x:1", "--output", "oci-archive:"+out), 0, "held")
	// So is a directory; one that was touched is made again, one with other things in it is left alone.
	out = filepath.Join(r.data, "app")
	layoutPush := []string{"push", oci, "--name", "lab.example/x:1", "--output", "oci:" + out}
	r.want(r.push(layoutPush...), 0, "committed")
	for _, n := range r.nodes {
		if got := digest.FromString(r.on(n.Host, "skopeo", "inspect", "--raw", "oci:"+n.path("app")+":lab.example/x:1")); got != want {
			t.Errorf("the layout holds %s, want %s", got, want)
		}
	}
	if a, b := r.on(r.nodes[0].Host, "diff", "-r", r.nodes[0].path("app"), r.nodes[1].path("app")), ""; a != b {
		t.Errorf("the layouts differ: %s", a)
	}
	r.want(r.push(layoutPush...), 0, "held")
	if err := os.Truncate(r.nodes[1].path("app/blobs/sha256/"+want.Encoded()), 3); err != nil {
		t.Fatal(err)
	}
	res = r.push(layoutPush...)
	if res.code != 0 || res.report.Nodes[0].State != "held" || res.report.Nodes[1].State != "committed" {
		t.Errorf("exit %d: %s", res.code, res.output)
	}
	if got := r.on(r.nodes[1].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[1].path("app")); digest.FromString(got) != want {
		t.Errorf("the layout holds %s, want %s", got, want)
	}
	if err := os.WriteFile(r.nodes[0].path("app/notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	res = r.push(layoutPush...)
	if res.code != 3 || !strings.Contains(res.output, "notes is in it") {
		t.Errorf("exit %d: %s", res.code, res.output)
	}
	if res := r.push("push", oci, "--output", out); res.code != 1 || !strings.Contains(res.output, "only a SIF") {
		t.Errorf("exit %d: %s", res.code, res.output)
	}

	// docker save has layers that are not compressed: another image with the same files.
	res = r.push("push", docker)
	r.want(res, 0, "committed")
	config := r.on(r.nodes[1].Host, "skopeo", "inspect", "--config", "oci:"+r.nodes[1].cache+":lab.example/app:v1")
	in := r.on(r.net.Server, "skopeo", "inspect", "--config", "docker-archive:"+docker)
	if config != in {
		t.Errorf("config %s, want %s", config, in)
	}
	// Not copied: skopeo would compress the layers.
	raw = r.on(r.nodes[1].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[1].cache+":lab.example/app:v1")
	if got := digest.FromString(raw); got != digest.Digest(res.report.Digest) {
		t.Errorf("the cache has %s, want %s", got, res.report.Digest)
	}
}
