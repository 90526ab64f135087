package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

// printedConfig writes what --print-config prints for a runtime of n to a file, and returns its path.
func printedConfig(r *rig, n *node, runtime, name string) string {
	r.t.Helper()
	code, out := r.run(n.Host, "daemon", "--print-config", runtime, "--cache", n.cache)
	if code != 0 {
		r.t.Fatalf("print-config %s: %d: %s", runtime, code, out)
	}
	path := filepath.Join(r.dir, name)
	r.mkdir(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// podmanOf is podman on a node, with storage of its own and configured for the node's mirror.
type podmanOf struct {
	r     *rig
	n     *node
	conf  string
	short string // a directory with a short path, as podman takes 50 characters
}

func newPodman(r *rig, n *node) *podmanOf {
	r.t.Helper()
	conf := printedConfig(r, n, "podman", "podman/registries.conf")
	short, err := os.MkdirTemp("", "dimg-")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { os.RemoveAll(short) })
	return &podmanOf{r, n, conf, short}
}

func (p *podmanOf) run(args ...string) string {
	p.r.t.Helper()
	args = append([]string{"CONTAINERS_REGISTRIES_CONF=" + p.conf, "podman", "--root", p.short + "/root",
		"--runroot", p.short + "/run", "--tmpdir", p.short + "/tmp",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}, args...)
	return p.r.ended(p.r.beside(p.n.Host, "env", args...), nil, "env", args)
}

// readsCache: a node's cache is a layout that podman reads as it lies on disk. What it then has is the image that was
// pushed.
func (p *podmanOf) readsCache(t *testing.T, ref string, want digest.Digest) {
	layout := p.short + "/cache" // podman makes a name of the path, which has to be in lower case
	if err := os.Symlink(p.n.cache, layout); err != nil {
		t.Fatal(err)
	}
	p.run("rmi", "--all", "--force")
	id := strings.TrimSpace(p.run("pull", "-q", "oci:"+layout+":"+ref))
	if got := strings.TrimSpace(p.run("image", "inspect", "--format", "{{.Digest}}", id)); got != want.String() {
		t.Errorf("podman pulled %s, want %s", got, want)
	}
	out := p.run("run", "--rm", "--pull", "never", "--runtime", "runc", "--network", "none", "--ulimit", "nofile=1024:1024",
		"--ulimit", "nproc=4096:4096", id, "/bin/echo", "it", "runs")
	if !strings.Contains(out, "it runs") {
		t.Errorf("podman run: %s", out)
	}
}

// containerdOf is a containerd that runs on a node.
type containerdOf struct {
	r        *rig
	n        *node
	socket   string
	hostsDir string // what --print-config printed is below it
}

func newContainerd(r *rig, n *node) *containerdOf {
	r.t.Helper()
	hosts := printedConfig(r, n, "containerd", "hosts/_default/hosts.toml")
	base := filepath.Join(r.dir, "ctd")
	r.mkdir(base)
	toml := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, base+"/root", base+"/state", base+"/c.sock", base+"/t.sock")
	if err := os.WriteFile(base+"/config.toml", []byte(toml), 0o600); err != nil {
		r.t.Fatal(err)
	}
	p := r.beside(n.Host, "containerd", "-c", base+"/config.toml")
	r.t.Cleanup(func() { p.Kill() })
	if _, err := p.Line(r.ctx, "containerd successfully booted"); err != nil {
		r.t.Fatal(err)
	}
	return &containerdOf{r, n, base + "/c.sock", filepath.Dir(filepath.Dir(hosts))}
}

// run runs ctr.
func (c *containerdOf) run(args ...string) string {
	c.r.t.Helper()
	args = append([]string{"-a", c.socket}, args...)
	return c.r.ended(c.r.beside(c.n.Host, "ctr", args...), nil, "ctr", args)
}

