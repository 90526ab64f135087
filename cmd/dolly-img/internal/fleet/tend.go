package fleet

import (
	"context"
	"fmt"
	"slices"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// Tend has the caches of the nodes tended, with the key of a sender, and returns what each node says, and a row for it: ring.Committed
// is one on which something has changed, and ring.Held one on which it was so. A name that no node has fails all rows of those that
// could have had it, and a cache that stays over its limits fails the row of its node. The error is one of this side.
func Tend(ctx context.Context, c Config, w ring.Work, got func(ring.TendProgress)) ([]ring.TendReply, []ring.Row, error) {
	cfg, err := c.ring(ctx)
	if err != nil {
		return nil, nil, err
	}
	replies, err := ring.Tend(ctx, cfg, w, got)
	if err != nil {
		return nil, nil, err
	}
	return replies, rows(replies, w), nil
}

// Forget has the caches of the nodes let go all that a warmer wants, with the key of a sender. It returns for each node which of its images the
// warmer wanted, with those who still want them, and a row, as Tend does. A node that does not say what it has fails, whatever it has let go.
func Forget(ctx context.Context, c Config, warmer string) ([]ring.TendReply, []ring.Row, error) {
	cfg, err := c.ring(ctx)
	if err != nil {
		return nil, nil, err
	}
	before, err := ring.Ask(ctx, cfg, ring.Question{All: true})
	if err != nil {
		return nil, nil, err
	}
	after, err := ring.Want(ctx, cfg, warmer, nil)
	if err != nil {
		return nil, nil, err
	}
	replies := make([]ring.TendReply, len(after))
	for i, r := range after {
		t := ring.TendReply{Node: r.Node, State: r.State, Cause: r.Cause}
		if was := before[i]; t.State == "" {
			t.State, t.Cause = was.State, was.Cause
			t.Images = wantedBy(warmer, was.Images)
		}
		replies[i] = t
	}
	return replies, rows(replies, ring.Work{Do: ring.Unpins}), nil
}

// wantedBy returns the images that a warmer wants, with the others who do.
func wantedBy(warmer string, held []ring.HeldImage) (list []ring.TendedImage) {
	for _, h := range held {
		if at := slices.Index(h.Owners, warmer); at >= 0 {
			list = append(list, ring.TendedImage{Name: h.Name, Digest: h.Digest, Owners: slices.Delete(slices.Clone(h.Owners), at, at+1)})
		}
	}
	return list
}

func rows(replies []ring.TendReply, w ring.Work) []ring.Row {
	var list []ring.Row
	nowhere := ""
	if w.Do == ring.Removes {
		nowhere = removedNowhere(replies, w.Names)
	}
	for _, r := range replies {
		row := ring.Row{Node: r.Node, State: r.State, Cause: r.Cause}
		switch bad := len(r.Images) + r.More; {
		case r.State != "":
		case nowhere != "":
			row.State, row.Cause = ring.Failed, ring.Cause{Text: fmt.Sprintf("%q is not in its cache, nor in another one", nowhere)}
		case w.Do == ring.Verifies && bad > 0:
			row.State, row.Cause = ring.Failed, ring.Cause{Text: fmt.Sprintf("%d bad", bad)}
		case w.Do == ring.Collects && r.Over:
			row.State, row.Cause = ring.Failed, ring.Cause{Text: "its cache is still over its limits"}
		case w.Do != ring.Verifies && (bad > 0 || r.Blobs > 0):
			row.State = ring.Committed
		default:
			row.State = ring.Held
		}
		row.Reason = row.Cause.String()
		list = append(list, row)
	}
	return list
}

// removedNowhere returns the first of the names that was removed on no node, or "" also where no node answered.
func removedNowhere(replies []ring.TendReply, refs []string) string {
	answered := false
	var names []string
	for _, r := range replies {
		answered = answered || r.State == ""
		for _, i := range r.Images {
			names = append(names, i.Name)
		}
	}
	at := slices.IndexFunc(refs, func(ref string) bool { return len(image.Meant(names, ref)) == 0 })
	if !answered || at < 0 {
		return ""
	}
	return refs[at]
}
