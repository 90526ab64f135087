package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// checked is the report of a check in which n nodes answered, and of these pairs the first does not reach
// the second.
func checked(n int, pairs ...[2]int) *ring.Report {
	r := &ring.Report{}
	name := func(i int) string { return fmt.Sprintf("n%02d", i) }
	for i := 1; i <= n; i++ {
		r.Nodes = append(r.Nodes, ring.Row{Node: name(i), State: ring.Pending})
	}
	for _, p := range pairs {
		r.Unreached = append(r.Unreached, ring.Unreached{From: name(p[0]), To: name(p[1]), Port: "9998", Reason: "i/o timeout"})
	}
	return r
}

func bothWays(from, to int) (pairs [][2]int) {
	for i := from; i < to; i++ {
		pairs = append(pairs, [2]int{i, i + 1}, [2]int{i + 1, i})
	}
	return pairs
}

func TestWays(t *testing.T) {
	const why = "on port 9998 (i/o timeout)"
	gap := checked(5, bothWays(1, 2)...) // n03 did not answer: n02 and n04 are neighbours
	gap.Nodes[2].State = ring.Unreachable
	gap.Unreached = append(gap.Unreached, ring.Unreached{From: "n02", To: "n04", Port: "9998", Reason: "i/o timeout"})
	refused := checked(3, bothWays(1, 3)...)
	refused.Unreached[2].Reason = "connection refused"
	for name, c := range map[string]struct {
		r    *ring.Report
		want []string
	}{
		"nothing":  {checked(3), nil},
		"all":      {checked(6, bothWays(1, 6)...), []string{"no node of n[01-06] can reach its neighbours in the list " + why}},
		"one pair": {checked(6, bothWays(3, 4)...), []string{"n03 and n04 cannot reach each other " + why}},
		"one way":  {checked(6, [2]int{3, 4}), []string{"n03 cannot reach n04 " + why}},
		"two racks": {checked(8, append(bothWays(1, 3), bothWays(5, 7)...)...), []string{
			"no node of n[01-03] can reach its neighbours in the list " + why,
			"no node of n[05-07] can reach its neighbours in the list " + why}},
		"a gap": {gap, []string{"n01 and n02 cannot reach each other " + why, "n02 cannot reach n04 " + why}},
		"another reason": {refused, []string{"n01 and n02 cannot reach each other " + why,
			"n02 cannot reach n03 on port 9998 (connection refused)", "n03 cannot reach n02 " + why}},
	} {
		if got := ways(c.r); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	var oneWay [][2]int
	for i := range 20 {
		oneWay = append(oneWay, [2]int{i + 1, i + 2})
	}
	if got := ways(checked(21, oneWay...)); len(got) != 9 || got[8] != "and 12 more like these; --report and --json list all of them" {
		t.Errorf("%q", got)
	}
}

// What the server feeds itself shares its speed, and counts as often as it leaves it.
func TestSharedSpeed(t *testing.T) {
	for _, c := range []struct {
		r     *ring.Report
		most  int
		rate  int64
		times int64
		says  string
	}{
		{checked(6), 4, 120, 1, "x"},
		{checked(6, [2]int{3, 2}), 4, 120, 1, "x"}, // backwards nothing is sent
		{checked(6, [2]int{2, 3}, [2]int{4, 5}), 4, 40, 3, "x, shared by up to 3 nodes that the server would feed itself"},
		{checked(6, bothWays(1, 6)...), 4, 24, 5, "x, shared by up to 5 nodes that the server would feed itself; up to 1 would fail, since --max-direct is 4"},
		{checked(6, bothWays(1, 6)...), 0, 120, 1, "x; up to 5 would fail, since --max-direct is 0"},
	} {
		if s := (speed{rate: 120, why: "x"}).shared(c.r, c.most); s.rate != c.rate || s.times != c.times || s.why != c.says {
			t.Errorf("got %+v, want %d, %d, %s", s, c.rate, c.times, c.says)
		}
	}
}
