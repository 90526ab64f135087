package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// refusing are nodes that all refuse what they are pushed.
type refusing struct {
	*fleet
	rows func(nodes []string) []Row
}

func (r refusing) Push(_ context.Context, p *Push, _ <-chan int64, _ func(Progress)) ([]Row, error) {
	return r.rows(p.Nodes), nil
}

// The log tells why nodes do not have what was pushed, once for each reason and in a bounded number of lines.
func TestLogOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{digest: digest.FromString("1"), nodes: map[string]map[string]digest.Digest{}, wishes: map[string][]Wish{}, text: fleetList}
		for i := range 400 {
			f.names = append(f.names, fmt.Sprintf("n%03d", i))
			f.nodes[f.names[i]] = map[string]digest.Digest{}
		}
		rows := func(nodes []string) (list []Row) {
			for i, n := range nodes {
				r := Row{Node: n, Outcome: Full, Why: fmt.Sprint("full: disk ", i)}
				switch {
				case len(nodes) < 400: // a later push
					r = Row{Node: n, Outcome: Committed}
				case i < 100:
					r = Row{Node: n, Outcome: Conflict, Why: "belongs to \"other\"\nlevel=INFO"}
				case i < 200:
					r = Row{Node: n, Outcome: Failed, Why: "policy refuses it"}
				case i == 200:
					r = Row{Node: n, Outcome: Committed}
				case i == 201:
					r = Row{Node: n, Outcome: Interrupted}
				}
				list = append(list, r)
			}
			return list
		}
		var log strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		c := NewController(Config{List: f.list, Effects: refusing{f, rows}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		go func() { ended <- c.Run(ctx) }()
		time.Sleep(10 * time.Second)
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for _, want := range []string{
			"level=INFO msg=pushed ref=docker://r.example/torch:1 digest=" + f.digest.String() + " committed=1 nodes=400 ",
			`level=WARN msg="not pushed" ref=docker://r.example/torch:1 digest=` + f.digest.String() + ` outcome=conflict reason="belongs to \"other\"\nlevel=INFO" nodes=100 names=n[000-099]`,
			`outcome=failed reason="policy refuses it" nodes=100 names=n[100-199]`,
			`level=INFO msg="not pushed" ref=docker://r.example/torch:1 digest=` + f.digest.String() + ` outcome=interrupted reason="" nodes=1 names=n201`,
			`outcome=full reason="full: disk 202" nodes=1 names=n202`,
			`outcome=others reason="further reasons, which the status has" nodes=193 names=n[207-399]`,
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no %s", want)
			}
		}
		if n := strings.Count(log.String(), "not pushed"); n != mostReasons+1 {
			t.Errorf("%d lines:\n%s", n, &log)
		}
	})
	long := make([]string, 1000)
	for i := range long {
		long[i] = digest.FromString(fmt.Sprint(i)).Encoded()
	}
	if text := names(long); len(text) > mostNamed+len("…") {
		t.Errorf("%d bytes of names", len(text))
	}
}
