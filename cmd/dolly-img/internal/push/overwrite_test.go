package push

import (
	"encoding/json"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

func TestOutcomes(t *testing.T) {
	facts := json.RawMessage(`{}`)
	for _, tt := range []struct {
		row  ring.Row
		want string
	}{
		{ring.Row{State: ring.Committed, Facts: facts, Bytes: 5}, Complete},
		{ring.Row{State: ring.Failed, Facts: facts, Bytes: 5, Code: "store"}, Overwritten},
		{ring.Row{State: ring.Failed, Facts: facts, Bytes: 5, Code: "interrupted"}, Overwritten},
		{ring.Row{State: ring.Failed, Facts: facts, Bytes: 5, Code: "unconfirmed"}, Unknown},
		{ring.Row{State: ring.Failed, Facts: facts, Code: "lost"}, Unknown}, // its last report is as old as a second
		{ring.Row{State: ring.Failed, Facts: facts, Code: "policy"}, Untouched},
		{ring.Row{State: ring.Failed, Facts: facts, Code: "unplanned"}, Untouched},
		{ring.Row{State: ring.Refused}, ""}, // there is no device
		{ring.Row{State: ring.Unreachable}, ""},
		{ring.Row{State: ring.Pending, Facts: facts}, ""}, // of a check
	} {
		r := ring.Report{Nodes: []ring.Row{tt.row}}
		if outcomes(&r); r.Nodes[0].Target != tt.want {
			t.Errorf("%+v: %q, want %q", tt.row, r.Nodes[0].Target, tt.want)
		}
	}
}
