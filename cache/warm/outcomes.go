package warm

import (
	"context"
	"log/slog"

	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// Bounds of what the log says of one push.
const (
	mostReasons = 8    // lines; the nodes with further reasons share one more
	mostNamed   = 1000 // bytes of the names in a line
)

// String returns the word for an outcome.
func (o Outcome) String() string {
	return [...]string{"failed", "committed", "unreachable", "full", "conflict", "interrupted"}[o]
}

// logRows logs what became of a push: how many nodes have the image, and a line for each outcome and reason of the others. An interrupted
// push is no fault, since it goes on later.
func (c *Controller) logRows(p *Push, rows []Row, err error) {
	type reason struct {
		outcome Outcome
		why     string
	}
	var order []reason
	of := map[reason][]string{}
	var rest []string
	committed := 0
	for _, r := range rows {
		k := reason{r.Outcome, r.Why}
		switch {
		case r.Outcome == Committed:
			committed++
			continue
		case of[k] == nil && len(order) == mostReasons:
			rest = append(rest, r.Node)
			continue
		case of[k] == nil:
			order = append(order, k)
		}
		of[k] = append(of[k], r.Node)
	}
	about := []any{"ref", p.Ref, "digest", p.Digest}
	c.log.Info("pushed", append(about[:len(about):len(about)], "committed", committed, "nodes", len(p.Nodes), "error", why(err))...)
	line := func(level slog.Level, outcome, why string, nodes []string) {
		c.log.Log(context.Background(), level, "not pushed", append(about[:len(about):len(about)], "outcome", outcome, "reason", why, "nodes", len(nodes), "names", names(nodes))...)
	}
	for _, k := range order {
		level := slog.LevelWarn
		if k.outcome == Interrupted {
			level = slog.LevelInfo
		}
		line(level, k.outcome.String(), k.why, of[k])
	}
	if len(rest) > 0 {
		line(slog.LevelWarn, "others", "further reasons, which the status has", rest)
	}
}

// names folds the names of nodes, and cuts what is too long for a line of a log.
func names(nodes []string) string {
	text := hostlist.Fold(nodes)
	if len(text) > mostNamed {
		text = text[:mostNamed] + "…"
	}
	return text
}
