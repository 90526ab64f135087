package warmer

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

// What a large image on a ring that nearly stands still takes is no reason for status to refuse all that the controller says.
func TestLongLeft(t *testing.T) {
	s := largeSnapshot()
	s.Images[0].Left = leftOf(ring.Event{Rate: 1, Bytes: 1, Total: 1 << 40})
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := warm.ParseSnapshot(data); err != nil || got.Images[0].Left != mostLeft {
		t.Errorf("%v, %v left", err, s.Images[0].Left)
	}
	if left := leftOf(ring.Event{Rate: 2e9, Bytes: 1e9, Total: 2e9}); left.String() != "500ms" {
		t.Errorf("%v left", left)
	}
}

// A push that is ended while another one of the same digest runs is nobody's failure.
func TestPushEndsInLine(t *testing.T) {
	e := &Effects{}
	p := &warm.Push{Digest: digest.FromString("image"), Nodes: []string{"n1", "n2"}}
	done, err := e.turns.take(t.Context(), p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rows, err := e.Push(ctx, p, nil, nil)
	if err == nil || len(rows) != 2 || rows[1] != (warm.Row{Node: "n2", Outcome: warm.Interrupted}) {
		t.Errorf("%+v, %v", rows, err)
	}
}

// Nodes that refuse a name have one reason for it, which can be folded: their caches say which one they are, and what the name leads to.
func TestConflictFolds(t *testing.T) {
	for _, node := range []string{"n1", "n2"} {
		d := digest.FromString(node)
		got := rowOf(ring.Row{Node: node, State: ring.Refused, Code: ring.CodeInUse,
			Reason: "cache /c/" + node + ": the name x/a:1 is of the warmer head1, and leads to " + d.String() + " (take the name out of one of the two lists)"}, 1)
		if want := (warm.Row{Node: node, Outcome: warm.Conflict, Why: "the name is of the warmer head1"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
