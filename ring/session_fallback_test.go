package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Falling back while as many blobs as may be are stored and not yet judged: the store,
// which waited for a place that only the fallback gives back, held it up for ever.
func TestFallbackWithManyBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := NewNode(NodeConfig{
			Accept: func(context.Context, Request) (Sink, error) { return nil, nil }, TLS: new(tls13), DataTLS: func(string) *tls13 { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		var blobs []v1.Descriptor
		var data [][]byte
		var marks []wire.Mark
		for i := range pendingCommits + 4 {
			b := random(uint64(i+1), 100)
			sum := sha256.Sum256(b)
			data = append(data, b)
			blobs = append(blobs, v1.Descriptor{Size: 100, Digest: digest.FromBytes(b)})
			marks = append(marks, wire.Mark{Blob: i, Offset: 100, Sum: sum[:], Final: true})
		}
		tr, ne := n.claim(n.config(), wire.ID{1}, Request{Blobs: blobs}, true)
		if ne != nil {
			t.Fatal(ne)
		}
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		ctrl := newControl(near)
		if ne := tr.open(ctrl, newMemSink()); ne != nil {
			t.Fatal(ne)
		}
		// feed opens a link to the node, and returns its other end.
		feed := func(gen uint32) net.Conn {
			near, far := net.Pipe()
			tr.step(member.EvMsg{Msg: &wire.Feed{Link: gen, Generation: gen}})
			tr.step(member.EvOpen{Link: gen, Generation: gen})
			tr.mu.Lock()
			tr.feed = near
			tr.mu.Unlock()
			low := relay.NewLowConn(near, false, nil)
			hello := wire.LinkHello{Link: gen, Generation: gen}
			go tr.receive(relay.NewLinkReader(low, low, near, hello), hello)
			return far
		}
		arrive := func(to net.Conn, i int, change byte) {
			buf := bytes.Clone(data[i])
			buf[0] ^= change
			var hdr [wire.HeaderSize]byte
			wire.PutData(&hdr, uint32(i), 0, buf)
			if _, err := to.Write(append(hdr[:], buf...)); err != nil {
				t.Fatal(err)
			}
		}
		tr.step(member.EvMsg{Msg: &wire.Start{}})
		link := feed(1)
		for i := range blobs {
			arrive(link, i, byte(1-min(i, 1))) // the first is changed
		}
		synctest.Wait()
		if n := len(tr.storing.settle); n != pendingCommits {
			t.Fatalf("%d blobs are stored and not judged, want %d", n, pendingCommits)
		}
		tr.mu.Lock() // which falling back needs
		tr.perform(tr.m.Step(member.EvMsg{Msg: &wire.Marks{Marks: marks}}))
		// From the decision on, and not from when it is carried out, nobody is fed from the
		// window: the server may order a link at once, and would blame this node for what it sends.
		if err := tr.relay.Err(); !tr.m.Resetting() || err != relay.ErrHalted {
			t.Errorf("falling back (%v), it would send what may be wrong: %v", tr.m.Resetting(), err)
		}
		tr.mu.Unlock()
		synctest.Wait()
		if tr.m.Resetting() {
			t.Fatal("it does not come back from falling back")
		}
		link = feed(2)
		for i := range blobs {
			arrive(link, i, 0)
		}
		synctest.Wait()
		if tr.m.Phase() != member.Verified {
			t.Errorf("phase %d: %v", tr.m.Phase(), tr.m.Failure())
		}
		tr.kill()
		synctest.Wait()
		ctrl.finish()
		<-ctrl.done
		far.Close()
	})
}
