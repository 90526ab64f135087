package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// A run that ends asks more often than one that stays, since somebody waits for it: for nodes after an image was found, and again for what
// failed, which is tried three times before nodes get their wishes without it.
const (
	onceCatchUp = 5 * time.Second
	onceRetry   = time.Second
	onceLooks   = 100 * time.Millisecond // between two looks at whether it is done
)

// runOnce goes by the list once or, with --check, only looks what that would do.
func (f *warmFlags) runOnce(cmd *cobra.Command) error {
	if f.metrics != "" || f.web.addr != "" {
		return usagef("--metrics and --web: not with --once and --check, which end")
	}
	outliveReaders()
	list, err := f.read()
	if err != nil {
		return err
	}
	log := nodeLog(cmd.ErrOrStderr(), f.verbose)
	effects, err := f.effects(list, log, nil)
	if err != nil {
		return err
	}
	list.CatchUp = min(list.CatchUp, onceCatchUp)
	list.Retry.Least = onceRetry
	list.Retry.Most = max(list.Retry.Most, onceRetry)
	cfg := warm.Config{List: func() (*warm.List, error) { return list, nil }, Effects: effects, Fresh: true, Log: log}
	var plan *rehearsal
	if f.check {
		plan = &rehearsal{Effects: effects, bytes: map[digest.Digest]int64{}, lacks: map[held]int64{}, room: map[string]int64{}, pushed: map[held]bool{}}
		cfg.Effects, cfg.Log = plan, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	} else {
		var state durable.FS
		state, release, err := claim(list, log)
		if err != nil {
			return err
		}
		defer release()
		cfg.State = state
		cfg.Effects = &pushedOnce{Effects: effects, committed: map[held]bool{}}
	}
	s, err := onceDone(cmd.Context(), warm.NewController(cfg), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if plan != nil {
		plan.print(cmd.OutOrStdout())
	}
	printWarm(cmd.OutOrStdout(), s, plan)
	if status := onceStatus(s); status != ring.ExitAll {
		return &statusError{code: status}
	}
	return nil
}

// onceDone runs a controller until nothing is left that it can do soon, and returns what it knows then. It says on w which sources it waits for.
func onceDone(ctx context.Context, c *warm.Controller, w io.Writer) (*warm.Snapshot, error) {
	began := time.Now().Truncate(time.Second) // as the times of a snapshot
	inner, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(inner) }()
	var s *warm.Snapshot
	var err error
	told := map[string]bool{}
	for s == nil || !onceSettled(s, began) {
		if s != nil {
			printAwaited(w, s, told)
		}
		select {
		case <-ctx.Done():
			cancel()
			<-ended
			return nil, errInterrupted
		case <-time.After(onceLooks):
		}
		if s, err = c.Snapshot(inner); err != nil {
			break
		}
	}
	cancel()
	<-ended // with an error only if the state cannot be kept, which the log has said
	return s, err
}

// printAwaited says which sources that fail are waited for, and when each is asked again. told has what was said before.
func printAwaited(w io.Writer, s *warm.Snapshot, told map[string]bool) {
	for _, i := range s.Images {
		line := fmt.Sprintf("waiting for %s: %s", i.Called(), i.Stale)
		if i.Awaited && !told[line] {
			told[line] = true
			fmt.Fprintln(w, printable.Line(fmt.Sprintf("%s; it is asked again at %s", line, i.Next.Local().Format(time.TimeOnly))))
		}
	}
}

// onceSettled reports whether a controller that began then has asked everybody, and waits for nothing but time.
func onceSettled(s *warm.Snapshot, began time.Time) bool {
	for _, g := range s.Groups {
		if g.Nodes == 0 && g.Stale == "" {
			return false
		}
	}
	for _, i := range s.Images {
		if i.Awaited || i.Stale == "" && i.Found.Before(began) {
			return false
		}
		if i.Digest == "" {
			continue // nothing is known that its nodes could have
		}
		for _, n := range i.Nodes {
			switch n.State {
			case warm.NodeWarming, warm.NodeUnknown:
				return false
			case warm.NodeMissing, warm.NodeBehind:
				if i.State != warm.ImageBlocked {
					return false
				}
			}
		}
	}
	return s.Unwished == 0 // otherwise nobody would take back wishes that are over
}

