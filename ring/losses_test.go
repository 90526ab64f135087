package ring

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// killAt ends a node once the source was read so far.
func killAt(src *memSource, at int64, n ...*testNode) {
	var once sync.Once
	src.read = func(_ int, off int64) {
		if off >= at {
			once.Do(func() {
				for _, n := range n {
					n.die()
				}
			})
		}
	}
}

func TestNodeKilled(t *testing.T) {
	blob := random(1, 7<<20)
	for name, dead := range map[string][]int{"first": {0}, "middle": {2}, "last": {4}, "adjacent": {1, 2}, "both ends": {0, 4}, "all but one": {0, 1, 3, 4}} {
		for _, kind := range []string{"tls", "plain", "blind"} {
			if kind == "plain" && name != "middle" || kind == "blind" && name != "adjacent" && name != "all but one" {
				continue // what it does about a loss has nothing to do with TLS, and little with where the bytes come from again
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				c := newCluster(t, 5, nil)
				if kind == "blind" { // nothing stored can be replayed: window, else the server
					for _, n := range c.nodes {
						n.node.config().Accept = func(context.Context, Request) (Sink, error) { return blind{n.sink}, nil }
					}
				}
				src := newMemSource(true, blob)
				var victims []*testNode
				isDead := map[int]bool{}
				for _, i := range dead {
					victims = append(victims, c.nodes[i])
					isDead[i] = true
				}
				killAt(src, 3<<20, victims...)
				cfg := c.config(src)
				cfg.Plain = kind == "plain"
				r, err := send(t, cfg)
				if err != nil {
					t.Fatal(err)
				}
				for i, row := range r.Nodes {
					want := Committed
					if isDead[i] {
						want = Failed
					}
					if row.State != want {
						t.Errorf("%s: %s (%s), want %s", row.Node, row.State, row.Reason, want)
					}
					if !isDead[i] {
						c.nodes[i].check(t, row, blob)
					}
				}
				if got := r.Status(err, 0); got != ExitPartial {
					t.Errorf("exit status %d", got)
				}
				if extra := r.Sent - int64(len(blob)); extra > 17<<20 {
					t.Errorf("the server sent %d bytes more than the image", extra)
				}
			})
		}
	}
}

// A node whose control connection is cut stays in the chain, at whatever moment.
func TestControlCut(t *testing.T) {
	blob := random(1, 12<<20)
	for _, at := range []int64{0, 4 << 20, 11 << 20} {
		c := newCluster(t, 3, nil)
		src := newMemSource(true, blob)
		var once sync.Once
		src.read = func(_ int, off int64) {
			if off >= at {
				once.Do(func() {
					l := c.nodes[1].listener
					l.mu.Lock()
					defer l.mu.Unlock()
					l.conns[0].Close() // the first is control
				})
			}
		}
		r, err := send(t, c.config(src))
		if err != nil {
			t.Fatal(err)
		}
		c.wants(r, Committed, blob)
	}
}

// What fails on one node is that node's row; the others do not notice.
func TestNodeFails(t *testing.T) {
	blobs := [][]byte{random(1, 9<<20), random(2, 100)}
	for _, what := range []string{"offer", "begin", "write", "commit", "publish"} {
		c := newCluster(t, 3, nil)
		c.nodes[1].sink.fail = func(w string, _ int) error {
			if w == what {
				return errors.New("disk on fire")
			}
			return nil
		}
		r, err := send(t, c.config(newMemSource(true, blobs...)))
		if err != nil {
			t.Fatal(err)
		}
		want := Failed
		if what == "offer" {
			want = Refused
		}
		for i, row := range r.Nodes {
			if i == 1 {
				if row.State != want || !strings.Contains(row.Reason, "disk on fire") {
					t.Errorf("%s: %s: %s", what, row.State, row.Reason)
				}
				continue
			}
			if row.State != Committed {
				t.Errorf("%s: %s is %s: %s", what, row.Node, row.State, row.Reason)
			}
			c.nodes[i].check(t, row, blobs...)
		}
		if o := <-c.nodes[1].outcomes; o.State != Failed { // once for each that was accepted, also when its sink says no
			t.Errorf("%s: outcome %+v", what, o)
		}
		c.nodes[1].node.Shutdown(t.Context())
		if s := c.nodes[1].sink; s.closed != 1 {
			t.Errorf("%s: the sink was closed %d times", what, s.closed)
		}
	}
}

type changingSource struct {
	*memSource
	err error
}

func (s changingSource) Unchanged(context.Context) error { return s.err }

// trusting is a source that would verify what it gives, and is asked not to.
type trusting struct{ *memSource }

func (s trusting) Open(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
	return nil, errors.New("was asked to verify")
}

func (s trusting) OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return s.memSource.Open(ctx, d, off)
}

// Whatever happens to the source, also at its last byte: nothing is committed
// anywhere.
func TestSourceFails(t *testing.T) {
	blob := random(1, 9<<20)
	short := newMemSource(true, blob)
	short.blobs[0] = blob[:len(blob)-1]
	long := newMemSource(true, blob)
	long.blobs[0] = append(blob[:len(blob):len(blob)], 1)
	wrong := newMemSource(true, blob)
	wrong.blobs[0] = random(2, len(blob))
	for name, src := range map[string]Source{
		"shrinks": short, "grows": long, "other bytes": wrong, "other bytes, which the source would have verified": trusting{wrong},
		"changed at the end": changingSource{newMemSource(true, blob), errors.New("its modification time changed")},
	} {
		c := newCluster(t, 2, nil)
		r, err := send(t, c.config(src))
		var se *SourceError
		if !errors.As(err, &se) {
			t.Errorf("%s: %v", name, err)
		}
		damaged := strings.HasSuffix(name, "would have verified")
		if kind, _ := errkind.Of(err); (kind == "image-damaged") != damaged || se.Kept {
			t.Errorf("%s: kind %q, kept %v: %v", name, kind, se.Kept, err)
		}
		c.wants(r, Failed)
		if got := r.Status(err, 0); got != ExitSource {
			t.Errorf("%s: exit status %d", name, got)
		}
	}
}

// breaking is a trusting source whose second blob cannot be read.
type breaking struct{ trusting }

func (s breaking) OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if d.Digest == s.descs[1].Digest {
		return nil, errors.New("input/output error")
	}
	return s.trusting.OpenUnverified(ctx, d, off)
}

// A blob that cannot be read does not hide that the one before it was wrong, which nodes must not keep.
func TestSourceWrongThenBreaks(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		c := newCluster(t, 2, nil)
		src := newMemSource(true, random(1, 12<<20), random(2, 1<<20))
		if wrong {
			src.blobs[0] = random(3, 12<<20)
		}
		r, err := send(t, c.config(breaking{trusting{src}}))
		var se *SourceError
		if kind, _ := errkind.Of(err); !errors.As(err, &se) || se.Kept == wrong || (kind == "image-damaged") != wrong {
			t.Errorf("wrong %v: kept %v: %v", wrong, se.Kept, err)
		}
		c.wants(r, Failed)
	}
}

// A source that turns out wrong in its middle does not wait for anybody.
func TestSourceFailsEarly(t *testing.T) {
	c := newCluster(t, 2, nil)
	src := newMemSource(true, random(1, 5<<20), random(2, 20<<20))
	src.blobs[0] = random(3, 5<<20)
	r, err := send(t, c.config(src))
	var se *SourceError
	if !errors.As(err, &se) || !strings.Contains(err.Error(), "blob 0") {
		t.Error(err)
	}
	c.wants(r, Failed)
}
