package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// These are the seconds that the transfer takes at least if a fault is to happen on the way. The ring says about once
// a second how far it is. A node that is frozen is missed after 5 s and dialled 2 s later, and the transfer
// must not be over by then. With a slow node the transfer to the others is shorter, because that node takes ten
// times as long; a frozen node has time to come back meanwhile.
const (
	killSeconds   = 6
	freezeSeconds = 12
	slowSeconds   = 3
	slowest       = 32 << 10 // bytes per second
)

// Faults says how many nodes each fault happens to.
type Faults struct{ Kill, Slow, Freeze, Corrupt int }

func (f Faults) any() bool { return f != Faults{} }

// fate is the fault that happens to a node.
type fate string

const (
	toKill    fate = "kill"
	toSlow    fate = "slow"
	toFreeze  fate = "freeze"
	toCorrupt fate = "corrupt"
)

// fates returns the fate of each node. The nodes with a fate are neighbours, from the second node of the chain on, so that
// the first and the last node have none if there are enough others.
func (f Faults) fates(nodes int) []fate {
	all := make([]fate, nodes)
	next := 1
	for _, x := range []struct {
		fate fate
		n    int
	}{{toKill, f.Kill}, {toSlow, f.Slow}, {toFreeze, f.Freeze}, {toCorrupt, f.Corrupt}} {
		for range x.n {
			all[next%nodes] = x.fate
			next++
		}
	}
	return all
}

// rate returns the rate of the transfer that leaves time for the faults, in bytes per second; 0 is no limit.
func (f Faults) rate(size int64) int64 {
	seconds := int64(killSeconds)
	switch {
	case !f.any():
		return 0
	case f.Slow > 0:
		seconds = slowSeconds
	case f.Freeze > 0:
		seconds = freezeSeconds
	}
	return max(size/seconds, 64<<10)
}

// keysOf returns the directory with the keys and the policy of a node.
func (d *Demo) keysOf(n *node) (string, error) {
	var policy strings.Builder
	if d.Faults.Corrupt > 0 {
		policy.WriteString("[data]\nplain = true\n")
	}
	if n.fate == toSlow {
		n.limit = max(d.Faults.rate(d.size)/10, slowest)
		fmt.Fprintf(&policy, "[limits]\nrate = \"%d\"\n", n.limit)
	}
	if policy.Len() == 0 {
		return d.keys(), nil
	}
	dir := filepath.Join(d.dir, n.name+"-keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"ca.pem", "node.pem"} {
		b, err := os.ReadFile(filepath.Join(d.keys(), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "policy.toml"), []byte(policy.String()), 0o600)
}

// bend puts the bad cables in front of the nodes whose fate they are.
func (d *Demo) bend() error {
	for _, n := range d.nodes {
		n.addr = n.proc.Addr
		if n.fate != toCorrupt {
			continue
		}
		var err error
		n.cable, err = newDamager(n.proc.Addr, d.size/4, func(offset uint64) {
			n.hit.Store(true)
			d.Say("changed one byte, at %s, on the cable into %s", bytesize.Text(int64(offset)), n.name)
		})
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		n.addr = n.cable.addr()
	}
	return nil
}

// announce prints the faults that are there before the transfer begins.
func (d *Demo) announce() {
	rate := d.Faults.rate(d.size)
	if rate > 0 {
		fmt.Fprintf(d.Out, "the server sends %s/s at most, so that there is time for the faults\n", bytesize.Text(rate))
	}
	for _, n := range d.nodes {
		switch n.fate {
		case toSlow:
			fmt.Fprintf(d.Out, "%s takes %s/s at most: its policy says so\n", n.name, bytesize.Text(n.limit))
		case toCorrupt:
			fmt.Fprintf(d.Out, "%s has a bad cable; links are plain, so that the ring and not TLS finds the changed byte\n", n.name)
		}
	}
}

// strike kills and freezes nodes on the way, when a quarter of the image has reached every node, or as soon as bytes move
// if a quarter would be late. It thaws a frozen node when the ring has missed it.
func (d *Demo) strike(e ring.Event) {
	if e.Kind == ring.EventNode && e.State == ring.Lost {
		for _, n := range d.nodes {
			if n.name == e.Node && !n.frozenAt.IsZero() && n.thawedAt.IsZero() {
				n.thawedAt = time.Now()
				n.proc.Signal(syscall.SIGCONT)
				d.Say("thawed %s after %.1f s", n.name, n.thawedAt.Sub(n.frozenAt).Seconds())
			}
		}
	}
	enough := d.size / 4
	if d.Faults.Slow > 0 || d.Faults.Freeze > 0 {
		enough = 1
	}
	if d.struck || e.Kind != ring.EventProgress || e.Bytes < enough {
		return
	}
	d.struck = true
	for _, n := range d.nodes {
		switch n.fate {
		case toKill:
			n.killed = true
			n.proc.Kill()
			d.Say("killed %s (process %d) at %s of %s", n.name, n.proc.Pid(), bytesize.Text(e.Bytes), bytesize.Text(d.size))
		case toFreeze:
			n.frozenAt = time.Now()
			n.proc.Signal(syscall.SIGSTOP)
			d.Say("froze %s (process %d) at %s of %s", n.name, n.proc.Pid(), bytesize.Text(e.Bytes), bytesize.Text(d.size))
		}
	}
}

// happened reports whether the fate of n has happened, and how to print it.
func (n *node) happened() (done bool, text string) {
	switch n.fate {
	case toKill:
		return n.killed, ""
	case toSlow:
		return true, fmt.Sprintf(" (at %s/s at most)", bytesize.Text(n.limit))
	case toFreeze:
		return !n.thawedAt.IsZero(), " (was frozen)"
	case toCorrupt:
		return n.hit.Load(), " (behind the bad cable)"
	}
	return true, ""
}
