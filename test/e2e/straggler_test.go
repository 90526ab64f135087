package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

var stragglerSize = flag.Int64("straggler.size", 64<<20, "bytes that TestOneSlowOfSixteen sends")

// One of 16 nodes on links of 100 Mbit/s has a tenth of that: the other 15 end within the time
// they need without it and 6 s.
func TestOneSlowOfSixteen(t *testing.T) {
	together(t)
	ctx := need(t, 10*time.Minute)
	const rate, nodes, slow = 100e6, 16, 5
	r := newRig(t, ctx, netns.Config{Nodes: nodes, Rate: rate})
	r.start()
	if err := r.nodes[slow].Shape(ctx, rate/10); err != nil {
		t.Fatal(err)
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), *stragglerSize)
	p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--data", "plain", "--json")
	// That the slow one is served to its end is seen elsewhere.
	eventually(t, 8*time.Minute, "15 nodes committed", func() (bool, string) {
		n := strings.Count(p.process.Output(), `"state":"committed"`)
		return n >= nodes-1, p.process.Output()[max(0, len(p.process.Output())-2000):]
	})
	p.process.Signal(os.Interrupt)
	res := p.wait()
	states := strings.Split(strings.Repeat("committed ", nodes), " ")[:nodes]
	states[slow] = "failed"
	r.want(res, 3, states...)
	alone := float64(*stragglerSize) * 8 / rate * 1.07 // headers and the chain, measured by test/bench
	for i, row := range res.report.Nodes {
		if i != slow && row.Seconds > alone+6+slack().Seconds() {
			t.Errorf("%s ended after %.1f s, without the slow one it needs %.1f", row.Node, row.Seconds, alone)
		}
	}
	if t.Failed() {
		t.Log(res.output)
	}
	t.Logf("the others ended after %.1f s, alone they need %.1f", res.report.Nodes[0].Seconds, alone)
	if !strings.Contains(p.process.Output(), "slow: link") {
		t.Errorf("no event names the slow link\n%s", p.process.Output())
	}
}
