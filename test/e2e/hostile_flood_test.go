package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// floodFor is how long a hostile node floods the server. Then it is gone.
const floodFor = 3 * time.Second

// start begins the flood with the first START. What each message says does not matter to the server; it has to parse, or the connection ends.
func (h *hostile) start() error {
	h.mu.Lock()
	first := !h.flooding
	h.flooding = true
	h.mu.Unlock()
	if first {
		time.AfterFunc(floodFor, func() { os.Exit(0) })
		go h.fill()
	}
	if h.flood == "unheard" {
		select {} // it reads nothing any more, and hangs up when it is gone
	}
	return nil
}

// fill says the messages of its flood, one after the other, without end.
func (h *hostile) fill() {
	reason := strings.Repeat("x", 60_000)
	link := `{"link":%d,"idle":false,"rate":1,"burst":1,"held":true,"acked":%d}`
	report := func(links int, i int) {
		h.say(msgReport, `{"received":%d,"marked":%d,"durable":%d,"wait":"out","blob":0,"good":0,"relay":1,"hash":1,"disk":1,"links":[%s]}`,
			i, i, i, list(links, fmt.Sprintf(link, i, i)))
	}
	need := `{"link":1,"generation":4000000,"needs":[` + list(90_000, "[0,0]") + `]}`
	answer := `{"held":[` + list(190_000, "123456789012345678") + `],"free":-1,"replay":true,"switch":true,"code":"","reason":""}`
	for i := 1; ; i++ {
		switch h.flood {
		case "reports", "unheard":
			report(500, i)
		case "links":
			h.say(msgLink, `{"link":%d,"generation":%d,"state":"down","code":"network","reason":"%s"}`, i%64, i%64, reason)
			h.say(msgProbed, `{"probe":%d,"code":"network","reason":"%s"}`, i, reason)
			report(1, i)
		case "pages":
			h.say(msgNeed, "%s", need)
			h.say(msgAnswer, "%s", answer)
			report(1, i)
		}
	}
}

// Four hostile nodes at once, each in its own way, and a reader of --json that reads nothing for all of that time, cannot make the server
// hold more than 256 MiB. Those that are between them commit the right bytes.
func TestFloodedServer(t *testing.T) {
	const limit = 256 << 20
	ctx := need(t, 2*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 6})
	for i, mode := range []string{"", "floods links", "floods reports", "", "floods pages", "floods unheard"} {
		if mode == "" {
			r.nodes[i].start()
		} else {
			r.nodes[i].hostile(mode)
		}
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 16<<20)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	report := filepath.Join(r.dir, "report.json")
	push := r.net.Server.Command(ctx, binary, "raw", "--input", sent, "--output", r.data+"/file", "--json", "--rate", "4M", "--retries", "20", "--keys", r.keys, "--nodes", r.list(), "--report", report)
	push.Stdout = write
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	time.AfterFunc(floodFor+time.Second, func() { io.Copy(io.Discard, read) })
	var most atomic.Int64
	ended := make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if n, err := netns.PeakMemory(push.Process.Pid); err == nil {
					most.Store(n)
				}
			case <-ended:
				return
			}
		}
	}()
	begun := time.Now()
	push.Wait() // it exits with 3: not all have committed
	close(ended)
	t.Logf("%d MiB at most, in %v", most.Load()>>20, time.Since(begun).Round(time.Millisecond))
	if n := most.Load(); n > limit || n == 0 {
		t.Errorf("the server held %d MiB, want at most %d", n>>20, limit>>20)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := readReport(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 3} {
		if rows.Nodes[i].State != "committed" {
			t.Errorf("%+v", rows.Nodes[i])
		}
	}
	r.same(sent, "file", r.nodes[0], r.nodes[3])
}
