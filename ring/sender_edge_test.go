package ring

import (
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
)

// The coordinator's words become this package's as they are.
func TestEdge(t *testing.T) {
	same := func(ours, theirs string) {
		if ours != theirs {
			t.Errorf("%q of ring is %q of the coordinator", ours, theirs)
		}
	}
	for ours, theirs := range map[State]coordinator.State{
		Pending: coordinator.Pending, Serving: coordinator.Serving, Lost: coordinator.Lost, Committed: coordinator.Committed,
		Held: coordinator.Held, Failed: coordinator.Failed, Refused: coordinator.Refused, Unreachable: coordinator.Unreachable,
	} {
		same(string(ours), string(theirs))
	}
	for ours, theirs := range map[Limit]coordinator.Limit{
		Limit(""): coordinator.LimitUnknown, LimitProcessor: coordinator.LimitProcessor, LimitHash: coordinator.LimitHash, LimitDisk: coordinator.LimitDisk,
		LimitNetwork: coordinator.LimitNetwork, LimitPolicy: coordinator.LimitPolicy, LimitRate: coordinator.LimitRate, LimitSource: coordinator.LimitSource,
	} {
		same(string(ours), string(theirs))
	}
	for ours, theirs := range map[Straggler]coordinator.Straggler{Demote: coordinator.Demote, Drop: coordinator.Drop, Wait: coordinator.Wait} {
		same(string(ours), string(theirs))
	}
	same(string(FaultSilent), string(coordinator.FaultSilent))
	same(string(FaultHangs), string(coordinator.FaultHangs))
}
