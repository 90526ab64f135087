package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// Pin pins what the names lead to on each node, or lets it go if on is false. It returns a row for each node: ring.Committed is one
// whose pins it has changed, and ring.Held one that had them so. A node that lacks one of the names changes nothing. A
// pin that somebody makes on the node itself at the same moment may be lost, because a node takes the pins as a whole.
// The error is one of this side.
func Pin(ctx context.Context, c Config, names []string, on bool) ([]ring.Row, error) {
	cfg, err := c.ring(ctx)
	if err != nil {
		return nil, err
	}
	replies, err := ring.Ask(ctx, cfg, ring.Question{All: true})
	if err != nil {
		return nil, err
	}
	rows := make([]ring.Row, len(replies))
	some := cfg
	some.Nodes = nil
	var at []int // the rows of those
	var queries []ring.NodeQuery
	for i, r := range replies {
		rows[i] = rowOf(r)
		if r.State != "" {
			continue
		}
		list, changes, err := pins(r, names, on)
		switch {
		case err != nil:
			rows[i].State, rows[i].Cause = ring.Failed, ring.Cause{Text: err.Error()}
		case changes:
			some.Nodes, at = append(some.Nodes, cfg.Nodes[i]), append(at, i)
			queries = append(queries, ring.NodeQuery{Wants: &ring.Wants{Owner: cache.Local, Wishes: list}})
		}
	}
	if len(queries) > 0 {
		err = ring.Query(ctx, some, queries, func(i int, r ring.Reply) {
			if rows[at[i]] = rowOf(r); r.State == "" {
				rows[at[i]].State = ring.Committed
			}
		})
	}
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].Reason = rows[i].Cause.String()
	}
	return rows, nil
}

func rowOf(r ring.Reply) ring.Row {
	row := ring.Row{Node: r.Node, State: r.State, Cause: r.Cause}
	if r.State == "" {
		row.State = ring.Held
	}
	return row
}

// pins returns what shall be pinned on a node, by what it says that it has, and whether that is something else than now.
func pins(r ring.Reply, refs []string, on bool) (list []ring.Wish, changes bool, err error) {
	if r.More > 0 {
		return nil, false, fmt.Errorf("has %d more images than it can list at once", r.More)
	}
	var names []string
	leads, pinned := map[string]digest.Digest{}, map[string]bool{}
	for _, h := range r.Images {
		if h.Name == "" || h.Named == "" {
			continue
		}
		names = append(names, h.Name)
		leads[h.Name] = h.Named
		if slices.Contains(h.Owners, cache.Local) {
			pinned[h.Name] = true
		}
	}
	for _, ref := range refs {
		found := image.Meant(names, ref)
		switch {
		case len(found) == 0:
			return nil, false, fmt.Errorf("%q is not in its cache", ref)
		case len(found) > 1:
			return nil, false, fmt.Errorf("%q is the short name of %s", ref, strings.Join(found, ", "))
		}
		if changes = changes || pinned[found[0]] != on; on {
			pinned[found[0]] = true
		} else {
			delete(pinned, found[0])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pinned)) {
		list = append(list, ring.Wish{Name: name, Digest: leads[name], Pin: true})
	}
	return list, changes, nil
}
