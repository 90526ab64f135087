package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

// What is measured of images, on four nodes and a registry with a link of 100 Mbit/s: a push beside as
// many skopeo copies from the same registry at once, and what a node's mirror serves beside nginx.
const (
	imageNodes = 4
	imageSize  = 200 << 20
	imageRate  = 100e6 // bits per second of the registry's link
	serveSize  = 1 << 30
	serveReads = 8 // at once
)

// runParts measures the parts that the options name, o.rounds times, and prints medians.
func (b *bench) runParts(ctx context.Context, w io.Writer) error {
	i := &images{bench: b, got: map[string][]float64{}}
	parts := map[string]func(context.Context) error{
		"pull": i.pull, "serve": i.serve, "layers": i.layers,
		"startup": i.startup, "nosha": i.nosha, "slowdisk": i.slowDisk, "sparse": i.sparse, "device": i.device, "tree": i.tree,
		"update": i.update, "leaves": i.leaves,
	}
	for round := range b.opts.rounds {
		for _, name := range b.opts.parts {
			if err := parts[name](ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d\n", name, round+1)
		}
	}
	fmt.Fprintf(w, "\nmedian (least-most) of %d rounds\n", b.opts.rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range i.order {
		v := i.got[name]
		fmt.Fprintf(t, "%s\t%.3f\t(%.3f-%.3f)\n", name, median(v), slices.Min(v), slices.Max(v))
	}
	return t.Flush()
}

// images are the parts that are measured, and what they gave.
type images struct {
	*bench
	got   map[string][]float64
	order []string // the names in got, in the order in which they came
}

func (i *images) add(name string, v float64) {
	if i.got[name] == nil {
		i.order = append(i.order, name)
	}
	i.got[name] = append(i.got[name], v)
}

// cluster makes a server, nodes and a registry that has the image.
func (i *images) cluster(ctx context.Context, dir string) (n *netns.Net, registry string, err error) {
	if n, err = netns.New(ctx, netns.Config{Nodes: imageNodes + 1}); err != nil {
		return nil, "", err
	}
	host := n.Nodes[imageNodes]
	n.Nodes = n.Nodes[:imageNodes]
	registry = host.Addr.String() + ":5000"
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n",
		filepath.Join(dir, "registry"), registry)
	file := filepath.Join(dir, "registry.yml")
	layout := filepath.Join(dir, "layout")
	err = os.WriteFile(file, []byte(config), 0o600)
	if err == nil {
		_, err = testimage.Layout(layout, "v1", testimage.Options{Layers: 4, Size: imageSize})
	}
	if err == nil {
		var p *netns.Process
		if p, err = netns.Start(host.Command(ctx, "docker-registry", "serve", file)); err == nil {
			err = netns.Listening(ctx, p, "tcp", 5000)
		}
	}
	if err == nil {
		err = succeed(ctx, n.Server, "skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+layout+":v1", "docker://"+registry+"/app:v1")
	}
	if err == nil {
		err = host.Shape(ctx, imageRate)
	}
	if err != nil {
		n.Close()
		return nil, "", err
	}
	return n, registry, nil
}

func succeed(ctx context.Context, h *netns.Host, program string, args ...string) error {
	p, err := netns.Start(h.Command(ctx, program, args...))
	if err != nil {
		return err
	}
	if code, err := p.Wait(ctx); err != nil || code != 0 {
		return fmt.Errorf("%s %s: %d, %v: %s", program, strings.Join(args, " "), code, err, p.Output())
	}
	return nil
}

// daemons starts a node with a mirror on each host, with keys in dir, and returns what --nodes takes.
func (i *images) daemons(ctx context.Context, n *netns.Net, dir string) (list string, all []*netns.Process, err error) {
	return daemons{binary: i.binary, args: []string{"--mirror", "127.0.0.1:5050"}}.start(ctx, n, dir)
}

// pull is a push from the registry, beside a skopeo on every node.
func (i *images) pull(ctx context.Context) error {
	dir, err := os.MkdirTemp(i.dir, "pull-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, registry, err := i.cluster(ctx, dir)
	if err != nil {
		return err
	}
	defer n.Close()
	list, _, err := i.daemons(ctx, n, dir)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := succeed(ctx, n.Server, i.binary, "push", "docker://"+registry+"/app:v1", "--tls-verify=false",
		"--keys", filepath.Join(dir, "keys"), "--nodes", list, "--cache", filepath.Join(dir, "server"), "--quiet"); err != nil {
		return err
	}
	ours := time.Since(begin).Seconds()
	begin = time.Now()
	errs := make([]error, len(n.Nodes))
	var wg sync.WaitGroup
	for k, h := range n.Nodes {
		wg.Go(func() {
			errs[k] = succeed(ctx, h, "skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+registry+"/app:v1", "oci:"+filepath.Join(dir, "skopeo-"+h.Name)+":v1")
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	theirs := time.Since(begin).Seconds()
	i.add("push, seconds", ours)
	i.add("four skopeo copies, seconds", theirs)
	i.add("push to four skopeo copies", ours/theirs)
	return nil
}

// serve reads a large blob from a node's mirror and from nginx, in turn, and then watches the daemon's
// memory while it serves several readers and receives.
func (i *images) serve(ctx context.Context) error {
	dir, err := os.MkdirTemp(i.dir, "serve-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := netns.New(ctx, netns.Config{Nodes: 1})
	if err != nil {
		return err
	}
	defer n.Close()
	list, daemons, err := i.daemons(ctx, n, dir)
	if err != nil {
		return err
	}
	layout := filepath.Join(dir, "layout")
	if _, err := testimage.Layout(layout, "v1", testimage.Options{Layers: 1, Size: serveSize}); err != nil {
		return err
	}
	push := func(name string) error {
		return succeed(ctx, n.Server, i.binary, "push", "oci:"+layout+":v1", "--name", name, "--keys", filepath.Join(dir, "keys"), "--nodes", list, "--quiet")
	}
	if err := push("reg.example/app:v1"); err != nil {
		return err
	}
	blob, err := largest(filepath.Join(dir, n.Nodes[0].Name, "blobs/sha256"))
	if err != nil {
		return err
	}
	os.RemoveAll(filepath.Join(layout, "blobs"))
	stop, err := startNginx(ctx, n.Nodes[0], dir, filepath.Dir(blob))
	if err != nil {
		return err
	}
	defer stop()
	name := filepath.Base(blob)
	ours := "http://127.0.0.1:5050/v2/app/blobs/sha256:" + name + "?ns=reg.example"
	var mirror, other float64
	err = n.Nodes[0].Inside(func() error { // one connection each, opened here
		for range 40 { // a read takes half a second, and one is a third faster than another
			for url, best := range map[string]*float64{ours: &mirror, "http://127.0.0.1:5051/" + name: &other} {
				rate, err := fetch(ctx, url)
				if err != nil {
					return err
				}
				*best = max(*best, rate)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	i.add("mirror, MB/s", mirror)
	i.add("nginx, MB/s", other)
	i.add("mirror to nginx", mirror/other)
	return i.busy(ctx, n, daemons, list, dir, ours)
}

// startNginx serves the files in root at port 5051 of host, until stop is called.
func startNginx(ctx context.Context, host *netns.Host, dir, root string) (stop func(), err error) {
	config := fmt.Sprintf("daemon off; pid %[1]s/nginx.pid; error_log %[1]s/error.log; user root; worker_processes 2; events {}\n"+
		"http { access_log off; sendfile on; server { listen 127.0.0.1:5051; root %[2]s; } }\n", dir, root)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	nginx, err := netns.Start(host.Command(ctx, "nginx", "-c", file))
	if err != nil {
		return nil, err
	}
	stop = func() { // if it were killed, it would leave its workers behind
		nginx.Signal(syscall.SIGTERM)
		nginx.Wait(ctx)
	}
	if err := netns.Listening(ctx, nginx, "tcp", 5051); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// busy watches the memory of the daemon while it serves a large blob to several readers and receives another image.
func (i *images) busy(ctx context.Context, n *netns.Net, daemons []*netns.Process, list, dir, url string) error {
	peak := watch(daemons)
	var wg sync.WaitGroup
	errs := make([]error, serveReads+1)
	for k := range serveReads {
		wg.Go(func() {
			errs[k] = n.Nodes[0].Inside(func() error { _, err := fetch(ctx, url); return err })
		})
	}
	wg.Go(func() {
		second := filepath.Join(dir, "second")
		if _, errs[serveReads] = testimage.Layout(second, "v2", testimage.Options{Layers: 1, Size: imageSize, Version: 2}); errs[serveReads] == nil {
			errs[serveReads] = succeed(ctx, n.Server, i.binary, "push", "oci:"+second+":v2", "--name", "reg.example/app:v2",
				"--keys", filepath.Join(dir, "keys"), "--nodes", list, "--quiet")
		}
	})
	wg.Wait()
	i.add("daemon serving 8 and receiving, MiB", float64(peak())/(1<<20))
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch reads a URL to its end and returns MB/s. Its connection is opened by this goroutine.
func fetch(ctx context.Context, url string) (float64, error) {
	conn, err := dialHTTP(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	resp, err := conn.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, resp.Status)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 1<<20))
	if err != nil {
		return 0, err
	}
	return float64(n) / 1e6 / time.Since(begin).Seconds(), nil
}

func largest(dir string) (name string, err error) {
	entries, err := os.ReadDir(dir)
	size := int64(-1)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > size {
			name, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	return name, err
}

// dialHTTP is a client whose one connection to the host of url is open already: its thread may be in
// another network later.
func dialHTTP(ctx context.Context, url string) (*http.Client, error) {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	used := false
	return &http.Client{Transport: &http.Transport{
		ReadBufferSize: 256 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, fmt.Errorf("%s: a second connection", host)
			}
			used = true
			return conn, nil
		},
	}}, nil
}
