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
