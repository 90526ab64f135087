package coordinator

import (
	"slices"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A node whose part the server ends is believed about its target only once it has failed: what it reported before, it may have begun to
// overwrite since.
func TestLastWord(t *testing.T) {
	report := func(i int, state wire.TargetState) Event { return EvReport{i, wire.Report{Target: state}} }
	failed := func(i int) Event { return EvFail{i, wire.CodeAbandoned, "aborted"} }
	for name, tt := range map[string]struct {
		says []Event
		want wire.TargetState
	}{
		"nothing":                     {nil, wire.TargetUnknown},
		"what was on its way":         {[]Event{report(1, wire.TargetUntouched)}, wire.TargetUnknown},
		"that it has written nothing": {[]Event{report(1, wire.TargetUntouched), failed(1)}, wire.TargetUntouched},
		"that it has begun":           {[]Event{report(1, wire.TargetUntouched), report(1, wire.TargetOverwritten), failed(1)}, wire.TargetOverwritten},
		"that it may have begun":      {[]Event{report(1, wire.TargetUnknown), failed(1)}, wire.TargetUnknown},
		"and is lost":                 {[]Event{report(1, wire.TargetUntouched), EvControlLost{Node: 1}}, wire.TargetUnknown},
		"what cannot be read":         {[]Event{report(1, wire.TargetUntouched), EvFail{1, wire.CodeVersion, "?"}}, wire.TargetUnknown},
	} {
		c := New(Config{Nodes: []Peer{{Name: "n1"}}, Confirm: true, MarkEvery: 4 << 20}, []v1.Descriptor{testBlob})
		for _, ev := range []Event{
			EvWelcome{Node: 1, State: wire.StateNew, Version: wire.Version}, EvAnswer{Node: 1, Held: []int64{0}, Free: -1, Target: []byte(`{"disk":1}`)},
			EvConfirmed{}, EvMarked{}, report(1, wire.TargetUntouched),
		} {
			c.Step(ev)
		}
		hangsUp := func(did []Action) bool {
			return slices.ContainsFunc(did, func(a Action) bool { h, ok := a.(ActHangup); return ok && h.Node == 1 })
		}
		if did := c.Step(EvInterrupt{}); !c.Parting() || hangsUp(did) {
			t.Errorf("%s: nobody waits for what it says", name)
		}
		hung := false
		for _, ev := range tt.says {
			hung = hangsUp(c.Step(ev)) || hung
		}
		ends := len(tt.says) > 1
		if got := c.Row(1).Became; got != tt.want || c.Parting() == ends || hung != ends {
			t.Errorf("%s: %s, want %s; waits: %v, hung up: %v", name, got, tt.want, c.Parting(), hung)
		}
	}
}
