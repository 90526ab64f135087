package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

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
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 250e6, Limit: ring.LimitHash}, "a.sif  43%  250 MB/s  0:00 left  0/8 nodes done  limited by hashing without SHA instructions"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 9e6, Limit: ring.LimitRate}, "a.sif  43%  9.00 MB/s  0:06 left  0/8 nodes done  limited by --rate"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000}, "a.sif  43%  0/8 nodes done"},
		{ring.Event{Bytes: 5_000, Total: -1, Rate: 999.6}, "a.sif  5.00 kB  999 B/s  0/8 nodes done"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 112_300_000, Verifying: true}, "a.sif  verifying  43%  112 MB/s  0:01 left  0/8 nodes done"},
		{ring.Event{Bytes: 43_000_000, Total: 100_000_000, Rate: 112_300_000, Comparing: true}, "a.sif  comparing  43%  112 MB/s  0:01 left  0/8 nodes done"},
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

// TestPlainTerminal: a terminal that knows no escape sequences, or whose user wants none, gets plain lines.
func TestPlainTerminal(t *testing.T) {
	for _, c := range []struct {
		term, noColor string
		live          bool
	}{{"xterm", "", true}, {"dumb", "", false}, {"", "", false}, {"xterm", "1", false}} {
		master, terminal := openTerminal(t)
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColor)
		p := &progress{screen: newScreen(terminal), image: "a", nodes: 1}
		p.event(ring.Event{Kind: ring.EventProgress, Time: time.Now(), Bytes: 10, Total: 1000})
		p.end()
		p.screen.printf("end")
		var b strings.Builder
		for buf := make([]byte, 100); !strings.HasSuffix(b.String(), "end\r\n"); {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(buf[:n])
		}
		want := "a  1%  0/1 nodes done\r\nend\r\n"
		if c.live {
			want = "\r\x1b[Ka  1%  0/1 nodes done\r\x1b[Kend\r\n"
		}
		if b.String() != want {
			t.Errorf("TERM=%s NO_COLOR=%s: %q, want %q", c.term, c.noColor, b.String(), want)
		}
	}
}

// openTerminal makes a pseudo-terminal of 80 columns.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return master, terminal
}

// TestPlainProgress: where there is no terminal a line comes with each tenth of the
// whole, or after five seconds; what goes as it should is not told, and what happens to a node or
// a link is told within a second.
func TestPlainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := &progress{screen: newScreen(&b), image: "a", nodes: 1}
		start := time.Now()
		at := func(second int, bytes int64) {
			p.event(ring.Event{Kind: ring.EventProgress, Time: start.Add(time.Duration(second) * time.Second), Bytes: bytes, Total: 1000})
		}
		node := func(name string, state ring.State, why string) {
			p.event(ring.Event{Kind: ring.EventNode, Node: name, State: state, Reason: why, Cause: ring.Cause{Text: why}})
		}
		link := func(up, again bool, reason string) {
			p.event(ring.Event{Kind: ring.EventLink, Link: "n0 -> n1", Up: up, Again: again, Reason: reason})
		}
		want := func(want string) {
			t.Helper()
			time.Sleep(newsAfter)
			synctest.Wait()
			if b.String() != want {
				t.Errorf("got\n%swant\n%s", b.String(), want)
			}
			b.Reset()
		}
		node("n0", ring.Refused, "why")
		p.event(ring.Event{Kind: ring.EventPlan})
		want("") // the table will say it, if nothing moves
		p.event(ring.Event{Kind: ring.EventPlan, Nodes: []string{"n1"}})
		link(true, false, "up")
		at(1, 10)
		at(2, 20)
		at(3, 110)
		at(4, 120)
		at(9, 130)
		want("n0: refused: why\na  1%  0/1 nodes done\na  11%  0/1 nodes done\na  13%  0/1 nodes done\n")
		node("n1", ring.Serving, "")
		node("n1", ring.Lost, "gone")
		link(false, false, "down: broken")
		link(true, true, "up")
		node("n1", ring.Failed, "gone") // it is known to be lost, and why
		node("n2", ring.Committed, "")
		want("n1: gone; it is dialled again\nlink n0 -> n1: down: broken\nlink n0 -> n1: up\n")
		node("n1", ring.Serving, "came back: gone")
		node("n1", ring.Lost, "gone")
		want("n1: serving: came back: gone\nn1: gone; it is dialled again\n")
		node("n3", ring.Serving, "slow: disk 2 MB/s")
		node("n4", ring.Failed, "full")
		p.end() // the table follows
		if want := "n3: serving: slow: disk 2 MB/s\n"; b.String() != want {
			t.Errorf("at the end %q, want %q", b.String(), want)
		}
		b.Reset()
		p.quiet = true
		at(20, 900)
		want("")
	})
}

