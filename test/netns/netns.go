// Package netns makes hosts for tests and benchmarks: Linux network namespaces, each
// with one interface to a common switch. The switch has a namespace of its own, so the
// network of the machine is not touched. The package needs root, and ip, tc and iptables.
//
//	┌─ switch ──────────────────────────┐
//	│ br0 ── p0 ── p1 ── p2 …           │
//	└────────│─────│─────│──────────────┘
//	       eth0  eth0  eth0
//	      server  n01   n02  …
package netns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Config says which net to make.
type Config struct {
	Nodes int
	// Rate shapes every host's link to so many bits per second, in both directions;
	// 0 leaves it as fast as it is.
	Rate int64
}

// Net is a switch with hosts. Names in it are unique on the machine and tell which
// process made them: dimg-PID-RANDOM-…
type Net struct {
	Server *Host
	Nodes  []*Host

	prefix string
}

const prefix = "dimg-"

// Available returns an error if no Net can be made here.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: network namespaces")
	}
	for _, program := range []string{"ip", "tc", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("counterpart missing: %s: network namespaces", program)
		}
	}
	return nil
}

// New makes a net, and removes the nets of earlier runs that were killed.
func New(ctx context.Context, cfg Config) (*Net, error) {
	if err := removeStale(ctx); err != nil {
		return nil, err
	}
	random := make([]byte, 3)
	rand.Read(random)
	n := &Net{prefix: fmt.Sprintf("%s%d-%s-", prefix, os.Getpid(), hex.EncodeToString(random))}
	for i := range cfg.Nodes + 1 {
		h := &Host{
			net:  n,
			Name: fmt.Sprintf("n%02d", i),
			Addr: netip.AddrFrom4([4]byte{10, 77, byte((i + 1) >> 8), byte(i + 1)}),
			port: fmt.Sprintf("p%d", i),
		}
		if i == 0 {
			h.Name, n.Server = "server", h
		} else {
			n.Nodes = append(n.Nodes, h)
		}
	}
	err := n.build(ctx, cfg.Rate)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Hosts are the server and the nodes.
func (n *Net) Hosts() []*Host { return append([]*Host{n.Server}, n.Nodes...) }

func (n *Net) sw() string { return n.prefix + "sw" }

func (n *Net) build(ctx context.Context, rate int64) error {
	var spaces, links, ports strings.Builder
	fmt.Fprintf(&spaces, "netns add %s\n", n.sw())
	fmt.Fprintln(&links, "link add br0 type bridge forward_delay 0\nlink set br0 up")
	for _, h := range n.Hosts() {
		fmt.Fprintf(&spaces, "netns add %s\n", h.space())
		fmt.Fprintf(&links, "link add %s type veth peer name eth0 netns %s\n", h.port, h.space())
		fmt.Fprintf(&links, "link set %s master br0 up\n", h.port)
		fmt.Fprint(&ports, shape(h.port, rate))
	}
	if err := batch(ctx, "ip", "", spaces.String()); err != nil {
		return err
	}
	if err := batch(ctx, "ip", n.sw(), links.String()); err != nil {
		return err
	}
	if err := batch(ctx, "tc", n.sw(), ports.String()); err != nil {
		return err
	}
	for _, h := range n.Hosts() {
		up := fmt.Sprintf("link set lo up\naddr add %s/16 broadcast + dev eth0\nlink set eth0 up\nroute add default dev eth0\n", h.Addr)
		if err := batch(ctx, "ip", h.space(), up); err != nil {
			return err
		}
		if err := batch(ctx, "tc", h.space(), shape("eth0", rate)); err != nil {
			return err
		}
	}
	return nil
}

// shape returns the line for tc that limits what leaves by dev to rate. A segment that the
// sender has not split yet has 64 KiB, and the burst must hold two.
func shape(dev string, rate int64) string {
	if rate == 0 {
		return ""
	}
	return fmt.Sprintf("qdisc add dev %s root tbf rate %dbit burst 128kb latency 100ms\n", dev, rate)
}

// Close ends every process that is still in the net, and removes it.
func (n *Net) Close() error { return remove(context.Background(), n.prefix) }

// removeStale removes the nets of processes that have ended.
func removeStale(ctx context.Context) error {
	spaces, err := list(ctx)
	if err != nil {
		return err
	}
	for _, space := range spaces {
		pid, _, ok := strings.Cut(strings.TrimPrefix(space, prefix), "-")
		if _, err := strconv.Atoi(pid); !ok || err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			if err := remove(ctx, prefix+pid+"-"); err != nil {
				return err
			}
		}
	}
	return nil
}

// list returns the names of all namespaces that are ours.
func list(ctx context.Context) ([]string, error) {
	out, err := run(ctx, "", "ip", "-j", "netns", "list")
	if err != nil || len(strings.TrimSpace(out)) == 0 {
		return nil, err
	}
	var all []struct{ Name string }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("ip netns list: %w", err)
	}
	var ours []string
	for _, space := range all {
		if strings.HasPrefix(space.Name, prefix) {
			ours = append(ours, space.Name)
		}
	}
	return ours, nil
}

func remove(ctx context.Context, prefix string) error {
	spaces, err := list(ctx)
	if err != nil {
		return err
	}
	var names strings.Builder
	for _, space := range spaces {
		if !strings.HasPrefix(space, prefix) {
			continue
		}
		pids, err := run(ctx, "", "ip", "netns", "pids", space)
		if err != nil {
			continue // it was removed meanwhile
		}
		for _, s := range strings.Fields(pids) {
			if pid, err := strconv.Atoi(s); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		fmt.Fprintf(&names, "netns del %s\n", space)
	}
	if names.Len() == 0 {
		return nil
	}
	// Another process or test may be removing the same nets. It only matters that they are gone.
	_, removing := run(ctx, names.String(), "ip", "-force", "-batch", "-")
	if removing == nil {
		return nil
	}
	left, err := list(ctx)
	if err == nil && !slices.ContainsFunc(left, func(space string) bool { return strings.HasPrefix(space, prefix) }) {
		return nil
	}
	return errors.Join(removing, err)
}

// batch runs ip or tc once for many lines, inside namespace space unless that is "".
func batch(ctx context.Context, program, space, lines string) error {
	if lines == "" {
		return nil
	}
	args := []string{"-batch", "-"}
	if space != "" {
		args = append([]string{"-n", space}, args...)
	}
	_, err := run(ctx, lines, program, args...)
	return err
}

func run(ctx context.Context, stdin string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
