package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// The plan of many nodes is a line for all devices that are alike, also where their serial numbers differ, and shows each one that
// is not, even if it is described in a way that nobody understands.
func TestPrintOverwrites(t *testing.T) {
	facts := func(i int, f disk.Facts) json.RawMessage {
		f.Serial = fmt.Sprint("S", i)
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	system := disk.Facts{
		Output: "device:system", Path: "/dev/nvme0n1", Model: "SAMSUNG MZ7L3480", Size: 480e9,
		Holds: []disk.Signature{{Type: "gpt"}, {Type: "vfat"}, {Type: "ext4", Label: "root"}, {Type: "LVM2", Label: "vg0"}},
	}
	p := push.Plan{Source: "node001.raw", Holds: `gpt, mbr`, Size: 480e9}
	for i := range 128 {
		p.Nodes = append(p.Nodes, ring.Row{Node: fmt.Sprintf("node%03d", i+1), State: ring.Pending, Facts: facts(i, system)})
	}
	large := system
	large.Size, large.Holds = 960e9, nil
	p.Nodes[16].Facts = facts(16, large)
	p.Nodes[20].Facts = json.RawMessage(`{"size":"\u001b[2J"}`)
	for _, i := range []int{30, 31} {
		p.Nodes[i] = ring.Row{Node: p.Nodes[i].Node, State: ring.Refused, Reason: "device:system: /dev/sda is busy: md127 on sda2"}
	}
	var b strings.Builder
	printOverwrites(&b, p)
	const want = `sends node001.raw, 480 GB, holds: gpt, mbr
overwrites on 124 nodes, node[001-016,018-020,022-030,033-128]: device:system /dev/nvme0n1 SAMSUNG MZ7L3480 480 GB, holds: gpt, vfat, ext4 "root", LVM2 "vg0"
overwrites on node017: device:system /dev/nvme0n1 SAMSUNG MZ7L3480 960 GB, holds: nothing; 480 GB larger than the source
overwrites on node021: {"size":"\u001b[2J"}
refused 2  node[031-032]  device:system: /dev/sda is busy: md127 on sda2
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whoever sits at a terminal is asked, also where the terminal gets plain lines.
func TestAsksPlainTerminal(t *testing.T) {
	for _, c := range []struct{ kind, noColor string }{{"xterm", ""}, {"dumb", ""}, {"xterm", "1"}} {
		t.Setenv("TERM", c.kind)
		t.Setenv("NO_COLOR", c.noColor)
		master, terminal := openTerminal(t)
		cmd := &cobra.Command{}
		cmd.SetIn(terminal)
		cmd.SetErr(terminal)
		j := &job{cmd: cmd, screen: newScreen(terminal), flags: &sendFlags{}}
		if _, err := master.WriteString("2\n"); err != nil {
			t.Fatal(err)
		}
		if err := j.ask(t.Context(), 2); err != nil {
			t.Errorf("TERM=%s NO_COLOR=%s: %v", c.kind, c.noColor, err)
		}
	}
}

// The plan offers --update where a device holds what the source holds, as far as that is known.
func TestPlanOffersUpdate(t *testing.T) {
	row := func(name string, state ring.State, holds ...disk.Signature) ring.Row {
		b, err := json.Marshal(disk.Facts{Output: "device:system", Path: "/dev/sda", Kind: disk.Disk, Size: 1e9, Holds: holds})
		if err != nil {
			t.Fatal(err)
		}
		return ring.Row{Node: name, State: state, Facts: b}
	}
	root := []disk.Signature{{Type: "gpt"}, {Type: "ext4", Label: "root"}}
	source := disk.Facts{Holds: root}
	p := push.Plan{Source: "a", Holds: source.Held(), Size: 1e9, Nodes: []ring.Row{
		row("n1", ring.Pending, root...), row("n2", ring.Pending, root[0]), row("n3", ring.Refused, root...), row("n4", ring.Pending),
		row("n5", ring.Pending, disk.Signature{Type: disk.HalfWrittenType}), row("n6", ring.Pending, root...),
	}}
	const hint = "hint: 2 nodes, n[1,6] may have most of it already: with --update only what differs is sent and written\n"
	for _, update := range []bool{false, true} {
		var b strings.Builder
		p.Update = update
		if printOverwrites(&b, p); strings.HasSuffix(b.String(), hint) == update {
			t.Errorf("update %v:\n%s", update, b.String())
		}
		if strings.Contains(b.String(), "\ncompares, and overwrites where it differs, on 2 nodes, n[1,6]: ") != update {
			t.Errorf("update %v:\n%s", update, b.String())
		}
	}
	var check strings.Builder
	printCheck(&check, &ring.Report{Nodes: p.Nodes, Bytes: 1e9, Plan: &ring.Plan{Serve: 5, Move: 5e9, Send: 1e9}}, false, true, &p)
	if got := check.String(); !strings.Contains(got, "\n5 of 6 nodes would be compared and updated, 0 hold it; nothing was written\nto move: at most 5.00 GB ") {
		t.Errorf("--check:\n%s", got)
	}
	for _, unread := range []bool{false, true} {
		var b strings.Builder
		p.Unread = unread
		printCheck(&b, &ring.Report{Nodes: p.Nodes, Bytes: 1e9, Plan: &ring.Plan{Serve: 5, Move: 5e9, Send: 1e9, Rate: 1e8, Seconds: 10}}, false, true, &p)
		if strings.Contains(b.String(), "; then each node reads its device back\n") == unread || !strings.Contains(b.String(), "expected time: 0:10 ") {
			t.Errorf("--check, not read back %v:\n%s", unread, b.String())
		}
	}
	var small strings.Builder // is sent whole
	p.Update, p.Size = false, 1e6
	if printOverwrites(&small, p); strings.Contains(small.String(), "hint") {
		t.Errorf("of 1 MB:\n%s", small.String())
	}
	for _, holds := range [][]disk.Signature{nil, {{Type: disk.UnknownType}}} {
		var b strings.Builder
		source.Holds = holds
		printOverwrites(&b, push.Plan{Source: "a", Holds: source.Held(), Size: 1e9, Nodes: []ring.Row{row("n1", ring.Pending, holds...)}})
		if strings.Contains(b.String(), "hint") {
			t.Errorf("%v:\n%s", holds, b.String())
		}
	}
}

// Devices that differ by a number that says nothing are one line, and lines of as many nodes are in the order of the plan.
func TestPrintOverwritesFolds(t *testing.T) {
	p := push.Plan{Source: "a", Holds: "gpt", Size: 1e9}
	for i := range 24 {
		f := disk.Facts{Output: "device:s", Kind: disk.Loop, Path: fmt.Sprint("/dev/loop", i), Size: 1e9}
		switch {
		case i >= 20: // each a line
			f = disk.Facts{Output: "device:s", Kind: disk.Disk, Path: fmt.Sprintf("/dev/sd%c", 'z'-i), Size: 1e9}
		case i >= 10:
			f = disk.Facts{Output: "device:s", Kind: disk.Mapped, Path: fmt.Sprint("/dev/dm-", i), MapName: "vg0-scratch", UUID: fmt.Sprint("LVM-", i), Size: 1e9}
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		p.Nodes = append(p.Nodes, ring.Row{Node: fmt.Sprint("n", i+1), State: ring.Pending, Facts: b})
	}
	var b strings.Builder
	printOverwrites(&b, p)
	const want = `sends a, 1.00 GB, holds: gpt
overwrites on 10 nodes, n[1-10]: device:s /dev/loop* 1.00 GB, holds: nothing
overwrites on 10 nodes, n[11-20]: device:s /dev/mapper/vg0-scratch 1.00 GB, holds: nothing
overwrites on n21: device:s /dev/sdf 1.00 GB, holds: nothing
overwrites on n22: device:s /dev/sde 1.00 GB, holds: nothing
overwrites on n23: device:s /dev/sdd 1.00 GB, holds: nothing
overwrites on n24: device:s /dev/sdc 1.00 GB, holds: nothing
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What a disk or a node says of itself neither moves the cursor nor makes a line of its own.
func TestHostileDevices(t *testing.T) {
	const evil = "\x1b[2J\x9b31m\u009b1m\r\noverwrites on nobody\t\v\x00\u202e"
	d := &disk.Device{Name: evil, Path: "/dev/" + evil, Kind: disk.Disk, Bus: evil, Model: evil, Serial: evil, WWN: evil, MapName: evil, Size: 1, Users: []disk.User{{What: evil, On: evil}}}
	facts := &disk.Facts{Output: evil, Path: evil, Kind: evil, Model: evil, Serial: evil, MapName: evil, Holds: []disk.Signature{{Type: evil, Label: evil}}}
	said, err := json.Marshal(facts)
	if err != nil {
		t.Fatal(err)
	}
	rule := identity.Device{Name: evil}
	var b strings.Builder
	printDevices(&b, &node.Devices{
		Rules: []node.RuleDevice{
			{Choice: disk.Choice{Rule: rule, Device: d, Warning: evil}, Facts: facts, Twice: []string{evil}},
			{Choice: disk.Choice{Rule: rule, Err: errors.New(evil), Others: []disk.Reason{{Device: d, Why: evil}, {Device: d, Why: evil}}}},
		},
		Others: []node.OtherDevice{{Device: d}, {Device: d, Never: evil}},
	})
	lines := []int{strings.Count(b.String(), "\n")}
	printOverwrites(&b, push.Plan{Source: evil, Holds: evil, Nodes: []ring.Row{
		{Node: evil, State: ring.Pending, Facts: said}, {Node: "b", State: ring.Pending, Facts: json.RawMessage(evil)},
		{Node: "c", State: ring.Refused, Reason: evil, Link: evil}, {Node: "d", State: ring.Refused, Reason: evil, Link: evil},
	}})
	lines = append(lines, strings.Count(b.String(), "\n")-lines[0])
	if !slices.Equal(lines, []int{11, 4}) {
		t.Errorf("%d lines", lines)
	}
	if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && (r == unicode.ReplacementChar || !unicode.IsPrint(r)) }); i >= 0 {
		t.Errorf("at %d: %q", i, b.String()[i:])
	}
}