// TestNews: what happens to many nodes at once is one line, also when each has an address of its own, and
// one of them does not make the links of all others news.
func TestNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := &progress{screen: newScreen(&b), image: "a", nodes: 100}
		node := func(i int, state ring.State, c ring.Cause) {
			p.event(ring.Event{Kind: ring.EventNode, Node: fmt.Sprintf("n%02d", i), State: state, Reason: c.String(), Cause: c})
		}
		silent := func(i int) ring.Cause {
			return ring.Cause{Fault: ring.FaultSilent, Text: "no answer from ", Addr: fmt.Sprintf("10.0.0.%d:9998", i), After: " in 2s"}
		}
		waits := func(i int) ring.Cause {
			c := silent(i)
			c.Text = "is tried for 1m0s: " + c.Text
			return c
		}
		want := func(want string) {
			t.Helper()
			time.Sleep(newsAfter)
			synctest.Wait()
			if b.String() != want {
				t.Errorf("got\n%swant\n%s", b.String(), want)
			}
			b.Reset()
		}
		for i := range 30 {
			node(i+1, ring.Pending, waits(i+1))
		}
		want("n[01-30]: is tried for 1m0s: no answer from 10.0.0.[1-30]:9998 in 2s\n")
		for i := range 30 {
			node(i+1, ring.Unreachable, silent(i+1))
		}
		node(31, ring.Refused, ring.Cause{Text: "no"})
		want("")
		p.event(ring.Event{Kind: ring.EventPlan, Nodes: []string{"n32"}})
		want("n[01-30]: unreachable: no answer from 10.0.0.[1-30]:9998 in 2s\nn31: refused: no\n")

		node(40, ring.Lost, ring.Cause{Text: "silent for 5s"})
		for i := range 99 {
			p.event(ring.Event{Kind: ring.EventLink, Link: fmt.Sprintf("n%02d -> n%02d", i, i+1), Up: true, Reason: "up"})
		}
		want("n40: silent for 5s; it is dialled again\n")
		for i := range 40 {
			p.event(ring.Event{Kind: ring.EventLink, Link: fmt.Sprintf("n%02d -> n%02d", i, i+1), Reason: "down: broken"})
		}
		want("40 links, n00 -> n01 and others: down: broken\n")

		for i := range 40 { // of each something else
			node(i+1, ring.Failed, ring.Cause{Text: fmt.Sprint("fault ", i+1)})
			p.event(ring.Event{Kind: ring.EventLink, Link: fmt.Sprintf("n%02d -> n%02d", i, i+1), Reason: "down: broken"})
		}
		time.Sleep(newsAfter)
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if want := "n01: failed: fault 1"; len(lines) != mostNews+1 || lines[0] != want {
			t.Errorf("%d lines, the first %q", len(lines), lines[0])
		}
		if want := "and 25 more lines like these; "; !strings.HasPrefix(lines[len(lines)-1], want) {
			t.Errorf("the last line is %q", lines[len(lines)-1])
		}
	})
}
