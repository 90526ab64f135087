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

// How long the transfer shall take at least when something is to happen on the way, in
// seconds; the ring tells how far it is about once a second. One that is frozen is missed
// after 5 s, and dialled 2 s later: by then the others must not have ended. A node at a
// tenth of the speed takes ten times as long, so with one the whole is shorter; it is served
// long enough for a frozen one to come back.
const (
	killSeconds   = 6
	freezeSeconds = 12
	slowSeconds   = 3
	slowest       = 32 << 10 // bytes per second
)

// Faults are how many nodes something is done to.
type Faults struct{ Kill, Slow, Freeze, Corrupt int }

func (f Faults) any() bool { return f != Faults{} }

// fate is what is done to a node.
type fate string

const (
	toKill    fate = "kill"
	toSlow    fate = "slow"
	toFreeze  fate = "freeze"
	toCorrupt fate = "corrupt"
)

// fates are neighbours, from the second node on: the first and the last one of the
// chain are left alone as long as there is a choice.
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

// rate is that of the transfer, so that there is time for what shall happen; 0 is no limit.
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

// keysOf are the keys of one node, with its policy.
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

// bend puts the bad cables in.
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

// announce says what was done before the transfer begins.
func (d *Demo) announce() {
	rate := d.Faults.rate(d.size)
	if rate > 0 {
		fmt.Fprintf(d.Out, "the server sends %s/s at most, so that there is time for what shall happen\n", bytesize.Text(rate))
	}
	for _, n := range d.nodes {
		switch n.fate {
		case toSlow:
			fmt.Fprintf(d.Out, "%s takes %s/s at most: its policy says so\n", n.name, bytesize.Text(n.limit))
		case toCorrupt:
			fmt.Fprintf(d.Out, "%s has a bad cable; links are plain, so that a changed byte is not TLS's affair\n", n.name)
		}
	}
}

// strike kills and freezes nodes on the way: once a quarter of the image has reached
// every node, or as soon as bytes move where that would be late. It thaws the frozen when
// they were missed.
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

// happened says whether what was asked for was done to n, and how to put it.
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
