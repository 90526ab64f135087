package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// A client that waits says so to somebody at a terminal, and not to a script.
func TestDollyClientWaits(t *testing.T) {
	master, terminal := openTerminal(t)
	at := &net.TCPAddr{Port: 9998}
	newDollyWords(terminal, false).listening(at)
	const want = "waiting for a transfer on port 9998; -h for help\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(master, got); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	var b strings.Builder
	if newDollyWords(&b, false).listening(at); b.Len() > 0 {
		t.Errorf("no terminal: %q", b.String())
	}
}

// A client whose output nobody reads takes part all the same, and prints again once somebody does.
func TestDollyClientIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, in := io.Pipe()
		w := newDollyWords(in, true)
		told := make(chan struct{})
		go func() {
			defer close(told)
			for bytes := range int64(5) {
				w.progress(ring.NodeProgress{Received: bytes})
				time.Sleep(time.Second)
			}
		}()
		synctest.Wait()
		time.Sleep(time.Minute)
		select {
		case <-told:
		default:
			out.Close()
			<-told
			t.Fatal("whoever tells of progress waits for somebody who reads")
		}
		for _, want := range []string{"Transfered MB: 0", "Transfered MB: 7"} {
			b := make([]byte, 1<<10)
			if n, err := out.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), want) {
				t.Errorf("%q, %v", b[:n], err)
			}
			synctest.Wait()
			w.progress(ring.NodeProgress{Received: 7e6})
		}
		out.Close()
	})
}

// A transfer ends when nothing has moved for so long, and not while something does, on the server and on a node. Progress is told once
// a second.
func TestStall(t *testing.T) {
	for name, moves := range map[string]func(w *stallWatch, bytes int64){
		"server": func(w *stallWatch, bytes int64) { w.event(ring.Event{Kind: ring.EventProgress, Bytes: bytes}) },
		"node":   func(w *stallWatch, bytes int64) { w.node(ring.NodeProgress{Received: 7, Moved: bytes}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, w, end := watchStall(t.Context(), 5*time.Second)
				defer end()
				bytes := int64(0)
				for range 10 {
					time.Sleep(3 * time.Second)
					bytes++
					moves(w, bytes)
				}
				w.event(ring.Event{Kind: ring.EventNode})
				for range 3 { // a file is measured before anything is sent
					time.Sleep(3 * time.Second)
					w.alive()
				}
				if ctx.Err() != nil {
					t.Fatal("ended while bytes moved")
				}
				for range 2 { // progress without any
					time.Sleep(2900 * time.Millisecond)
					moves(w, bytes)
				}
				if ctx.Err() != nil {
					t.Fatal("ended early")
				}
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if !errors.As(context.Cause(ctx), new(*stalled)) {
					t.Errorf("after 6 s without progress: %v", context.Cause(ctx))
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, w, end := watchStall(t.Context(), 5*time.Second)
		defer end()
		w.node(ring.NodeProgress{Moved: 7})
		w.node(ring.NodeProgress{Moved: 7, Waits: true})
		if time.Sleep(time.Hour); ctx.Err() != nil {
			t.Error("a node that has compared what it has ended while it waited for others")
		}
		w.node(ring.NodeProgress{Moved: 7})
		if time.Sleep(time.Minute); ctx.Err() == nil {
			t.Error("a node that went on did not end when nothing moved")
		}
	})
	ctx, w, end := watchStall(t.Context(), 0)
	w.alive()
	w.node(ring.NodeProgress{})
	if end(); ctx != t.Context() {
		t.Error("a limit where none was asked for")
	}
}
