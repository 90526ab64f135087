package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// daemons are nodes that wait for transfers, and how each is started.
type daemons struct {
	binary string
	policy string   // the node's policy.toml
	own    []string // those of each node, in place of policy; nil: all have the same
	args   []string // more arguments
	env    []string // more variables
}

// start makes keys, in dir/keys, and starts a daemon on each node, whose cache is in dir. It returns what --nodes
// takes. What it has started before an error runs until the net is closed.
func (d daemons) start(ctx context.Context, n *netns.Net, dir string) (list string, all []*netns.Process, err error) {
	keys := filepath.Join(dir, "keys")
	if err := succeed(ctx, n.Server, d.binary, "keys", "init", "--keys", keys); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(keys, "policy.toml"), []byte(d.policy), 0o600); err != nil {
		return "", nil, err
	}
	var names []string
	for i, h := range n.Nodes {
		if d.own != nil {
			if keys, err = ownKeys(filepath.Join(dir, "keys"), filepath.Join(dir, "keys-"+h.Name), d.own[i]); err != nil {
				return "", all, err
			}
		}
		args := append([]string{"daemon", "--keys", keys, "--cache", filepath.Join(dir, h.Name)}, d.args...)
		cmd := h.Command(ctx, d.binary, args...)
		cmd.Env = append(os.Environ(), d.env...)
		p, err := netns.Start(cmd)
		if err != nil {
			return "", all, err
		}
		all, names = append(all, p), append(names, h.Addr.String())
	}
	for _, p := range all {
		if _, err := p.Line(ctx, "listening"); err != nil {
			return "", all, err
		}
	}
	return strings.Join(names, ","), all, nil
}

// ownKeys makes a directory with the keys of a node, and a policy of its own.
func ownKeys(from, to, policy string) (string, error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"ca.pem", "node.pem"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return "", err
		}
	}
	return to, os.WriteFile(filepath.Join(to, "policy.toml"), []byte(policy), 0o600)
}

// overwrites is the policy of nodes whose files below dir may be replaced, also without TLS.
func overwrites(dir string) string {
	return fmt.Sprintf("[[output]]\ndir = %q\noverwrite = true\n[data]\nplain = true\n", dir)
}

// startOurs starts a daemon on each node.
func startOurs(ctx context.Context, b *bed, data string) (*running, error) {
	dir, err := os.MkdirTemp(b.dir, "ours-")
	if err != nil {
		return nil, err
	}
	list, nodes, err := daemons{binary: b.binary, policy: overwrites(b.out)}.start(ctx, b.net, dir)
	stop := func() {
		for _, p := range nodes {
			p.Kill()
		}
		os.RemoveAll(dir)
	}
	if err != nil {
		stop()
		return nil, err
	}
	keys := filepath.Join(dir, "keys")
	report := filepath.Join(dir, "report.json")
	args := []string{"raw", "--input", b.input, "--nodes", list, "--keys", keys, "--data", data, "--report", report, "--quiet"}
	if b.Sink == "null" {
		args = append(args, "--discard")
	} else {
		args = append(args, "--output", b.file())
	}
	once := func(ctx context.Context) (*sample, error) { return b.pushOnce(ctx, nodes, report, args) }
	return &running{nodes: nodes, once: once, stop: stop}, nil
}

func (b *bed) pushOnce(ctx context.Context, daemons []*netns.Process, report string, args []string) (*sample, error) {
	before, err := cpu(daemons)
	if err != nil {
		return nil, err
	}
	peak := watch(daemons)
	begin := time.Now()
	p, err := netns.Start(b.net.Server.Command(ctx, b.binary, args...))
	if err != nil {
		return nil, err
	}
	code, err := p.Wait(ctx)
	s := &sample{Seconds: time.Since(begin).Seconds(), Peak: peak()}
	if err != nil || code != 0 {
		return nil, fmt.Errorf("exit %d, %v: %s", code, err, p.Output())
	}
	after, err := cpu(daemons)
	if err != nil {
		return nil, err
	}
	s.CPU = (after - before + p.State().UserTime() + p.State().SystemTime()).Seconds()
	text, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	var said struct{ Seconds float64 }
	err = json.Unmarshal(text, &said)
	s.Report = said.Seconds
	return s, err
}

