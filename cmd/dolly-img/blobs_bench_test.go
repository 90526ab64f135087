package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// manyBlobs is a Source in memory: count layers of size bytes, and their manifest.
type manyBlobs struct {
	blobs map[digest.Digest][]byte
	descs []v1.Descriptor
}

func newImage(b *testing.B, seed, count, size int) *manyBlobs {
	im := &manyBlobs{blobs: map[digest.Digest][]byte{}}
	add := func(kind string, data []byte) v1.Descriptor {
		d := v1.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
		im.blobs[d.Digest] = data
		im.descs = append(im.descs, d)
		return d
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for i := range count {
		data := make([]byte, size)
		binary.LittleEndian.PutUint64(data, uint64(seed)<<32|uint64(i))
		m.Layers = append(m.Layers, add(v1.MediaTypeImageLayer, data))
	}
	m.Config = add(v1.MediaTypeImageConfig, fmt.Appendf(nil, `{"seed":%d}`, seed))
	body, err := json.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	add(v1.MediaTypeImageManifest, body)
	return im
}

func (im *manyBlobs) Blobs(context.Context) ([]v1.Descriptor, error) { return im.descs, nil }

func (im *manyBlobs) Open(_ context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(im.blobs[d.Digest][off:])), nil
}

// BenchmarkThousandBlobs sends 1,000 layers of 64 KiB to the nodes' caches in a
// tmpfs, and one layer of the same bytes, in turn: "ratio" is what many small
// blobs cost. All nodes share this machine's cores.
func BenchmarkThousandBlobs(b *testing.B) {
	for _, nodes := range []int{1, 4} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) { benchmarkBlobs(b, nodes) })
	}
}

func benchmarkBlobs(b *testing.B, nodes int) {
	dir, err := os.MkdirTemp("/dev/shm", "dolly-img-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := identity.Init(dir, identity.InitOptions{}); err != nil {
		b.Fatal(err)
	}
	sender, err := identity.Load(dir, identity.Sender)
	if err != nil {
		b.Fatal(err)
	}
	member, err := identity.Load(dir, identity.Node)
	if err != nil {
		b.Fatal(err)
	}
	cfg := ring.Config{TLS: func(node string) *tls.Config { return sender.ClientConfig(ring.ALPNControl, node) }, DataTLS: func(node string) *tls.Config { return sender.ClientConfig(ring.ALPNData, node) }}
	var pushes atomic.Int64 // each has a name of its own: to look after what one left would be a part of the next
	for i := range nodes {
		name := fmt.Sprint("n", i)
		store, err := cache.Open(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		node, err := ring.NewNode(ring.NodeConfig{
			TLS:     member.ServerConfig(ring.ALPNControl, ring.ALPNData),
			DataTLS: func(n string) *tls.Config { return member.ClientConfig(ring.ALPNData, n) },
			Client:  func(tls.ConnectionState) (string, ring.Role) { return "", ring.RoleSender },
			Accept: func(context.Context, ring.Request) (ring.Sink, error) {
				return store.Transfer(fmt.Sprint("localhost/bench:", pushes.Add(1)), cache.TransferOptions{}), nil
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		go node.Serve(l)
		defer node.Shutdown(b.Context())
		cfg.Nodes = append(cfg.Nodes, ring.Peer{Name: name, Addrs: []string{l.Addr().String()}})
	}
	push := func(im *manyBlobs) time.Duration {
		cfg.Source = im
		start := time.Now()
		r, err := ring.Send(b.Context(), cfg)
		if err != nil || r.Count() != nodes {
			b.Fatalf("%v, %+v", err, r)
		}
		return time.Since(start)
	}
	var one, many time.Duration
	seed := 0
	for b.Loop() {
		b.StopTimer()
		small, large := newImage(b, 2*seed, 1000, 64<<10), newImage(b, 2*seed+1, 1, 64_000<<10)
		b.StartTimer()
		many += push(small)
		one += push(large)
		seed++
	}
	b.ReportMetric(many.Seconds()/float64(seed), "s/thousand")
	b.ReportMetric(one.Seconds()/float64(seed), "s/one")
	b.ReportMetric(many.Seconds()/one.Seconds(), "ratio")
}
