package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// TestEventQueue: who puts never waits for who takes, nothing but outdated progress is
// lost, and the order stays.
func TestEventQueue(t *testing.T) {
	started, gate := make(chan struct{}), make(chan struct{})
	var got []string
	q := newEventQueue(func(e ring.Event) {
		if len(got) == 0 {
			close(started)
			<-gate
		}
		got = append(got, fmt.Sprint(e.Kind, e.Bytes, e.Node))
	})
	q.put(ring.Event{Kind: ring.EventPlan})
	<-started
	for i := range 100 {
		q.put(ring.Event{Kind: ring.EventProgress, Bytes: int64(i)})
	}
	q.put(ring.Event{Kind: ring.EventNode, Node: "a"})
	q.put(ring.Event{Kind: ring.EventNode, Node: "b"})
	q.put(ring.Event{Kind: ring.EventProgress, Bytes: 100})
	close(gate)
	q.close()
	if want := "plan0 progress99 node0a node0b progress100"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A reader that does not read costs a bounded number of events. The newest of each node and link is among them, in
// order, and it is told how many are not.
func TestEventQueueSheds(t *testing.T) {
	const flood = 50 * maxWaiting
	started, gate := make(chan struct{}), make(chan struct{})
	var got []ring.Event
	q := newEventQueue(func(e ring.Event) {
		if len(got) == 0 {
			close(started)
			<-gate
		}
		got = append(got, e)
	})
	q.put(ring.Event{Kind: ring.EventPlan})
	<-started
	q.put(ring.Event{Kind: ring.EventNode, Node: "b", State: ring.Committed})
	for i := range flood {
		q.put(ring.Event{Kind: ring.EventLink, Link: fmt.Sprint("a -> n", i%3), Reason: fmt.Sprint(i)})
		q.put(ring.Event{Kind: ring.EventProgress, Bytes: int64(i)})
	}
	q.put(ring.Event{Kind: ring.EventNode, Node: "a", State: ring.Failed})
	close(gate)
	q.close()
	if most := maxWaiting + 5; len(got) > most {
		t.Fatalf("%d events were kept, want %d at most", len(got), most)
	}
	last, links, shed := map[string]string{}, 0, 0
	for _, e := range got {
		last[string(e.Kind)+e.Link+e.Node] = e.Reason + string(e.State)
		if shed += e.Shed; e.Kind == ring.EventLink {
			links++
		}
	}
	if links+shed != flood {
		t.Errorf("%d events of links came and %d are said to be left out, of %d", links, shed, flood)
	}
	for i := range 3 {
		if key, want := fmt.Sprint("linka -> n", (flood-1-i)%3), fmt.Sprint(flood-1-i); last[key] != want {
			t.Errorf("the last event of %s is %s, want %s", key, last[key], want)
		}
	}
	if last["nodea"] != "failed" || last["nodeb"] != "committed" || got[len(got)-1].Node != "a" {
		t.Errorf("the rows of nodes are %q", last)
	}
}
