//go:build !race

package ring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	manyNodes  = 1000
	manyRefuse = 50
	manyDie    = 20
	manyBlob   = 1 << 20
	manyMemory = 4 << 30
	manyBuilt  = 5 * time.Second
	manyFiles  = 16384 // two ends of a control and of a data connection for each node, its listener, and replacements
)

// TestThousand runs 1000 nodes in this process, over loopback and real TLS: once with their
// server, once with the server in a process of its own, whose share is its.
func TestThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	raiseFiles(t, manyFiles)
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprint("server apart ", apart), func(t *testing.T) { thousand(t, apart) })
	}
}

func raiseFiles(t testing.TB, want uint64) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= want {
		return
	}
	l.Cur, l.Max = want, max(l.Max, want)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatalf("needs %d file descriptors, and the limit cannot be raised (ulimit -Hn): %v", want, err)
	}
}

// status reads a line of /proc/self/status, in bytes.
func status(t *testing.T, key string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == key+":" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s", key)
	return 0
}

func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sameSink wants the bytes of one blob and keeps none of them: the memory that is measured
// is the ring's.
type sameSink struct {
	want      []byte
	wrote     func()
	done      atomic.Bool // all bytes were right, and were committed
	published atomic.Bool
}

func (s *sameSink) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	return make([]int64, len(blobs)), -1, nil
}

func (s *sameSink) Begin(_ context.Context, _ v1.Descriptor, off int64) (Writer, error) {
	return &sameWriter{s, off}, nil
}

func (s *sameSink) Publish(context.Context) error { s.published.Store(true); return nil }

func (s *sameSink) Open(_ context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.want[off:])), nil
}

type sameWriter struct {
	s   *sameSink
	off int64
}

func (w *sameWriter) Write(p []byte) (int, error) {
	if w.s.wrote != nil {
		w.s.wrote()
	}
	if !bytes.HasPrefix(w.s.want[w.off:], p) {
		return 0, errors.New("other bytes than the source's")
	}
	w.off += int64(len(p))
	return len(p), nil
}

func (w *sameWriter) Commit(_ context.Context, d v1.Descriptor) error {
	if w.off != int64(len(w.s.want)) || d.Size != w.off {
		return errors.New("not all bytes")
	}
	w.s.done.Store(true)
	return nil
}

func (w *sameWriter) Abort(int64) error { return nil }

// manyRun is what a run of the server tells.
type manyRun struct {
	Report  *Report
	Planned int           // nodes in the chain
	Built   time.Duration // until then
	Linked  time.Duration // until so many links were up
	Ended   time.Duration
	CPU     time.Duration // of its process
	RSS     int64
}

func manySend(t *testing.T, cfg Config) (run manyRun) {
	cpu, begun, up := cpuTime(t), time.Now(), 0
	cfg.OnEvent = func(ev Event) {
		switch {
		case ev.Kind == EventPlan:
			run.Planned, run.Built = len(ev.Nodes), ev.Time.Sub(begun)
		case ev.Kind == EventLink && ev.Reason == "up":
			if up++; up == manyNodes-manyRefuse-manyDie {
				run.Linked = ev.Time.Sub(begun)
			}
		}
	}
	r, err := Send(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	run.Report, run.Ended, run.CPU, run.RSS = r, time.Since(begun), cpuTime(t)-cpu, status(t, "VmHWM")
	return run
}

// TestThousandServer is the server of TestThousand in a process of its own.
func TestThousandServer(t *testing.T) {
	work := os.Getenv("RING_THOUSAND")
	if work == "" {
		return // only TestThousand runs it
	}
	id, err := identity.Load(work, identity.Sender)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, send: id}
	cfg := c.config(newMemSource(true, random(1, manyBlob)))
	b, err := os.ReadFile(filepath.Join(work, "thousand.json"))
	if err == nil {
		err = json.Unmarshal(b, &cfg.Nodes)
	}
	if err != nil {
		t.Fatal(err)
	}
	raiseFiles(t, manyFiles)
	if b, err = json.Marshal(manySend(t, cfg)); err == nil {
		err = os.WriteFile(filepath.Join(work, "thousand.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sendApart runs it.
func sendApart(t *testing.T, cfg Config) (run manyRun) {
	work, file := keys(), filepath.Join(keys(), "thousand.json")
	b, err := json.Marshal(cfg.Nodes)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestThousandServer$")
	cmd.Env = append(os.Environ(), "RING_THOUSAND="+work)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err = os.ReadFile(file); err == nil {
		err = json.Unmarshal(b, &run)
	}
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func thousand(t *testing.T, apart bool) {
	blob := random(1, manyBlob)
	var sinks []*sameSink
	c := newCluster(t, manyNodes, func(i int, cfg *NodeConfig) {
		s := &sameSink{want: blob}
		sinks = append(sinks, s)
		cfg.Log = nil
		cfg.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
		if i%(manyNodes/manyRefuse) == 7 {
			cfg.Accept = func(context.Context, Request) (Sink, error) { return nil, errors.New("not here") }
		}
	})
	dies := map[int]bool{}
	for i := 3; len(dies) < manyDie; i += manyNodes / manyDie {
		dies[i] = true
	}
	die := sync.OnceFunc(func() {
		for i := range dies {
			c.nodes[i].die()
		}
	})
	sinks[0].wrote = die // something has been moved by then, not yet to everybody
	cfg := c.config(newMemSource(true, blob))
	cfg.Log = nil
	runtime.GC()
	idle, cpu := status(t, "VmRSS"), cpuTime(t)
	run := manySend
	if apart {
		run = sendApart
	}
	r := run(t, cfg)
	cpu = cpuTime(t) - cpu
	counts := map[State]int{}
	for i, row := range r.Report.Nodes {
		want := Committed
		switch {
		case i%(manyNodes/manyRefuse) == 7:
			want = Refused
		case dies[i]:
			want = Failed
		}
		counts[row.State]++
		if s := sinks[i]; row.State != want || s.published.Load() != (want == Committed) || want == Committed && !s.done.Load() {
			t.Errorf("%s: %s (%s), want %s; published: %v", row.Node, row.State, row.Reason, want, s.published.Load())
		}
	}
	peak := status(t, "VmHWM")
	t.Logf("%v: chain of %d planned after %v, %d links up after %v, ended after %v", counts, r.Planned, r.Built, manyNodes-manyRefuse-manyDie, r.Linked, r.Ended)
	t.Logf("this process: %d MiB with idle nodes, %d MiB at most, %v of processor time", idle>>20, peak>>20, cpu)
	if apart {
		t.Logf("the server's: %d MiB at most, %v of processor time", r.RSS>>20, r.CPU)
	}
	if r.Built > manyBuilt {
		t.Errorf("the chain was planned after %v, the limit is %v", r.Built, manyBuilt)
	}
	if peak > manyMemory {
		t.Errorf("%d MiB of memory, the limit is %d", peak>>20, manyMemory>>20)
	}
}
