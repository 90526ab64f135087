package node

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/mirror"
)

// pipes is a listener whose connections are in memory, so that fake time passes while they wait.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { close(l.done); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// 256 clients that ask for a blob and take nothing of it, or promise a body and send none, keep the mirror from others for
// half a minute at most.
func TestMirrorClientsThatHang(t *testing.T) {
	for what, request := range map[string]string{
		"take nothing":  "GET /v2/app/blobs/%s?ns=reg.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"send no body":  "GET /v2/app/blobs/%s?ns=reg.example HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"take a little": "GET /v2/app/blobs/%s?ns=reg.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := cache.Open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				layer := putLayer(t, c, "reg.example/app:1", 5<<20)
				s := &Node{cache: c, log: slog.New(slog.DiscardHandler)}
				l := &pipes{make(chan net.Conn), make(chan struct{})}
				defer s.serveMirror(l, mirror.New(c, nil, nil))()
				ask := func() net.Conn {
					near, far := net.Pipe()
					t.Cleanup(func() { near.Close() })
					l.conns <- far
					fmt.Fprintf(near, request, layer.Digest)
					return near
				}
				for range mirrorClients {
					conn := ask()
					if what == "take a little" {
						io.CopyN(io.Discard, conn, 3<<20)
					}
				}
				begun := time.Now()
				request = strings.Replace(request, "Content-Length: 10\r\n", "", 1)
				res, err := http.ReadResponse(bufio.NewReader(ask()), nil)
				if err != nil {
					t.Fatal(err)
				}
				sum := digest.SHA256.Digester()
				if n, err := io.Copy(sum.Hash(), res.Body); err != nil || sum.Digest() != layer.Digest {
					t.Errorf("%d bytes, %v", n, err)
				}
				if took := time.Since(begun); took > 31*time.Second {
					t.Errorf("answered after %v", took)
				}
			})
		})
	}
}

// putLayer puts an image of one layer into a cache.
func putLayer(t *testing.T, c *cache.Cache, ref string, size int) v1.Descriptor {
	t.Helper()
	data := []byte(strings.Repeat("x", size))
	layer := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(size)}
	doc := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, v1.MediaTypeImageManifest, layer.MediaType, layer.Digest, size))
	root := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	all := []v1.Descriptor{layer, root}
	tr := c.Transfer(ref, cache.TransferOptions{})
	defer tr.Close()
	if _, _, err := tr.Offer(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for i, b := range [][]byte{data, doc} {
		w, err := tr.Begin(t.Context(), all[i], 0)
		if err == nil {
			_, err = w.Write(b)
		}
		if err == nil {
			err = w.Commit(t.Context(), all[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tr.Prepare(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return layer
}