// Every runtime starts the image from its node's mirror, configured with what --print-config
// prints, when nobody can reach the registry any more. Before, with the same configuration, it got
// one from there that the mirror does not have.
func TestRuntimesUseTheMirror(t *testing.T) {
	ctx := need(t, 3*time.Minute, "docker-registry", "skopeo", "podman", "containerd", "ctr", "runc", busybox)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	g := newRegistry(r)
	n := r.nodes[0]
	n.args = []string{"--mirror", "127.0.0.1:5050"}
	r.start()
	l1, _ := makeImages(r)
	g.fill(l1, "lab/app:v1")
	g.fill(l1, "lab/other:v1")
	r.want(r.push(g.image("lab/app:v1")...), 0, "committed")
	_, want := manifest(t, l1, "v1", "amd64")
	ref, other := g.addr()+"/lab/app:v1", g.addr()+"/lab/other:v1"

	podman := newPodman(r, n)
	ctr := newContainerd(r, n)
	hostsDir := ctr.hostsDir

	// What the mirror does not have, the registry still gives.
	podman.run("pull", "-q", "--authfile", g.auth, "--cert-dir", g.certs, other)
	ctr.run("image", "pull", "--snapshotter", "native", "--hosts-dir", hostsDir,
		"--user", registryUser+":"+registryPassword, "--tlscacert", filepath.Join(g.certs, "ca.crt"), other)
	podman.run("rmi", other) // or the layers need not come from the mirror
	ctr.run("image", "rm", "--sync", other)
	g.process.Kill()

	t.Run("podman", func(t *testing.T) {
		podman.run("pull", "-q", ref)
		out := podman.run("run", "--rm", "--runtime", "runc", "--network", "none", "--ulimit", "nofile=1024:1024",
			"--ulimit", "nproc=4096:4096", ref, "/bin/echo", "it", "runs")
		if !strings.Contains(out, "it runs") {
			t.Errorf("podman run: %s", out)
		}
	})

	t.Run("podman, without the mirror", func(t *testing.T) { podman.readsCache(t, ref, want) })

	t.Run("containerd", func(t *testing.T) {
		ctr.run("image", "pull", "--snapshotter", "native", "--hosts-dir", hostsDir, ref)
		out := ctr.run("run", "--snapshotter", "native", "--rm", ref, "test", "/bin/echo", "it", "runs")
		if !strings.Contains(out, "it runs") {
			t.Errorf("ctr run: %s", out)
		}
	})

	t.Run("skopeo", func(t *testing.T) {
		// Configured, it finds the mirror by itself; without, it is named, with _ for the colon.
		conf := printedConfig(r, n, "podman", "skopeo/registries.conf")
		if got := digest.FromString(r.on(n.Host, "skopeo", "--registries-conf", conf, "inspect", "--raw", "docker://"+ref)); got != want {
			t.Errorf("skopeo, configured: %s, want %s", got, want)
		}
		path := strings.Replace(g.addr(), ":", "_", 1)
		raw := r.on(n.Host, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://127.0.0.1:5050/"+path+"/lab/app:v1")
		if !strings.Contains(raw, "manifest.v1+json") {
			t.Errorf("skopeo: %s, want %s", raw, want)
		}
		to := filepath.Join(r.dir, "from-mirror")
		r.on(n.Host, "skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false",
			"docker://127.0.0.1:5050/"+path+"/lab/app:v1", "oci:"+to+":v1")
	})
}

// The specification's own program finds no fault in what the mirror serves. Its exit status is wrong both
// ways, so that its lines count.
func TestMirrorConforms(t *testing.T) {
	ctx := need(t, 2*time.Minute, "skopeo")
	r := newRig(t, ctx, netns.Config{Nodes: 1})
	n := r.nodes[0]
	n.args = []string{"--mirror", "127.0.0.1:5050"}
	r.start()
	layout := filepath.Join(r.dir, "layout")
	if _, err := testimage.Layout(layout, "v1", testimage.Options{Layers: 2, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	m, d := manifest(t, layout, "v1", "amd64")
	const repo = "registry.example/lab/app"
	r.want(r.push("push", "oci:"+layout+":v1", "--name", repo+":v1", "--platform", "linux/amd64"), 0, "committed")
	r.want(r.push("push", "oci:"+layout+":v1", "--name", repo+":all", "--all-platforms"), 0, "committed")
	blobs := []string{m.Config.Digest.String()}
	for _, l := range m.Layers {
		blobs = append(blobs, l.Digest.String())
	}
	args := []string{
		"OCI_RESULTS_DIR=" + filepath.Join(r.dir, "results"), "OCI_REGISTRY=127.0.0.1:5050", "OCI_TLS=disabled",
		"OCI_REPO1=" + repo, "OCI_REPO2=lab/none", "OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false",
		"OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false", "OCI_RO_DATA_TAGS=v1 all",
		"OCI_RO_DATA_MANIFESTS=" + d.String(), "OCI_RO_DATA_REFERRERS=" + d.String(), "OCI_RO_DATA_BLOBS=" + strings.Join(blobs, " "),
		conformance,
	}
	p, err := netns.Start(n.Command(ctx, "env", args...))
	if err == nil {
		_, err = p.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	passed, out := 0, p.Output()
	for line := range strings.Lines(out) {
		what, verdict, ok := strings.Cut(strings.TrimSpace(line), "..: ")
		switch {
		case !ok:
		case strings.TrimSpace(verdict) == "Pass":
			passed++
		case strings.TrimSpace(verdict) == "FAIL" || strings.TrimSpace(verdict) == "Error":
			t.Errorf("%s: %s", what, verdict)
		}
	}
	if passed < 11 { // tags, blobs, manifests, referrers, ping
		t.Errorf("only %d parts passed:\n%s", passed, out)
	}
}
