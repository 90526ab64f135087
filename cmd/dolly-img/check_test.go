package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

func TestLinkSpeed(t *testing.T) {
	sys := t.TempDir()
	for said, want := range map[string]int64{"1000\n": 125e6, "-1\n": 0, "0\n": 0, "": 0, "x\n": 0, "4294967295\n": 0} {
		if err := os.MkdirAll(filepath.Join(sys, "eth0"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, "eth0", "speed"), []byte(said), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := linkSpeed(sys, "eth0"); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v", said, got, ok)
		}
	}
	if _, ok := linkSpeed(sys, "eth1"); ok {
		t.Error("an interface that is not there has a speed")
	}
}

func TestCheckStatus(t *testing.T) {
	for _, c := range []struct {
		states []ring.State
		enough int
		want   int
	}{
		{[]ring.State{ring.Pending, ring.Held}, 0, 0},
		{[]ring.State{ring.Pending, ring.Failed}, 0, 3},
		{[]ring.State{ring.Pending, ring.Failed}, 1, 0},
		{[]ring.State{ring.Unreachable, ring.Refused}, 0, 4},
		{[]ring.State{ring.Refused, ring.Refused}, 0, 5},
	} {
		r := &ring.Report{}
		for _, s := range c.states {
			r.Nodes = append(r.Nodes, ring.Row{State: s})
		}
		if got := checkStatus(r, nil, c.enough); got != c.want || r.Nodes[0].State != c.states[0] {
			t.Errorf("%v: %d, want %d", c, got, c.want)
		}
	}
}
