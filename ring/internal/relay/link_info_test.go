package relay

import (
	"io"
	"net"
	"testing"
	"time"
)

// What a link could carry, from two looks at it a second apart.
func TestRateSince(t *testing.T) {
	begun := time.Unix(1, 0)
	for name, c := range map[string]struct {
		acked         uint64
		busy, limited time.Duration
		want, burst   int64
		held          bool
	}{
		"the link is the limit":           {10e6, time.Second, 0, 10e6, 0, false},
		"half of it is the receiver's":    {10e6, time.Second, time.Second / 2, 20e6, 0, false},
		"all of it is the receiver's":     {2e3, time.Second, time.Second - time.Millisecond, 0, 0, true},
		"it has little to send":           {10e6, time.Second / 2, 0, 0, 123, false},
		"it had nothing to send":          {0, 0, 0, 0, 0, false},
		"nothing moves, and it is to":     {0, time.Second, 0, 1, 0, false},
		"the kernel counts a little more": {10e6, time.Second, time.Second + time.Millisecond, 0, 0, true},
	} {
		old := linkInfo{at: begun, acked: 5, busy: time.Minute, limited: time.Second, kernel: true}
		now := linkInfo{at: begun.Add(time.Second), acked: 5 + c.acked, busy: old.busy + c.busy, limited: old.limited + c.limited, delivery: 123, kernel: true}
		if got, burst, held := now.rateSince(old); got != c.want || burst != c.burst || held != c.held {
			t.Errorf("%s: %d, %d and %v, want %d, %d and %v", name, got, burst, held, c.want, c.burst, c.held)
		}
	}
}

// A link is idle that has nothing to send, and one that had nothing most of the time though its writer
// is in the middle of something: it gets no processor. What memnet knows tells nothing of that.
func TestIdleSince(t *testing.T) {
	begun := time.Unix(1, 0)
	for name, c := range map[string]struct {
		old, now linkInfo
		writing  bool
		want     bool
	}{
		"nothing to send":         {linkInfo{at: begun}, linkInfo{kernel: true, busy: time.Second}, false, true},
		"the receiver lacks some": {linkInfo{at: begun}, linkInfo{kernel: true, busy: time.Second, pending: true}, false, false},
		"busy writing":            {linkInfo{at: begun}, linkInfo{kernel: true, busy: 600 * time.Millisecond}, true, false},
		"starved in a write":      {linkInfo{at: begun}, linkInfo{kernel: true, busy: 400 * time.Millisecond}, true, true},
		"a first look":            {linkInfo{}, linkInfo{kernel: true}, true, false},
		"no kernel":               {linkInfo{at: begun}, linkInfo{}, true, false},
	} {
		c.now.at = begun.Add(time.Second)
		if got := c.now.idleSince(c.old, c.writing); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A report tells what the receiver of each link has acknowledged, and of a link that ended once more: what it took in its
// last second is told by nothing else.
func TestAckedOfEnded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	const n = 1000
	if _, err := out.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	r := &Relay{}
	l := &outLink{id: 7, conn: &plainWriter{conn: out}, abort: func() {}}
	l.cond.L = &r.mu
	r.links = []*outLink{l}
	for deadline := time.Now().Add(10 * time.Second); ; { // the acknowledgement comes a little later
		if got := r.sendings(); len(got) == 1 && got[0].Acked >= n && !got[0].Ended {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v", got)
		}
	}
	r.mu.Lock()
	l.stop()
	r.links = nil
	r.noteEnd(l)
	r.mu.Unlock()
	if got := r.sendings(); len(got) != 1 || got[0].Link != 7 || got[0].Acked < n || got[0].Acked > n+1 || !got[0].Ended { // the kernel counts the SYN
		t.Errorf("after its end: %+v", got)
	}
	if got := r.sendings(); len(got) != 0 {
		t.Errorf("told again: %+v", got)
	}
}
