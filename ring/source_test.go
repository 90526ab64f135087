package ring

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/internal/memnet"
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

// unreadable is a source that can be offered and not be read.
type unreadable struct{ *memSource }

func (unreadable) Open(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
	return nil, errors.New("it cannot be read")
}

// What a node tells its owner of transfers. One begins when its Sink has answered the offer, and ends after that; an offer is refused
// once, whoever says no; and a link that breaks is told of while its transfer goes on.
func TestNodeTells(t *testing.T) {
	no := errors.New("no")
	for name, tt := range map[string]struct {
		edit func(c *memCluster, tn *testNode, cfg *NodeConfig)
		want []string
	}{
		"accepted": {func(*memCluster, *testNode, *NodeConfig) {}, []string{"began", "committed"}},
		"refused by the sink": {func(_ *memCluster, tn *testNode, _ *NodeConfig) {
			tn.sink.fail = func(what string, _ int) error {
				if what == "offer" {
					return no
				}
				return nil
			}
		}, []string{"failed, refused", "no: policy"}},
		"refused": {func(_ *memCluster, _ *testNode, cfg *NodeConfig) {
			cfg.Accept = func(context.Context, Request) (Sink, error) { return nil, no }
		}, []string{"no: policy"}},
		"asked":        {func(c *memCluster, _ *testNode, _ *NodeConfig) { c.cfg.Check = true }, []string{"began", "failed, asked"}},
		"source fails": {func(c *memCluster, _ *testNode, _ *NodeConfig) { c.cfg.Source = unreadable{c.cfg.Source.(*memSource)} }, []string{"began", "failed, interrupted"}},
		"damaged": {func(c *memCluster, _ *testNode, cfg *NodeConfig) {
			c.cfg.Plain, cfg.AllowPlain = true, true
			c.net.Damage("server", "a", memnet.Damage{First: 'D', Offset: 500, Times: 1})
		}, []string{"began", "broken: crc", "committed"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, newMemSource(true, random(1, 1000)))
				tn, _ := c.node("a:1")
				cfg := *tn.node.config()
				var mu sync.Mutex
				var calls []string
				call := func(text string) {
					mu.Lock()
					defer mu.Unlock()
					calls = append(calls, text)
				}
				cfg.Began = func(Request) { call("began") }
				cfg.Refused = func(_ Request, code string) { call("no: " + code) }
				cfg.LinkFault = func(code string) { call("broken: " + code) }
				cfg.Finished = func(_ Request, o Outcome) {
					text := string(o.State)
					for _, is := range []struct {
						so   bool
						text string
					}{{o.Refused, ", refused"}, {o.Asked, ", asked"}, {o.Interrupted, ", interrupted"}} {
						if is.so {
							text += is.text
						}
					}
					call(text)
				}
				tt.edit(c, tn, &cfg)
				if err := tn.node.Reconfigure(cfg); err != nil {
					t.Fatal(err)
				}
				_, _ = c.send() // that of a source that fails is an error
				synctest.Wait()
				if len(calls) > 0 && calls[0] != "began" {
					slices.Sort(calls) // that it was refused and that it ended are told beside each other
				}
				if !slices.Equal(calls, tt.want) {
					t.Errorf("called %q, want %q", calls, tt.want)
				}
				if in, out := tn.node.Traffic(); in < 1000 != (name != "accepted" && name != "damaged") || out != 0 {
					t.Errorf("%d bytes received, %d sent", in, out)
				}
			})
		})
	}
}
