package ring

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A node that is killed is out in the next snapshots, with its reason; the one behind it is fed by the one before it, which
// the snapshot says, and that this link goes around the dead one. At the end each node is as its row says.
func TestNodesSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(1<<20, 12*time.Second)
		c := newMemCluster(t, src)
		c.cfg.Retries = 1
		for _, name := range []string{"a:1", "b:1", "c:1", "d:1"} {
			c.node(name)
		}
		c.name("never:1")
		var snaps []NodesSnapshot
		c.cfg.OnNodes = func(s NodesSnapshot) { snaps = append(snaps, s) }
		time.AfterFunc(4500*time.Millisecond, func() { c.net.Kill("b") })
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		checkSnapshots(t, snaps, r)
		at := func(d time.Duration) NodesSnapshot {
			k := slices.IndexFunc(snaps, func(s NodesSnapshot) bool { return s.Time.Sub(c.begun) >= d })
			return snaps[max(k, 0)]
		}
		feeders := func(s NodesSnapshot) (f []int) {
			for _, n := range s.Nodes {
				f = append(f, n.Feeder)
			}
			return f
		}
		before, after := at(4*time.Second), at(10*time.Second)
		if before.Phase != PhaseSend || !slices.Equal(feeders(before), []int{0, 1, 2, 3, -1}) || before.Sums.Serving != 4 || before.Left <= 0 {
			t.Errorf("before: %+v", before)
		}
		for _, n := range before.Nodes[:4] {
			if n.State != Serving || !n.Linked || n.Bypassed || n.Bytes == 0 || n.Wait == "" || n.Since.After(before.Time.Add(-time.Second)) {
				t.Errorf("before: %+v", n)
			}
		}
		if b, late := after.Nodes[1], after.Nodes[4]; b.State != Lost || b.Wait != WaitAnswer || !strings.Contains(b.Cause.String(), "b:1") || !b.Bypassed || b.Linked ||
			late.State != Unreachable || late.Wait != WaitAnswer || late.Cause.String() == "" || !late.Since.Equal(snaps[0].Time) && late.Since.After(before.Time) {
			t.Errorf("after: %+v, %+v", b, late)
		}
		if f := feeders(after); f[2] != 1 || f[3] != 3 || !after.Nodes[2].Linked || after.Nodes[2].Bypassed {
			t.Errorf("after: feeders %v", f)
		}
	})
}

// checkSnapshots looks for what no snapshot may say, and compares the last one with the report.
func checkSnapshots(t *testing.T, snaps []NodesSnapshot, r *Report) {
	t.Helper()
	if len(snaps) == 0 {
		t.Error("no snapshot")
		return
	}
	for k, s := range snaps {
		if last := k == len(snaps)-1; last != (s.Phase == PhaseEnd) || s.Transfer != r.Transfer || len(s.Nodes) != len(r.Nodes) {
			t.Errorf("snapshot %d of %d: %+v", k, len(snaps), s)
			return
		}
		for i, n := range s.Nodes {
			fed := n.Feeder >= 0 && n.Feeder != i+1 && n.Feeder <= len(s.Nodes)
			switch {
			case n.Name != r.Nodes[i].Node, n.State == "", n.Bytes < 0, n.Checked < 0, n.Rate < 0, n.Since.After(s.Time), n.Since.IsZero(),
				!fed && (n.Feeder != -1 || n.Linked), n.Linked && n.State != Serving && n.State != Pending, n.WaitsFor < -1 || n.WaitsFor > len(s.Nodes),
				n.Wait == WaitFeeder && n.WaitsFor != n.Feeder, n.Bypassed && n.State.Good(), n.Slow && n.State != Serving:
				t.Errorf("snapshot %d: %+v", k, n)
			}
		}
	}
	for i, n := range snaps[len(snaps)-1].Nodes {
		if row := r.Nodes[i]; n.State != row.State || n.Cause.String() != row.Reason && n.State != Pending || n.Wait != "" && n.State != Pending {
			t.Errorf("at the end %+v, and the row is %+v", n, row)
		}
	}
}