func cpu(processes []*netns.Process) (sum time.Duration, err error) {
	for _, p := range processes {
		used, err := netns.CPU(p.Pid())
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// commands is a program for a node, which begins to listen, and one for the server.
type commands struct {
	network string
	port    int
	node    func(b *bed, i int) []string
	server  func(b *bed) []string
}

// A chain that copies in blocks of 1 MiB and does not hash. To /dev/null the last node
// alone writes, the relays only pass on: the best mbuffer can do. A relay that shall
// keep the file writes it beside.
var mbuffer = commands{
	network: "tcp", port: 9600,
	node: func(b *bed, i int) []string {
		args := []string{"mbuffer", "-q", "-s", "1M", "-m", "64M", "-I", "9600"}
		if i+1 < b.Nodes {
			args = append(args, "-O", b.net.Nodes[i+1].Addr.String()+":9600")
		}
		if b.Sink == "tmpfs" || i+1 == b.Nodes {
			args = append(args, "-f", "-o", b.file())
		}
		return args
	},
	server: func(b *bed) []string {
		return []string{"mbuffer", "-q", "-s", "1M", "-m", "64M", "-i", b.input, "-O", b.net.Nodes[0].Addr.String() + ":9600"}
	},
}

// Multicast. It has no flow control worth the name, so on shaped links it is told what
// they carry, less what headers take.
var udpcast = commands{
	network: "udp", port: 9700,
	node: func(b *bed, i int) []string {
		return []string{"udp-receiver", "--nokbd", "--interface", "eth0", "--portbase", "9700", "--file", b.file()}
	},
	server: func(b *bed) []string {
		args := []string{"udp-sender", "--nokbd", "--interface", "eth0", "--portbase", "9700",
			"--min-receivers", strconv.Itoa(b.Nodes), "--rexmit-hello-interval", "100", "--file", b.input}
		if b.Rate > 0 {
			args = append(args, "--max-bitrate", strconv.FormatInt(b.Rate/100*95, 10))
		}
		return args
	},
}

// peer runs the processes of one transfer, the last node's first.
func peer(c commands) func(context.Context, *bed) (*running, error) {
	return func(ctx context.Context, b *bed) (*running, error) {
		nodes := make([]*netns.Process, b.Nodes)
		stop := func() {
			for _, p := range nodes {
				if p != nil {
					p.Kill()
				}
			}
		}
		for i := b.Nodes - 1; i >= 0; i-- {
			words := c.node(b, i)
			p, err := netns.Start(b.net.Nodes[i].Command(ctx, words[0], words[1:]...))
			if err == nil {
				nodes[i] = p
				err = netns.Listening(ctx, p, c.network, c.port)
			}
			if err != nil {
				stop()
				return nil, err
			}
		}
		once := func(ctx context.Context) (*sample, error) { return b.peerOnce(ctx, nodes, c.server(b)) }
		return &running{nodes: nodes, once: once, stop: stop}, nil
	}
}

func (b *bed) peerOnce(ctx context.Context, nodes []*netns.Process, words []string) (*sample, error) {
	peak := watch(nodes)
	begin := time.Now()
	server, err := netns.Start(b.net.Server.Command(ctx, words[0], words[1:]...))
	if err != nil {
		peak()
		return nil, err
	}
	defer server.Kill()
	s := &sample{}
	for _, p := range append([]*netns.Process{server}, nodes...) {
		if code, werr := p.Wait(ctx); werr != nil || code != 0 {
			err = fmt.Errorf("exit %d, %v: %s", code, werr, p.Output())
			break
		}
		s.CPU += (p.State().UserTime() + p.State().SystemTime()).Seconds()
	}
	s.Seconds = time.Since(begin).Seconds()
	s.Peak = peak()
	return s, err
}
