package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		e    ring.Event
		want string
	}{
		{ring.Event{}, "a.sif  0/8 nodes done"}, // nothing is known yet
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 112_300_000, Done: 2, Limit: ring.LimitDisk, Bottleneck: "node17: disk 84 MB/s"},
			"a.sif  43%  112 MB/s  0:01 left  2/8 nodes done  slowest node17: disk 84 MB/s"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 112_300_000, Limit: ring.LimitDisk},
			"a.sif  43%  112 MB/s  0:01 left  0/8 nodes done  limited by disks"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 0.4, Limit: ring.LimitSource}, "a.sif  43%  0/8 nodes done  waiting for the source"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 9e6, Limit: ring.LimitRate}, "a.sif  43%  9.00 MB/s  0:06 left  0/8 nodes done  limited by --rate"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000}, "a.sif  43%  0/8 nodes done"},
		{ring.Event{Bytes: 5_000, Total: -1, Rate: 999.6}, "a.sif  5.00 kB  999 B/s  0/8 nodes done"},
		{ring.Event{Bytes: 1, Total: 1 << 60, Rate: 1}, "a.sif  0%  1 B/s  days left  0/8 nodes done"},
	} {
		if got := strings.Join(progressParts(c.e, "a.sif", 8), gap); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// TestFit: the figures stay when there is no room for the name.
func TestFit(t *testing.T) {
	parts := []string{"a-long-name.sif", "42%", "4.00 MB/s", "0:06 left", "0/4 nodes done", "slowest node17: disk"}
	for n, want := range map[int]string{
		80: "a-long-name.sif  42%  4.00 MB/s  0:06 left  0/4 nodes done  slowest node17: disk",
		79: "a-lon...me.sif  42%  4.00 MB/s  0:06 left  0/4 nodes done  slowest node17: disk",
		74: "a-l...sif  42%  4.00 MB/s  0:06 left  0/4 nodes done  slowest node17: disk",
		73: "42%  4.00 MB/s  0:06 left  0/4 nodes done  slowest node17: disk",
		37: "42%  4.00 MB/s  0:06 left",
		2:  "42%",
	} {
		if got := fit(parts, n); got != want {
			t.Errorf("in %d columns %q, want %q", n, got, want)
		}
	}
	if got := middle("日本語日本語.sif", 11); got != "日本....sif" {
		t.Errorf("wide: %q", got)
	}
	if got := cut("日本語", 5); got != "日本" {
		t.Errorf("wide: %q", got)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 99_960: "100 kB",
		999_499: "999 kB", 999_500: "1.00 MB", 268_435_456: "268 MB", 1<<63 - 1: "9.22 EB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0:00", 59600 * time.Millisecond: "1:00", 61 * time.Second: "1:01",
		time.Hour + 2*time.Second: "1:00:02", 200 * time.Hour: "days", -1: "days",
	} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %q, want %q", d, got, want)
		}
	}
}

// TestScreen: the live line is taken away before another is written, put back after
// it, and never wraps.
func TestScreen(t *testing.T) {
	var b strings.Builder
	s := &screen{w: &b, width: func() int { return 13 }}
	s.progress("12345678901234")
	s.printf("node3: %s", "lost\x1b[2J")
	s.progress("")
	want := "\r\x1b[K1234567890" + "\r\x1b[K" + "node3: lost\\x1b[2J\n" + "\r\x1b[K1234567890" + "\r\x1b[K"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	s.width = func() int { return 2 } // no room for anything
	s.progress("1234")
	if want := "\r\x1b[K"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	s = newScreen(&b)
	s.progress("nothing where there is no terminal")
	if b.String() != "" {
		t.Errorf("got %q", b.String())
	}
}

// TestPlainProgress: where there is no terminal a line comes with each tenth of the
// whole, or after five seconds.
func TestPlainProgress(t *testing.T) {
	var b strings.Builder
	p := &progress{screen: newScreen(&b), image: "a", nodes: 1}
	start := time.Now()
	at := func(second int, bytes int64) {
		p.event(ring.Event{Kind: ring.EventProgress, Time: start.Add(time.Duration(second) * time.Second), Bytes: bytes, Total: 1000})
	}
	node := func(name string, state ring.State) {
		p.event(ring.Event{Kind: ring.EventNode, Node: name, State: state, Reason: "why"})
	}
	link := func(reason string) { p.event(ring.Event{Kind: ring.EventLink, Link: "n0->n1", Reason: reason}) }
	node("n0", ring.Refused)
	p.event(ring.Event{Kind: ring.EventPlan})
	if b.String() != "" {
		t.Errorf("before anything moves: %q", b.String())
	}
	p.event(ring.Event{Kind: ring.EventPlan, Nodes: []string{"n1"}})
	link("up")
	at(1, 10)
	at(2, 20)
	at(3, 110)
	at(4, 120)
	at(9, 130)
	p.event(ring.Event{Kind: ring.EventNode, Node: "n1", State: ring.Serving})
	node("n1", ring.Failed)
	node("n2", ring.Committed)
	link("down")
	link("up")
	var got []string
	for line := range strings.Lines(b.String()) {
		words := strings.Fields(line)
		got = append(got, words[0]+words[1])
	}
	if want := "n0:refused: a1% a11% a13% n1:failed: linkn0->n1: linkn0->n1:"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	p.quiet = true
	at(20, 900)
	if b.String() != "" {
		t.Errorf("quiet: %q", b.String())
	}
}

// TestLeftOut: many nodes that are left out from the start are one line.
func TestLeftOut(t *testing.T) {
	var b strings.Builder
	p := &progress{screen: newScreen(&b), image: "a", nodes: 100}
	for i := range 99 {
		p.event(ring.Event{Kind: ring.EventNode, Node: fmt.Sprintf("n%02d", i+1), State: ring.Unreachable, Reason: "why"})
	}
	p.event(ring.Event{Kind: ring.EventPlan, Nodes: []string{"n100"}})
	if want := "99 nodes are left out, the table will say why: n[01-99]\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
