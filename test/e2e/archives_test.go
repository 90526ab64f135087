package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

// Archives are told by their content and read where they lie; skopeo's cache is taken over.
func TestImageOfArchives(t *testing.T) {
	together(t)
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

	placeArchive(r, oci, want)
	placeLayout(r, oci, want)
	pushDockerSave(r, docker)
}

// placeArchive: an archive on the nodes is the same everywhere, and what skopeo reads; nothing moves for it.
func placeArchive(r *rig, oci string, want digest.Digest) {
	r.t.Helper()
	out := filepath.Join(r.data, "app.tar")
	res := r.push("push", oci, "--name", "lab.example/x:1", "--output", "oci-archive:"+out)
	if res.code != 0 || res.report.Nodes[0].Bytes+res.report.Nodes[1].Bytes != 0 {
		r.t.Errorf("exit %d: %s", res.code, res.output)
	}
	if a, b := sum(r.t, r.nodes[0].path("app.tar")), sum(r.t, r.nodes[1].path("app.tar")); a != b || a == "missing" {
		r.t.Errorf("archives %s and %s", a, b)
	}
	raw := r.on(r.net.Server, "skopeo", "inspect", "--raw", "oci-archive:"+r.nodes[1].path("app.tar"))
	if got := digest.FromString(raw); got != want {
		r.t.Errorf("the archive holds %s, want %s", got, want)
	}
	r.want(r.push("push", oci, "--name", "lab.example/x:1", "--output", "oci-archive:"+out), 0, "held")
}

// placeLayout: so is a directory. One that was touched is made again, and one with other things in it is left alone.
func placeLayout(r *rig, oci string, want digest.Digest) {
	r.t.Helper()
	out := filepath.Join(r.data, "app")
	layoutPush := []string{"push", oci, "--name", "lab.example/x:1", "--output", "oci:" + out}
	r.want(r.push(layoutPush...), 0, "committed")
	for _, n := range r.nodes {
		if got := digest.FromString(r.on(n.Host, "skopeo", "inspect", "--raw", "oci:"+n.path("app")+":lab.example/x:1")); got != want {
			r.t.Errorf("the layout holds %s, want %s", got, want)
		}
	}
	if a, b := r.on(r.nodes[0].Host, "diff", "-r", r.nodes[0].path("app"), r.nodes[1].path("app")), ""; a != b {
		r.t.Errorf("the layouts differ: %s", a)
	}
	r.want(r.push(layoutPush...), 0, "held")
	if err := os.Truncate(r.nodes[1].path("app/blobs/sha256/"+want.Encoded()), 3); err != nil {
		r.t.Fatal(err)
	}
	res := r.push(layoutPush...)
	if res.code != 0 || res.report.Nodes[0].State != "held" || res.report.Nodes[1].State != "committed" {
		r.t.Errorf("exit %d: %s", res.code, res.output)
	}
	if got := r.on(r.nodes[1].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[1].path("app")); digest.FromString(got) != want {
		r.t.Errorf("the layout holds %s, want %s", got, want)
	}
	if err := os.WriteFile(r.nodes[0].path("app/notes"), nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	res = r.push(layoutPush...)
	if res.code != 3 || !strings.Contains(res.output, "notes is in it") {
		r.t.Errorf("exit %d: %s", res.code, res.output)
	}
	if res := r.push("push", oci, "--output", out); res.code != 1 || !strings.Contains(res.output, "only a SIF") {
		r.t.Errorf("exit %d: %s", res.code, res.output)
	}
}

// pushDockerSave: docker save has layers that are not compressed, which makes another image with the same files.
func pushDockerSave(r *rig, docker string) {
	r.t.Helper()
	res := r.push("push", docker)
	r.want(res, 0, "committed")
	config := r.on(r.nodes[1].Host, "skopeo", "inspect", "--config", "oci:"+r.nodes[1].cache+":lab.example/app:v1")
	in := r.on(r.net.Server, "skopeo", "inspect", "--config", "docker-archive:"+docker)
	if config != in {
		r.t.Errorf("config %s, want %s", config, in)
	}
	// Not copied: skopeo would compress the layers.
	raw := r.on(r.nodes[1].Host, "skopeo", "inspect", "--raw", "oci:"+r.nodes[1].cache+":lab.example/app:v1")
	if got := digest.FromString(raw); got != digest.Digest(res.report.Digest) {
		r.t.Errorf("the cache has %s, want %s", got, res.report.Digest)
	}
}
