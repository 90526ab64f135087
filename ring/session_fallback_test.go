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

// fedSession is a node's session that a test feeds by hand.
type fedSession struct {
	*testing.T
	*session
	data [][]byte // of each blob
}

// newFedSession opens a session for blobs, of which data holds the bytes. It ends with the test.
func newFedSession(t *testing.T, blobs []v1.Descriptor, data [][]byte) *fedSession {
	return newFedSessionTo(t, newMemSink(), blobs, data)
}

// newFedSessionTo is newFedSession with a sink.
func newFedSessionTo(t *testing.T, sink Sink, blobs []v1.Descriptor, data [][]byte) *fedSession {
	n, err := NewNode(NodeConfig{
		Accept: func(context.Context, Request) (Sink, error) { return nil, nil }, TLS: new(tls13), DataTLS: func(string) *tls13 { return nil }, Client: clientOf,
	})
	if err != nil {
		t.Fatal(err)
	}
	tr, ne := n.claim(n.config(), owner{}, wire.ID{1}, Request{Blobs: blobs}, true, 0)
	if ne != nil {
		t.Fatal(ne)
	}
	near, far := net.Pipe()
	go io.Copy(io.Discard, far)
	ctrl := newControl(near, n.memory)
	if ne := tr.open(ctrl, sink); ne != nil {
		t.Fatal(ne)
	}
	t.Cleanup(func() {
		tr.kill()
		synctest.Wait()
		ctrl.finish()
		<-ctrl.done
		far.Close()
	})
	return &fedSession{t, tr, data}
}

// link opens a link to the node, and returns its other end.
func (s *fedSession) link(gen uint32) net.Conn {
	near, far := net.Pipe()
	s.step(member.EvMsg{Msg: &wire.Feed{Link: gen, Generation: gen}})
	s.step(member.EvOpen{Link: gen, Generation: gen})
	s.mu.Lock()
	s.feed = near
	s.mu.Unlock()
	low := relay.NewLowConn(near, false, nil)
	hello := wire.LinkHello{Link: gen, Generation: gen}
	go s.receive(relay.NewLinkReader(low, low, near, hello), hello)
	return far
}

// send sends all of blob i as one frame, with change in its first byte.
func (s *fedSession) send(to net.Conn, i int, change byte) {
	buf := bytes.Clone(s.data[i])
	buf[0] ^= change
	var hdr [wire.HeaderSize]byte
	wire.PutData(&hdr, uint32(i), 0, buf)
	if _, err := to.Write(append(hdr[:], buf...)); err != nil {
		s.Fatal(err)
	}
}

// Falling back while as many blobs as may be are stored and not yet judged: the store,
// which waited for a place that only the fallback gives back, held it up for ever.
func TestFallbackWithManyBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		s := newFedSession(t, blobs, data)
		s.step(member.EvMsg{Msg: &wire.Start{}})
		link := s.link(1)
		for i := range blobs {
			s.send(link, i, byte(1-min(i, 1))) // the first is changed
		}
		synctest.Wait()
		if n := len(s.storing.settle); n != pendingCommits {
			t.Fatalf("%d blobs are stored and not judged, want %d", n, pendingCommits)
		}
		s.mu.Lock() // which falling back needs
		s.perform(s.m.Step(member.EvMsg{Msg: &wire.Marks{Marks: marks}}))
		// From the decision on, and not from when it is carried out, nobody is fed from the
		// window: the server may order a link at once, and would blame this node for what it sends.
		if err := s.relay.Err(); !s.m.Resetting() || err != relay.ErrHalted {
			t.Errorf("falling back (%v), it would send what may be wrong: %v", s.m.Resetting(), err)
		}
		s.mu.Unlock()
		synctest.Wait()
		if s.m.Resetting() {
			t.Fatal("it does not come back from falling back")
		}
		link = s.link(2)
		for i := range blobs {
			s.send(link, i, 0)
		}
		synctest.Wait()
		if s.m.Phase() != member.Verified {
			t.Errorf("phase %d: %v", s.m.Phase(), s.m.Failure())
		}
	})
}
