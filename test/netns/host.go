package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
)

// Host is one host of a Net.
type Host struct {
	Name string // server, n01, n02, …
	Addr netip.Addr
	// Mounts are made for every command of the host before it starts, and only that command
	// sees them. So the same path is another directory on every host.
	Mounts []Mount

	net  *Net
	port string // its end at the switch
}

// Mount has the arguments of mount(8).
type Mount struct{ Type, Source, Target, Options string }

// Bind shows source at target.
func Bind(source, target string) Mount {
	return Mount{Type: "none", Source: source, Target: target, Options: "bind"}
}

// Tmpfs mounts an empty file system in memory with so many bytes.
func Tmpfs(target string, size int64) Mount {
	return Mount{Type: "tmpfs", Source: "none", Target: target, Options: fmt.Sprintf("size=%d", size)}
}

func (h *Host) space() string { return h.net.prefix + h.Name }

// mountAndRun mounts while its first argument is "mount", with five words each. The
// rest is the command, which takes the place of the shell and so has its process id.
const mountAndRun = `while [ "$1" = mount ]; do mount -t "$2" -o "$3" "$4" "$5" || exit 125; shift 5; done; shift; exec "$@"`

// Command returns a command that runs on the host. Its process is the program itself,
// so signals reach the program.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	words := []string{"netns", "exec", h.space()}
	if len(h.Mounts) > 0 {
		words = append(words, "sh", "-c", mountAndRun, "sh")
		for _, m := range h.Mounts {
			words = append(words, "mount", m.Type, m.Options, m.Source, m.Target)
		}
		words = append(words, "run")
	}
	words = append(words, program)
	return exec.CommandContext(ctx, "ip", append(words, args...)...)
}

// Unplug takes the cable out: the host sends and receives nothing, and its connections
// do not notice. Plug puts the cable back.
func (h *Host) Unplug(ctx context.Context) error {
	return batch(ctx, "ip", h.net.sw(), "link set "+h.port+" down\n")
}

// Plug undoes Unplug.
func (h *Host) Plug(ctx context.Context) error {
	return batch(ctx, "ip", h.net.sw(), "link set "+h.port+" up\n")
}

// Block makes the host drop silently what to sends it; Unblock undoes it. Other hosts
// still reach it.
func (h *Host) Block(ctx context.Context, from *Host) error {
	return h.filter(ctx, "-A", from)
}

// Unblock undoes Block.
func (h *Host) Unblock(ctx context.Context, from *Host) error {
	return h.filter(ctx, "-D", from)
}

func (h *Host) filter(ctx context.Context, verb string, from *Host) error {
	_, err := run(ctx, "", "ip", "netns", "exec", h.space(),
		"iptables", "-w", verb, "INPUT", "-s", from.Addr.String(), "-j", "DROP")
	return err
}

// OnlyFrom makes the host drop connections to a TCP port unless they come from one host, as a
// firewall does that was opened for the server only.
func (h *Host) OnlyFrom(ctx context.Context, from *Host, port int) error {
	_, err := run(ctx, "", "ip", "netns", "exec", h.space(), "iptables", "-w", "-A", "INPUT",
		"-p", "tcp", "--dport", fmt.Sprint(port), "!", "-s", from.Addr.String(), "-j", "DROP")
	return err
}

// Shape limits the host's link to so many bits per second from now on.
func (h *Host) Shape(ctx context.Context, rate int64) error {
	replace := func(dev string) string { return "qdisc replace" + shape(dev, rate)[len("qdisc add"):] }
	if err := batch(ctx, "tc", h.net.sw(), replace(h.port)); err != nil {
		return err
	}
	return batch(ctx, "tc", h.space(), replace("eth0"))
}

// Traffic is what crossed a host's interface since it was made, headers included.
type Traffic struct{ Sent, Received int64 }

// Traffic reads the counters of the host's interface.
func (h *Host) Traffic(ctx context.Context) (Traffic, error) {
	out, err := run(ctx, "", "ip", "-n", h.space(), "-s", "-j", "link", "show", "eth0")
	if err != nil {
		return Traffic{}, err
	}
	var links []struct {
		Stats64 struct{ Rx, Tx struct{ Bytes int64 } }
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		return Traffic{}, fmt.Errorf("%s: ip link show: %d links, %v", h.Name, len(links), err)
	}
	s := links[0].Stats64
	return Traffic{Sent: s.Tx.Bytes, Received: s.Rx.Bytes}, nil
}