// onceStatus returns the exit status of what was reached. It is no full success where a list of nodes or a digest could not be asked for: nobody knows
// which other nodes there are, or whether the image is the newest.
func onceStatus(s *warm.Snapshot) int {
	all, some, found := !slices.ContainsFunc(s.Groups, func(g warm.GroupStatus) bool { return g.Stale != "" }), false, false
	for _, i := range s.Images {
		all = all && i.State == warm.ImageWarm && i.Stale == ""
		some = some || i.Warm > 0
		found = found || i.Digest != ""
	}
	switch {
	case all && len(s.Images) > 0:
		return ring.ExitAll
	case some:
		return ring.ExitPartial
	case !found:
		return ring.ExitSource
	}
	return ring.ExitNone
}

// printWarm prints a line for each image, and below it the nodes that are not warm, by state and reason. After a rehearsal, nodes that would be pushed to
// are no news.
func printWarm(w io.Writer, s *warm.Snapshot, plan *rehearsal) {
	for _, g := range s.Groups {
		if g.Stale != "" {
			fmt.Fprintf(w, "nodes.%s: %s\n", g.Name, printable.Line(g.Stale))
		}
	}
	for _, i := range s.Images {
		would := ""
		if plan != nil {
			would = "would be "
		}
		line := fmt.Sprintf("%s %s  %s%d of %d warm", i.Called(), shortDigest(i.Digest), would, i.Warm, len(i.Nodes))
		if i.Digest == "" {
			line = i.Called()
		}
		if i.State == warm.ImageBlocked {
			line += "; blocked: " + i.Reason
		}
		if i.Stale != "" && i.Stale != i.Reason {
			line += "; stale: " + i.Stale
		}
		fmt.Fprintln(w, printable.Line(line))
		if i.Digest == "" {
			continue
		}
		for _, g := range notWarm(i.Nodes) {
			fmt.Fprintf(w, "  %s\n", printable.Line(g))
		}
	}
}

// notWarm returns a line for each state and reason of nodes that are not warm.
func notWarm(nodes []warm.NodeStatus) (lines []string) {
	var order []string
	by := map[string][]string{}
	for _, n := range nodes {
		if n.State == warm.NodeWarm {
			continue
		}
		key := string(n.State)
		if n.Reason != "" {
			key += ": " + n.Reason
		}
		if by[key] == nil {
			order = append(order, key)
		}
		by[key] = append(by[key], n.Node)
	}
	for _, key := range order {
		lines = append(lines, fold(by[key])+": "+key)
	}
	return lines
}

// held is a digest on a node.
type held struct {
	node   string
	digest digest.Digest
}

// pushedOnce are effects that push to a node nothing that it has committed before, since a node that lacks it again would have a run go on for ever.
type pushedOnce struct {
	warm.Effects

	mu        sync.Mutex
	committed map[held]bool
}

// Push pushes to those nodes that have not committed the digest before, and fails the others.
func (o *pushedOnce) Push(ctx context.Context, p *warm.Push, rates <-chan int64, progress func(warm.Progress)) ([]warm.Row, error) {
	var again []warm.Row
	first := *p
	first.Nodes = nil
	o.mu.Lock()
	for _, n := range p.Nodes {
		if o.committed[held{n, p.Digest}] {
			again = append(again, warm.Row{Node: n, Why: "it has committed the image, and says that it lacks it"})
		} else {
			first.Nodes = append(first.Nodes, n)
		}
	}
	o.mu.Unlock()
	if len(first.Nodes) == 0 {
		return again, nil
	}
	rows, err := o.Effects.Push(ctx, &first, rates, progress)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range rows {
		if r.Outcome == warm.Committed {
			o.committed[held{r.Node, p.Digest}] = true
		}
	}
	return append(rows, again...), err
}

