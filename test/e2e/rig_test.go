package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// rig is a server and nodes with daemons. Every node sees a directory of its own at
// the path data, so that one --output is another file on each.
type rig struct {
	t    *testing.T
	ctx  context.Context
	net  *netns.Net
	dir  string // of this test
	keys string // of the cluster, with the sender's
	data string

	nodes []*node
}

type node struct {
	*netns.Host
	rig    *rig
	own    string // what it sees at data
	keys   string
	cache  string
	daemon *netns.Process

	port int      // by which it is reached, when that is not its own
	wrap []string // the program that starts the daemon; nil: none
	args []string // for the daemon, too
}

// name is what the node is called in --nodes and in reports.
func (n *node) name() string {
	if n.port == 0 {
		return n.Addr.String()
	}
	return fmt.Sprintf("%s:%d", n.Addr, n.port)
}

const openPolicy = "[[output]]\ndir = %q\noverwrite = true\n[data]\nplain = true\n"

func newRig(t *testing.T, ctx context.Context, cfg netns.Config) *rig {
	t.Helper()
	net, err := netns.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() { // before the directory goes
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, ctx: ctx, net: net, dir: dir, keys: filepath.Join(dir, "keys"), data: filepath.Join(dir, "data")}
	r.mkdir(r.data)
	if code, out := r.run(net.Server, "keys", "init", "--keys", r.keys, "--cluster", "test"); code != 0 {
		t.Fatalf("keys init: %d: %s", code, out)
	}
	for _, h := range net.Nodes {
		n := &node{Host: h, rig: r}
		base := filepath.Join(dir, h.Name)
		n.own, n.keys, n.cache = filepath.Join(base, "data"), filepath.Join(base, "keys"), filepath.Join(base, "cache")
		r.mkdir(n.own, n.keys)
		for _, name := range []string{"ca.pem", "node.pem"} {
			r.copy(filepath.Join(r.keys, name), filepath.Join(n.keys, name))
		}
		n.setPolicy(fmt.Sprintf(openPolicy, r.data))
		n.Mounts = []netns.Mount{netns.Bind(n.own, r.data)}
		r.nodes = append(r.nodes, n)
	}
	return r
}

// start starts the daemons of all nodes and waits until they listen.
func (r *rig) start() {
	r.t.Helper()
	for _, n := range r.nodes {
		n.start()
	}
}

func (n *node) setPolicy(text string) {
	n.rig.t.Helper()
	if err := os.WriteFile(filepath.Join(n.keys, "policy.toml"), []byte(text), 0o600); err != nil {
		n.rig.t.Fatal(err)
	}
}

func (n *node) start() {
	n.rig.t.Helper()
	words := append(slices.Clone(n.wrap), binary, "daemon", "--keys", n.keys, "--cache", n.cache)
	words = append(words, n.args...)
	p, err := netns.Start(n.Command(n.rig.ctx, words[0], words[1:]...))
	if err == nil {
		_, err = p.Line(n.rig.ctx, "listening")
	}
	if err != nil {
		n.rig.t.Fatal(err)
	}
	n.daemon = p
}

// path is a file of the node's, seen from outside.
func (n *node) path(name string) string { return filepath.Join(n.own, name) }

// list are the names of all nodes as --nodes takes them.
func (r *rig) list() string {
	var names []string
	for _, n := range r.nodes {
		names = append(names, n.name())
	}
	return strings.Join(names, ",")
}

