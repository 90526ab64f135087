//go:build !race

package ring

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/identity"
)

// A round of BenchmarkQuery: so many nodes, and of these so many that take the connection and say nothing.
const (
	roundNodes  = 1000
	roundSilent = 300
	roundImages = 20
)

func roundQuestion() *Question {
	q := &Question{}
	for i := range roundImages {
		name := fmt.Sprintf("registry.example/team/app:%d", i)
		q.Images = append(q.Images, Image{name, digest.FromString(name)})
	}
	return q
}

// BenchmarkQuery asks 1000 nodes about 20 images each, over loopback and TLS, as dolly-img status does. Then it also tells them what to keep,
// as the controller does in each of its rounds. The nodes are in a process of their own, so that the processor time is that
// of the server. Last, 300 more nodes are silent: those that answer are done in the time told-s.
func BenchmarkQuery(b *testing.B) {
	raiseFiles(b, manyFiles)
	server, err := identity.Load(keys(), identity.Sender)
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{TLS: func(n string) *tls.Config { return server.ClientConfig(ALPNControl, n) }}
	for i, addr := range roundServers(b) {
		cfg.Nodes = append(cfg.Nodes, Peer{Name: fmt.Sprint("n", i), Addrs: []string{addr}})
	}
	q := roundQuestion()
	told := &Wants{"warm", nil}
	for _, i := range q.Images {
		told.Wishes = append(told.Wishes, Wish{Name: i.Name, Digest: i.Digest})
	}
	for _, round := range []struct {
		name   string
		wants  *Wants
		silent int
	}{{"asked", nil, 0}, {"told and asked", told, 0}, {"some silent", told, roundSilent}} {
		b.Run(round.name, func(b *testing.B) {
			some, silent := cfg, round.silent
			some.Nodes = append(cfg.Nodes[roundNodes:roundNodes+silent:roundNodes+silent], cfg.Nodes[:roundNodes]...)
			queries := make([]NodeQuery, len(some.Nodes))
			for i := range queries {
				queries[i] = NodeQuery{round.wants, q}
			}
			var last atomic.Int64 // when the last node answered
			cpu := cpuTime(b)
			for b.Loop() {
				begun := time.Now()
				err := Query(b.Context(), some, queries, func(i int, r Reply) {
					switch {
					case i < silent && r.State != Unreachable, i >= silent && (r.State != "" || !r.Images[roundImages-1].Warm()):
						b.Errorf("%+v", r)
					case i >= silent:
						last.Store(int64(time.Since(begun)))
					}
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(time.Duration(last.Load()).Seconds(), "told-s")
			b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// roundServers runs the nodes, and returns their addresses. The silent ones come last.
func roundServers(b *testing.B) (addrs []string) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRoundNodes$")
	cmd.Env = append(os.Environ(), "RING_ROUND="+keys())
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &addrs)
	}
	if err != nil {
		b.Fatalf("%q: %v", line, err)
	}
	return addrs
}

// TestRoundNodes has the nodes of BenchmarkQuery. It ends with its standard input.
func TestRoundNodes(t *testing.T) {
	dir := os.Getenv("RING_ROUND")
	if dir == "" {
		return // only BenchmarkQuery runs it
	}
	raiseFiles(t, manyFiles)
	node, err := identity.Load(dir, identity.Node)
	if err != nil {
		t.Fatal(err)
	}
	stock := &memStock{names: map[string]digest.Digest{}}
	for _, i := range roundQuestion().Images {
		stock.names[i.Name] = i.Digest
	}
	var addrs []string
	var silent []net.Listener
	for i := range roundNodes + roundSilent {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		if i >= roundNodes {
			silent = append(silent, l) // the kernel takes the connections
			continue
		}
		n, err := NewNode(NodeConfig{
			TLS: node.ServerConfig(ALPNControl, ALPNData), DataTLS: func(string) *tls.Config { return nil }, Client: clientOf, Stock: stock,
			Accept: func(context.Context, Request) (Sink, error) { return nil, ErrBusy },
		})
		if err != nil {
			t.Fatal(err)
		}
		go n.Serve(l)
	}
	line, _ := json.Marshal(addrs)
	fmt.Printf("%s\n", line)
	io.Copy(io.Discard, os.Stdin)
	for _, l := range silent { // which would be closed as garbage before
		l.Close()
	}
}
