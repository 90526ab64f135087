package ring

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Why a node cannot be talked to stands in its row with the address, and by class: each of these needs
// something else to be looked at.
func TestCauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		c.node("good:1")
		for _, name := range []string{"frozen:1", "nobody:1", "mute:1", "ends:1"} {
			c.name(name)
		}
		c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: "nameless", Err: errNoName})
		c.net.Freeze("frozen")
		mute, ends := c.net.Listen("mute:1"), c.net.Listen("ends:1")
		defer mute.Close()
		defer ends.Close()
		go mute.Accept()
		go func() {
			for {
				conn, err := ends.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		var lost []Event
		c.cfg.OnEvent = func(e Event) {
			if e.Kind == EventNode && e.State == Unreachable {
				lost = append(lost, e)
			}
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []Cause{
			{},
			{FaultSilent, "no answer from ", "frozen:1", " in 2s"},
			{FaultPort, "connection refused by ", "nobody:1", ""},
			{FaultHangs, "", "10.0.0.4:9998", " takes the connection and does not answer in 5s"},
			{FaultClosed, "", "10.0.0.5:9998", " closed the connection without an answer"},
			{FaultName, errNoName.Error(), "", ""},
		} {
			row := r.Nodes[i]
			if row.Cause != want || row.Reason != want.String() || (row.State == Committed) != (i == 0) {
				t.Errorf("%s %s: %+v, want %+v", row.Node, row.State, row.Cause, want)
			}
		}
		for _, e := range lost {
			if e.Cause.String() != e.Reason || !strings.Contains(e.Reason, e.Cause.Addr) || e.Cause.Fault == FaultNone {
				t.Errorf("event %+v", e)
			}
		}
	})
}

var errNoName = &noAnswer{because("name not resolved: no such host")}

// A node that is lost and does not come back says where nobody listens any more.
func TestCauseOfLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, 20*time.Second)
		c := newMemCluster(t, src)
		c.node("a:1")
		c.node("b:1")
		kill := time.AfterFunc(5*time.Second, func() { c.net.Kill("b") })
		defer kill.Stop()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		want := Cause{FaultPort, "lost during the transfer: connection refused by ", "b:1", ""}
		if row := r.Nodes[1]; row.State != Failed || row.Cause != want {
			t.Errorf("%s: %+v, want %+v", row.State, row.Cause, want)
		}
	})
}
