package warmer

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// What push has as the defaults of its flags.
const (
	retries   = 3
	maxDirect = 4
)

// Push sends an image from the own cache to the caches of nodes. What the own cache lacks comes into it while it is sent.
//
// One ring at a time sends a digest until a first node has it: that of another name of the same image, or for newcomers while a slow node is served, finds all
// bytes where the first one has brought them.
func (e *Effects) Push(ctx context.Context, p *warm.Push, rates <-chan int64, progress func(warm.Progress)) ([]warm.Row, error) {
	done, err := e.turns.take(ctx, p.Digest)
	if err != nil {
		return interrupted(p.Nodes), err
	}
	done = sync.OnceFunc(done)
	defer done()
	job := &push.Push{
		Name: p.Ref, What: kept{e, p}, Meta: meta.Transfer{Kind: meta.KindImage, Ref: p.Name},
		Nodes: p.Nodes, Port: ring.DefaultPort, Keys: e.cfg.Keys, Role: identity.Warmer, Rate: p.Rate, Rates: rates,
		Straggler: ring.Demote, Retries: retries, MaxDirect: maxDirect, Software: e.cfg.Software, Log: e.cfg.RingLog,
		OnEvent: func(ev ring.Event) {
			if ev.Kind != ring.EventProgress {
				return
			}
			if ev.Done > 0 {
				done() // all bytes have come to this server
			}
			progress(warm.Progress{Rate: int64(ev.Rate), Left: leftOf(ev), Done: ev.Done})
		},
	}
	ended := func(*ring.Report, error) {}
	if e.cfg.Watch != nil {
		job.OnNodes, ended = e.cfg.Watch(p.Name)
	}
	rep, err := job.Run(ctx)
	if err != nil {
		err = told(err)
	}
	ended(rep, err)
	rows := make([]warm.Row, len(rep.Nodes))
	for i, row := range rep.Nodes {
		rows[i] = rowOf(row, rep.Bytes)
		if ctx.Err() != nil && rows[i].Outcome != warm.Committed { // whatever that looks like, as if its name was not known
			rows[i] = warm.Row{Node: row.Node, Outcome: warm.Interrupted}
		}
	}
	return rows, err
}

// interrupted returns the rows of a push that was ended before it began.
func interrupted(nodes []string) (rows []warm.Row) {
	for _, node := range nodes {
		rows = append(rows, warm.Row{Node: node, Outcome: warm.Interrupted})
	}
	return rows
}

// mostLeft is more than any ring takes. Of one that nearly stands, no time.Duration could be so long.
const mostLeft = 1000 * time.Hour

// leftOf returns how long a ring still takes, or 0 if nobody knows.
func leftOf(ev ring.Event) time.Duration {
	rest := float64(ev.Total - ev.Bytes)
	if rest <= 0 || ev.Rate < 1 {
		return 0
	}
	return time.Duration(min(rest/ev.Rate, mostLeft.Seconds()) * float64(time.Second))
}

// rowOf returns what became of a push of so many bytes to a node.
func rowOf(r ring.Row, bytes int64) warm.Row {
	row := warm.Row{Node: r.Node, Why: r.Reason}
	switch {
	case r.State.Good():
		row.Outcome = warm.Committed
	case r.State == ring.Unreachable, r.Code == ring.CodeLost:
		row.Outcome = warm.Unreachable
	case r.Code == ring.CodeSpace:
		row.Outcome, row.Needs = warm.Full, max(0, bytes-r.Skipped)
	case r.Code == ring.CodeInUse: // which of an image for the cache is its name
		row.Outcome = warm.Conflict
		if _, theirs, ok := strings.Cut(r.Reason, " is of the warmer "); ok { // the words of package cache, without what differs between nodes
			theirs, _, _ = strings.Cut(theirs, ", and leads to ")
			row.Why = fleet.OwnedBy(theirs)
		}
	case r.Code == ring.CodeInterrupted, r.Code == ring.CodeSource, r.Code == push.CodeNotAsked:
		row.Outcome = warm.Interrupted
	}
	return row
}

// kept opens what a ring sends: the image as the own cache keeps it or, where that lacks it, as it was looked up, and then the cache keeps it.
type kept struct {
	e *Effects
	p *warm.Push
}

func (k kept) Open(ctx context.Context, p *push.Push, m *meta.Transfer) (ring.Source, error) {
	keep, err := keptAs(k.p.Name, k.p.Digest)
	if err != nil {
		return nil, err
	}
	o := image.Options{
		OCI:   oci.Options{Platform: k.p.Platform, Name: k.p.Name, Registry: oci.RegistryOptions{AuthFile: k.p.AuthFile}},
		Cache: k.e.cfg.Cache, Keep: keep, Digest: k.p.Digest, Log: k.e.log,
		Warn: func(warning error) { k.e.log.Warn("image", "ref", k.p.Ref, "warning", told(warning)) },
	}
	if o.Limits, err = cachedir.Limits(p.Keys); err != nil {
		return nil, err
	}
	source, err := image.OpenKept(ctx, keep, o)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		k.e.log.Info("brought into the own cache", "ref", k.p.Ref, "digest", k.p.Digest)
		return image.Open(ctx, byDigest(k.p.Ref, k.p.Digest), o, m)
	case err != nil:
		return nil, err
	}
	// A policy that was made stricter since holds for what is kept, too.
	if name := byDigest(k.p.Ref, k.p.Digest); image.OfRegistry(name) {
		if err := oci.CheckPolicy(name, k.p.Name); err != nil {
			if c, ok := source.(io.Closer); ok {
				err = errors.Join(err, c.Close())
			}
			return nil, err
		}
	}
	return source, nil
}

// keptAs returns the name of an image in the own cache. It has the digest in place of a tag, so that an image of each platform and each older one has a name of its own, and
// no name there moves that somebody else goes by.
func keptAs(name string, d digest.Digest) (string, error) {
	name, _, _ = strings.Cut(name, "@")
	return oci.FullName(name + "@" + d.String())
}

// byDigest returns the name of an image of a registry with this digest, and any other as it is.
func byDigest(ref string, d digest.Digest) string {
	if !image.OfRegistry(ref) {
		return ref
	}
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref + "@" + d.String()
}
