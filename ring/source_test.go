package ring

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/leaf"
)

// fullSink adds all that a Sink may add.
type fullSink struct{ *memSink }

func (fullSink) TargetState() TargetState        { return TargetUnknown }
func (fullSink) ReadsBack() bool                 { return true }
func (fullSink) Keep()                           {}
func (fullSink) Switches(context.Context) bool   { return true }
func (fullSink) String() string                  { return "full" }
func (fullSink) Holds(v1.Descriptor, int64) bool { return true }
func (fullSink) Compare(context.Context, v1.Descriptor) (int64, error) {
	return 0, nil
}
func (fullSink) Same(v1.Descriptor) bool           { return true }
func (fullSink) Compared(v1.Descriptor, *leaf.Set) {}
func (fullSink) Target(context.Context) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}
func (fullSink) Prepare(context.Context, []v1.Descriptor) (bool, error) {
	return true, nil
}

// Whatever a Sink adds is found, and nothing else: a field of sinkExtras that extrasOf forgets would
// make every Sink one that does not add it.
func TestSinkExtras(t *testing.T) {
	full, none := reflect.ValueOf(extrasOf(fullSink{newMemSink()})), reflect.ValueOf(extrasOf(blind{newMemSink()}))
	for i := range full.NumField() {
		name := full.Type().Field(i).Name
		if full.Field(i).IsNil() {
			t.Errorf("%s is not found", name)
		}
		if !none.Field(i).IsNil() {
			t.Errorf("%s is found where it is not", name)
		}
	}
}

// A transfer begins when its Sink has answered the offer, and ends after that.
func TestBegan(t *testing.T) {
	for name, refuse := range map[string]error{"accepted": nil, "refused": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, newMemSource(true, random(1, 1000)))
				tn, _ := c.node("a:1")
				tn.sink.fail = func(what string, _ int) error {
					if what == "offer" {
						return refuse
					}
					return nil
				}
				cfg := *tn.node.config()
				var calls []string
				cfg.Began = func(r Request) { calls = append(calls, "began "+r.Transfer) }
				cfg.Finished = func(r Request, _ Outcome) { calls = append(calls, "finished "+r.Transfer) }
				if err := tn.node.Reconfigure(cfg); err != nil {
					t.Fatal(err)
				}
				r, err := c.send()
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				want := []string{"began " + r.Transfer, "finished " + r.Transfer}
				if refuse != nil {
					want = want[1:]
				}
				if !reflect.DeepEqual(calls, want) {
					t.Errorf("called %q, want %q", calls, want)
				}
			})
		})
	}
}
