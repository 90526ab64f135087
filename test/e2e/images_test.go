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
	together(t)
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

	keepNothing(r, g, total)
	healRotten(r, g, m1.Layers[2], d1)
	pushAllPlatforms(r, g, l1)
	refuseLogins(r, g)
	loginByFile(r, g)
}

// keepNothing: nothing of a registry's image is kept on the server if the user asks for that.
func keepNothing(r *rig, g *registry, total int64) {
	r.t.Helper()
	none := filepath.Join(r.dir, "no-cache")
	before := diskUse(r.t, r.dir)
	res := r.push(append(g.image("lab/app:v1"), "--no-cache", "--cache", none, "--verify-only")...)
	r.want(res, 0, "committed")
	if grown := diskUse(r.t, r.dir) - before; grown > total/100 {
		r.t.Errorf("%d bytes more on the disk after a push that keeps nothing", grown)
	}
}

// healRotten: a layer that rotted on one node is found, and only that node gets it again.
func healRotten(r *rig, g *registry, layer v1.Descriptor, root digest.Digest) {
	r.t.Helper()
	rot(r.t, r.nodes[1], layer.Digest)
	if code, out := r.run(r.nodes[1].Host, "cache", "verify", "--cache", r.nodes[1].cache); code != 1 || !strings.Contains(out, "quarantine") {
		r.t.Errorf("verify: %d: %s", code, out)
	}
	res := r.push(g.image("lab/app:v1")...)
	if res.code != 0 || res.report.Nodes[1].Bytes != layer.Size || res.report.Nodes[0].Bytes != 0 {
		r.t.Errorf("exit %d, received %d and %d: %s", res.code, res.report.Nodes[1].Bytes, res.report.Nodes[0].Bytes, res.output)
	}
	checkHeld(r, r.nodes[1], g.addr()+"/lab/app:v1", root)
}

// pushAllPlatforms pushes every platform of the image in a layout, under a name of its own.
func pushAllPlatforms(r *rig, g *registry, layout string) {
	r.t.Helper()
	res := r.push(append(g.image("lab/app:v1"), "--all-platforms", "--name", "lab.example/all:1")...)
	r.want(res, 0, "committed")
	raw := r.on(r.nodes[2].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[2].cache+":lab.example/all:1")
	if want := r.on(r.net.Server, "skopeo", "inspect", "--raw", "oci:"+layout+":v1"); raw != want {
		r.t.Errorf("the index is %s, want %s", raw, want)
	}
}

// refuseLogins: bad logins and names are said in one line, and never the password.
func refuseLogins(r *rig, g *registry) {
	r.t.Helper()
	bad := filepath.Join(r.dir, "bad.json")
	if err := os.WriteFile(bad, authFile(g.addr(), registryUser, "wrong-pass"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	for _, c := range []struct{ what, flag, value, says string }{
		{"wrong password", "--authfile", bad, "log in with"},
		{"unknown certificate", "--cert-dir", r.dir, "--cert-dir DIR"},
		{"unknown platform", "--platform", "linux/s390x", "only for linux/amd64, linux/arm64"},
	} {
		res := r.push(append(g.image("lab/app:v2"), c.flag, c.value)...)
		if res.code != 1 || !strings.Contains(res.output, c.says) || strings.Contains(res.output, "wrong-pass") {
			r.t.Errorf("%s: exit %d: %s", c.what, res.code, res.output)
		}
	}
	res := r.push(g.image("lab/none:v2")...)
	if res.code != 1 || !strings.Contains(res.output, "manifest unknown") && !strings.Contains(res.output, "name unknown") {
		r.t.Errorf("unknown name: exit %d: %s", res.code, res.output)
	}
}

// loginByFile: a login comes from a file, but not from one that others can read.
func loginByFile(r *rig, g *registry) {
	r.t.Helper()
	creds := filepath.Join(r.dir, "creds")
	for mode, want := range map[fs.FileMode]int{0o600: 0, 0o644: 2} {
		if err := os.WriteFile(creds, []byte(registryUser+":"+registryPassword+"\n"), mode); err != nil {
			r.t.Fatal(err)
		}
		if err := os.Chmod(creds, mode); err != nil {
			r.t.Fatal(err)
		}
		res := r.push("push", "docker://"+g.addr()+"/lab/app:v2", "--creds", creds, "--cert-dir", g.certs, "--no-cache")
		if res.code != want || strings.Contains(res.output, registryPassword) {
			r.t.Errorf("creds of mode %o: exit %d: %s", mode, res.code, res.output)
		}
	}
}

// A node that dies on the way, and a push again, cost the registry nothing: the server has it.
func TestImageAfterLoss(t *testing.T) {
	together(t)
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