// run runs the binary on a host to its end.
func (r *rig) run(h *netns.Host, args ...string) (code int, output string) {
	r.t.Helper()
	p, err := netns.Start(h.Command(r.ctx, binary, args...))
	if err == nil {
		code, err = p.Wait(r.ctx)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return code, p.Output()
}

// push is a running push or raw, from the server to all nodes.
type push struct {
	rig     *rig
	what    string
	process *netns.Process
	report  string
	begin   time.Time
	before  netns.Traffic
	done    chan time.Time
}

// result is what came of it.
type result struct {
	code   int
	output string
	report *report
	took   time.Duration
	sent   int64 // by the server's interface
}

func (r *rig) startPush(args ...string) *push {
	r.t.Helper()
	return r.startPushFrom(nil, args...)
}

func (r *rig) startPushFrom(stdin io.Reader, args ...string) *push {
	r.t.Helper()
	f, err := os.CreateTemp(r.dir, "report-*.json")
	if err != nil {
		r.t.Fatal(err)
	}
	f.Close()
	os.Remove(f.Name())
	p := &push{rig: r, what: strings.Join(args, " "), report: f.Name()}
	if p.before, err = r.net.Server.Traffic(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	args = append(args, "--keys", r.keys, "--nodes", r.list(), "--report", p.report)
	cmd := r.net.Server.Command(r.ctx, binary, args...)
	cmd.Stdin = stdin
	p.begin = time.Now()
	if p.process, err = netns.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	p.done = make(chan time.Time, 1)
	go func() { <-p.process.Done(); p.done <- time.Now() }()
	return p
}

func (p *push) wait() *result {
	r := p.rig
	r.t.Helper()
	code, err := p.process.Wait(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	res := &result{code: code, output: p.process.Output(), took: (<-p.done).Sub(p.begin)}
	after, err := r.net.Server.Traffic(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	res.sent = after.Sent - p.before.Sent
	r.t.Logf("exit %d in %v, the server sent %d: %s", code, res.took.Round(time.Millisecond), res.sent, p.what)
	if text, err := os.ReadFile(p.report); err == nil {
		if res.report, err = readReport(text); err != nil {
			r.t.Errorf("report: %v\n%s", err, text)
		}
	}
	return res
}

func (r *rig) push(args ...string) *result {
	r.t.Helper()
	return r.startPush(args...).wait()
}

// want checks the exit status and the rows; states are in the order of the nodes, and
// one stands for all.
func (r *rig) want(res *result, code int, states ...string) {
	r.t.Helper()
	if res.code != code {
		r.t.Errorf("exit %d, want %d\n%s", res.code, code, res.output)
	}
	if res.report == nil {
		r.t.Errorf("no report\n%s", res.output)
		return
	}
	if res.report.Exit != res.code || len(res.report.Nodes) != len(r.nodes) {
		r.t.Errorf("report says exit %d and has %d rows", res.report.Exit, len(res.report.Nodes))
		return
	}
	for i, row := range res.report.Nodes {
		want := states[min(i, len(states)-1)]
		if row.State != want || row.Node != r.nodes[i].name() {
			r.t.Errorf("row %+v, want %s %s\n%s", row, r.nodes[i].name(), want, res.output)
		}
		if good := want == "committed" || want == "held"; good != (row.Digest != "") || !good && want != "pending" && row.Reason == "" {
			r.t.Errorf("row %+v: digest or reason", row)
		}
	}
}

// same demands that the file is on each of the nodes and is what was sent.
func (r *rig) same(sent, name string, nodes ...*node) {
	r.t.Helper()
	want := sum(r.t, sent)
	for _, n := range nodes {
		if got := sum(r.t, n.path(name)); got != want {
			r.t.Errorf("%s: %s is %s, want %s", n.Name, name, got, want)
		}
	}
}

// empty demands that a node's directory has nothing in it, hidden or not, but keep. What a transfer replaced goes behind its
// answer.
func (n *node) empty(keep ...string) {
	n.rig.t.Helper()
	eventually(n.rig.t, 10*time.Second, n.Name+": nothing is left", func() (bool, string) {
		entries, err := os.ReadDir(n.own)
		if err != nil {
			n.rig.t.Fatal(err)
		}
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return slices.Contains(keep, e.Name()) })
		return len(entries) == 0, fmt.Sprint(entries)
	})
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func (r *rig) mkdir(dirs ...string) {
	r.t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) copy(from, to string) {
	r.t.Helper()
	if out, err := exec.Command("cp", "-p", from, to).CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
}

func (n *node) kill() { n.daemon.Kill() }
