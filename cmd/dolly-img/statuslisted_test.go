package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

// What nobody can have, or nobody knows of, is no success: an image that was not found yet, on whatever nodes the list has it, an image that
// the list has for no node or that a node cannot have beside another one, and a group whose nodes are not known.
func TestStatusUnknown(t *testing.T) {
	d := digest.FromString("x")
	const name = "r.example/x:1"
	reply := func(node string, named digest.Digest, state ring.HoldState) ring.Reply {
		return ring.Reply{Node: node, Holdings: ring.Holdings{Images: []ring.HeldImage{{Name: name, Digest: d, State: state, Named: named}}}}
	}
	image := func(state warm.ImageState, reason string, nodes ...warm.NodeStatus) warm.ImageStatus {
		return warm.ImageStatus{Ref: "docker://" + name, Name: name, Digest: d, State: state, Reason: reason, Nodes: append([]warm.NodeStatus{}, nodes...)}
	}
	unfound := func(nodes ...string) warm.ImageStatus {
		i := warm.ImageStatus{Ref: "docker://r.example/typo:1", State: warm.ImageBlocked, Reason: "not found yet"}
		for _, n := range nodes {
			i.Nodes = append(i.Nodes, warm.NodeStatus{Node: n, State: warm.NodeUnknown})
		}
		return i
	}
	isWarm := image(warm.ImageWarm, "", warm.NodeStatus{Node: "n1", State: warm.NodeWarm})
	alone := image(warm.ImageBlocked, "no nodes")
	alone.Name, alone.Ref = "r.example/y:1", "docker://r.example/y:1"
	left := image(warm.ImageDegraded, "1 of 2 failed", isWarm.Nodes[0], warm.NodeStatus{Node: "n2", State: warm.NodeFailed, Reason: "has 512 images before this one"})
	for what, c := range map[string]struct {
		own    bool
		image  string
		images []warm.ImageStatus
		group  warm.GroupStatus
		exit   int
		line   string
	}{
		"all warm":                   {true, "", []warm.ImageStatus{isWarm}, warm.GroupStatus{Name: "a", Nodes: 1, Stale: "exit status 1"}, ring.ExitAll, "1 of 1 warm"},
		"not found, listed for one":  {false, "r.example/typo:1", []warm.ImageStatus{unfound("n1")}, warm.GroupStatus{}, ring.ExitNone, "0 of 2 warm; blocked: not found yet"},
		"not found, listed for none": {false, "r.example/typo:1", []warm.ImageStatus{unfound("n3")}, warm.GroupStatus{}, ring.ExitNone, "0 of 2 warm; blocked: not found yet"},
		"not found, two platforms":   {false, "r.example/typo:1", []warm.ImageStatus{unfound("n3"), unfound("n4")}, warm.GroupStatus{}, ring.ExitNone, "0 of 2 warm; blocked: not found yet"},
		"no nodes":                   {true, "", []warm.ImageStatus{isWarm, alone}, warm.GroupStatus{}, ring.ExitPartial, "0 of 0 warm; blocked: no nodes"},
		"left out":                   {true, "", []warm.ImageStatus{left}, warm.GroupStatus{}, ring.ExitPartial, "1 of 2 warm; degraded; failed (has 512 images before this one): n2"},
		"group never read":           {true, "", []warm.ImageStatus{isWarm}, warm.GroupStatus{Name: "b", Stale: "exit status 1"}, ring.ExitPartial, "nodes.b: the list of 0 nodes is stale"},
		"group not read yet":         {true, name, []warm.ImageStatus{isWarm}, warm.GroupStatus{Name: "b"}, ring.ExitPartial, "nodes.b: the list of nodes was not read yet"},
	} {
		s := &status{socket: "x", own: c.own, list: &warm.Snapshot{Groups: []warm.GroupStatus{c.group}, Images: c.images}}
		if c.group.Name == "" {
			s.list.Groups = nil
		}
		s.replies = []ring.Reply{reply("n1", d, ring.HoldsAll), reply("n2", "", ring.HoldsNone)}
		if c.own && len(c.images[0].Nodes) == 1 {
			s.replies = s.replies[:1]
		}
		asks := &statusAsks{}
		if c.image != "" {
			var err error
			if asks.wanted, err = wants([]string{c.image}); err != nil {
				t.Fatal(err)
			}
		}
		s.sum(asks.wanted)
		var b bytes.Buffer
		if err := s.print(&b); err != nil || s.exit != c.exit || !strings.Contains(b.String(), c.line) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s", what, s.exit, c.exit, c.line, b.String())
		}
		if _, text := asks.pending(s, nil); (text == "") != (c.exit == ring.ExitAll) {
			t.Errorf("%s: --wait waits for %q", what, text)
		}
	}
	if code := (&status{replies: []ring.Reply{reply("n1", d, ring.HoldsAll)}}).exitStatus(true); code != ring.ExitNone {
		t.Errorf("a node of which nothing is shown: exit %d", code)
	}
}
