package node

import (
	"context"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
)

// stock answers questions, and takes wishes, for the cache of a node.
type stock struct{ cache *cache.Cache }

var _ ring.Stock = stock{}

func (s stock) Holds(ctx context.Context, q ring.Question) (ring.Holdings, error) {
	var asked []cache.Asked
	for _, i := range q.Images {
		asked = append(asked, cache.Asked(i))
	}
	h, err := s.cache.Holds(ctx, asked, q.All)
	if err != nil {
		return ring.Holdings{}, err
	}
	out := ring.Holdings{Free: h.Free, Max: h.Limits.Max, Reserve: h.Limits.Free, Wanted: h.Wanted}
	for _, i := range h.Images {
		out.Images = append(out.Images, ring.HeldImage{
			Name: i.Name, Digest: i.Digest, State: ring.HoldState(i.State), Named: i.Named, NameOwner: i.NameOwner,
			Bytes: i.Bytes, Lacks: i.Lacks, Owners: i.Owners, Why: i.Why,
		})
	}
	return out, nil
}

func (s stock) SetWishes(ctx context.Context, owner string, list []ring.Wish) error {
	var wishes []cache.Wish
	for _, w := range list {
		wishes = append(wishes, cache.Wish(w))
	}
	return s.cache.SetWishes(ctx, owner, wishes)
}

// ownerOf returns whose a name becomes that r makes: a warmer's, or "" for a sender's.
func ownerOf(r ring.Request) string {
	if r.Role == ring.RoleWarmer {
		return r.Sender
	}
	return ""
}
