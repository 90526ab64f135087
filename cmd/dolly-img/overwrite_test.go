package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
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
	const want = `writes node001.raw, 480 GB, holds: gpt, mbr
overwrites on 124 nodes, node[001-016,018-020,022-030,033-128]: device:system /dev/nvme0n1 SAMSUNG MZ7L3480 480 GB, holds: gpt, vfat, ext4 "root", LVM2 "vg0"
overwrites on node017: device:system /dev/nvme0n1 SAMSUNG MZ7L3480 960 GB, holds: nothing; 480 GB larger than the source
overwrites on node021: {"size":"\u001b[2J"}
refused 2  node[031-032]  device:system: /dev/sda is busy: md127 on sda2
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
