package push

import (
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

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
