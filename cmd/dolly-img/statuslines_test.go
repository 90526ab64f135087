package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

// manyStatus is what 1000 nodes and a controller say of 20 images: of the first 900 nodes nearly all have all, and each of the others lacks some
// for a reason of its own, since a time of its own.
func manyStatus() *status {
	at := time.Date(2026, 11, 30, 20, 5, 0, 0, time.UTC)
	s := &status{socket: "warm.sock", own: true, list: &warm.Snapshot{At: at}}
	old := digest.FromString("old")
	for n := range 1000 {
		r := ring.Reply{Node: fmt.Sprintf("node%04d", n)}
		if n >= 950 {
			r.State, r.Cause = ring.Unreachable, ring.Cause{Fault: ring.FaultRoute, Text: "no route to host"}
		}
		s.replies = append(s.replies, r)
	}
	for i := range 20 {
		name := fmt.Sprintf("registry.example/team/app:%d", i)
		l := warm.ImageStatus{Ref: "docker://" + name, Name: name, Digest: digest.FromString(name), State: warm.ImageDegraded}
		for n := range s.replies {
			r, state := &s.replies[n], warm.NodeStatus{Node: s.replies[n].Node, State: warm.NodeWarm}
			h := ring.HeldImage{Name: name, Digest: l.Digest, State: ring.HoldsAll, Named: l.Digest}
			switch {
			case n >= 950:
				state.State, state.Since = warm.NodeAway, at.Add(-time.Duration(n)*time.Minute)
			case n >= 900:
				state.State, state.Reason, state.Next = warm.NodeFailed, fmt.Sprintf("lost at byte %d", n), at.Add(time.Duration(n)*time.Second)
				h.State, h.Named = ring.HoldsPart, ""
			case n == 17 && i == 3:
				h.State, h.Named = ring.HoldsNone, old
			}
			if r.State == "" {
				r.Images = append(r.Images, h)
			}
			l.Nodes = append(l.Nodes, state)
		}
		s.list.Images = append(s.list.Images, l)
	}
	// The old one has a tag on one of the nodes.
	s.replies[18].Images = append(s.replies[18].Images, ring.HeldImage{Name: "registry.example/team/app:old", Digest: old, Named: old, State: ring.HoldsAll})
	return s
}

// What 1000 nodes say of 20 images is a line for each, of a length that can be read, and nothing of it is taken for warm that is not.
func TestStatusFolds(t *testing.T) {
	was := time.Local
	time.Local = time.UTC
	defer func() { time.Local = was }()
	s := manyStatus()
	s.sum(nil)
	var b bytes.Buffer
	if err := s.print(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 22 || s.exit != ring.ExitPartial {
		t.Fatalf("%d lines, exit %d\n%s", len(lines), s.exit, b.String())
	}
	want := "registry.example/team/app:3   " + shortDigest(s.list.Images[3].Digest) + "  899 of 1000 warm; degraded; behind (old): node0017" +
		"; failed (lost at byte 900; next try 20:20): node0900; failed (lost at byte 901; next try 20:20): node0901; failed (lost at byte 902; next try 20:20): node0902" +
		"; failed (others; next try 20:20 to 20:20): node[0903-0949]; away since 03:26 to 04:15: node[0950-0999]"
	if got := lines[3]; got != strings.Replace(want, "20:20 to 20:20", "20:20", 1) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if want := "unreachable 50"; !strings.HasPrefix(lines[20], want) {
		t.Errorf("%s", lines[20])
	}
}

// An image of two platforms is two lines, each with its own nodes, and what is beside the list counts for the first.
func TestStatusPlatforms(t *testing.T) {
	amd, arm, other := digest.FromString("amd64"), digest.FromString("arm64"), digest.FromString("other")
	const name = "r.example/app:1"
	list := &warm.Snapshot{Images: []warm.ImageStatus{
		{Ref: "docker://" + name, Name: name, Digest: amd, Platform: "linux/amd64", Nodes: []warm.NodeStatus{{Node: "a"}}},
		{Ref: "docker://" + name, Name: name, Digest: arm, Platform: "linux/arm64", Nodes: []warm.NodeStatus{{Node: "b"}, {Node: "c"}}},
	}}
	reply := func(node string, named digest.Digest) ring.Reply {
		r := ring.Reply{Node: node}
		for _, d := range []digest.Digest{amd, arm} { // both are asked of all
			state := ring.HoldsNone
			if d == named {
				state = ring.HoldsAll
			}
			r.Images = append(r.Images, ring.HeldImage{Name: name, Digest: d, State: state, Named: named})
		}
		return r
	}
	for _, tt := range []struct {
		own   bool
		nodes []ring.Reply
		want  string
		exit  int
	}{
		{true, []ring.Reply{reply("a", amd), reply("b", arm), reply("c", arm)}, name + " (linux/amd64)  AMD  1 of 1 warm\n" + name + " (linux/arm64)  ARM  2 of 2 warm\n", ring.ExitAll},
		{false, []ring.Reply{reply("a", amd), reply("c", other), reply("x", amd)}, name + " (linux/amd64)  AMD  2 of 2 warm\n" + name + " (linux/arm64)  ARM  0 of 1 warm; behind (OTHER): c\n", ring.ExitPartial},
		{false, []ring.Reply{reply("c", arm)}, name + " (linux/arm64)  ARM  1 of 1 warm\n", ring.ExitAll},
	} {
		s := &status{list: list, own: tt.own, replies: tt.nodes}
		s.sum([]wanted{{arg: name, ref: name, names: []string{name}}})
		var b bytes.Buffer
		if err := s.print(&b); err != nil {
			t.Fatal(err)
		}
		want := strings.NewReplacer("AMD", shortDigest(amd), "ARM", shortDigest(arm), "OTHER", shortDigest(other)).Replace(tt.want)
		if b.String() != want || s.exit != tt.exit {
			t.Errorf("got exit %d\n%swant %d\n%s", s.exit, b.String(), tt.exit, want)
		}
	}
}

// BenchmarkStatusFolds is what status does with the answers of 1000 nodes about 20 images.
func BenchmarkStatusFolds(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := manyStatus()
		b.StartTimer()
		s.sum(nil)
		s.print(io.Discard)
	}
}