// rehearsal are effects that ask, and do nothing else: what is pushed is noted, and counts as done.
type rehearsal struct {
	warm.Effects

	mu     sync.Mutex
	bytes  map[digest.Digest]int64
	lacks  map[held]int64
	room   map[string]int64 // that a node had, or -1
	pushed map[held]bool
	pushes []warm.Push
}

// Lookup notes how long images are.
func (r *rehearsal) Lookup(ctx context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	tags, err := r.Effects.Lookup(ctx, l)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range tags {
		for _, v := range t.Variants {
			r.bytes[v.Digest] = v.Bytes
		}
	}
	return tags, err
}

// Ask asks without wishes.
func (r *rehearsal) Ask(ctx context.Context, queries []*warm.Query, answer func(*warm.Query, warm.Answer, error)) {
	real, silent := map[*warm.Query]*warm.Query{}, make([]*warm.Query, len(queries))
	for i, q := range queries {
		silent[i] = &warm.Query{Node: q.Node, Images: q.Images}
		real[silent[i]] = q
	}
	r.Effects.Ask(ctx, silent, func(q *warm.Query, a warm.Answer, err error) {
		if err == nil {
			r.note(q, a)
		}
		answer(real[q], a, err)
	})
}

// note notes what a node lacks, and has its answer say that it holds what was pushed.
func (r *rehearsal) note(q *warm.Query, a warm.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room[q.Node] = a.Room
	for i, image := range q.Images[:min(len(q.Images), len(a.Images))] {
		h := held{q.Node, image.Digest}
		if r.pushed[h] {
			a.Images[i] = warm.Holding{Named: image.Digest}
		} else {
			r.lacks[h] = a.Images[i].Lacks
		}
	}
}

// Push notes a push.
func (r *rehearsal) Push(_ context.Context, p *warm.Push, _ <-chan int64, _ func(warm.Progress)) ([]warm.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushes = append(r.pushes, *p)
	var rows []warm.Row
	for _, n := range p.Nodes {
		r.pushed[held{n, p.Digest}] = true
		rows = append(rows, warm.Row{Node: n, Outcome: warm.Committed})
	}
	return rows, nil
}

// Keep does nothing.
func (r *rehearsal) Keep(context.Context, []warm.Wish) error { return nil }

// supposedRate is what a plan takes for the rate of a ring, in bytes per second, where the list has none: that of a link of 1 Gbit/s.
const supposedRate = 117e6

// print prints what would be pushed, in that order, and for which nodes it may be too much.
func (r *rehearsal) print(w io.Writer) {
	taken := map[string]int64{} // by what would be pushed before
	for _, p := range r.pushes {
		most, all, least := int64(0), int64(0), int64(math.MaxInt64)
		var tight []string
		for _, n := range p.Nodes {
			lacks := r.lacks[held{n, p.Digest}]
			if lacks < 0 { // not even the manifest is there
				lacks = r.bytes[p.Digest]
			}
			most, all = max(most, lacks), all+lacks
			if room := r.room[n]; room >= 0 && lacks > room-taken[n] {
				tight, least = append(tight, n), min(least, max(0, room-taken[n]))
			}
			taken[n] += lacks
		}
		rate, at := int64(supposedRate), "1 Gbit/s"
		if p.Rate > 0 {
			rate, at = p.Rate, bytesize.Text(p.Rate)+"/s"
		}
		took := time.Duration(float64(most) / float64(rate) * float64(time.Second)).Round(time.Second / 10)
		fmt.Fprintln(w, printable.Line(fmt.Sprintf("would push %s %s to %s: %s to each at most, %s in all, %v at %s",
			p.Name, shortDigest(p.Digest), fold(p.Nodes), bytesize.Text(most), bytesize.Text(all), took, at)))
		if len(tight) > 0 {
			fmt.Fprintln(w, printable.Line(fmt.Sprintf("  it may not fit on %s: there is room for %s, and it needs less only where it shares layers with what stays there",
				fold(tight), bytesize.Text(least))))
		}
	}
}
