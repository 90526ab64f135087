package ring

import (
	"context"
	"errors"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a node answers questions and takes wishes. They take no place for a transfer and leave nothing behind; the lobby bounds the
// connections, and has one question answered at a time.

// isQuestion reports whether m is no part of a transfer.
func isQuestion(m wire.Message) bool {
	switch m.(type) {
	case *wire.Ask, *wire.Want:
		return true
	}
	return false
}

// reply answers a question, once it is its turn. It returns when the answer is written, so that who does not read one gets no other
// and delays nobody. False says that it cannot be written.
func (n *Node) reply(ctrl *control, cfg *NodeConfig, by Client, m wire.Message) bool {
	if n.lobby.await(ctrl) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), timings.lookFor)
	answer := n.answerTo(ctx, cfg, by, m)
	cancel()
	n.lobby.answered(ctrl)
	if err := ctrl.send(answer); err != nil {
		n.log.Debug("question not answered", "client", wire.Printable(by.Name), "peer", by.Addr, "error", err)
		return false
	}
	return ctrl.flush()
}

func (n *Node) answerTo(ctx context.Context, cfg *NodeConfig, by Client, m wire.Message) wire.Message {
	switch m := m.(type) {
	case *wire.Ask:
		n.log.Debug("asked", "client", wire.Printable(by.Name), "role", string(by.Role), "peer", by.Addr, "images", len(m.Images), "all", m.All)
		h, ne := holdsOf(ctx, cfg, m)
		if ne != nil {
			return &wire.Holds{Free: -1, Code: ne.Code, Reason: wire.Cut(ne.Error())}
		}
		return h
	case *wire.Want:
		n.log.Debug("wishes", "client", wire.Printable(by.Name), "role", string(by.Role), "peer", by.Addr, "owner", wire.Printable(m.Owner), "images", len(m.Images))
		if ne := setWishes(ctx, cfg, by, m); ne != nil {
			// No louder than the wishes themselves: who is refused is told so, and may say them again without end.
			n.log.Debug("wishes refused", "client", wire.Printable(by.Name), "peer", by.Addr, "owner", wire.Printable(m.Owner), "reason", ne.Error())
			return &wire.Wanted{Code: ne.Code, Reason: wire.Cut(ne.Error())}
		}
	}
	return &wire.Wanted{}
}

// errNoStock is the answer of a node that keeps nothing between transfers.
var errNoStock = errors.New("this node keeps no images")

func holdsOf(ctx context.Context, cfg *NodeConfig, m *wire.Ask) (*wire.Holds, *wire.Error) {
	if cfg.Stock == nil {
		return nil, &wire.Error{Code: wire.CodePolicy, Err: errNoStock}
	}
	q := Question{All: m.All}
	for _, i := range m.Images {
		q.Images = append(q.Images, Image(i))
	}
	h, err := cfg.Stock.Holds(ctx, q)
	if err == nil && len(h.Images) < len(q.Images) {
		err = errors.New("the store answers for fewer images than were asked about")
	}
	if err != nil {
		return nil, coded(err, wire.CodeStore)
	}
	out := &wire.Holds{More: h.More, Free: h.Free, Max: h.Max, Reserve: h.Reserve, Wanted: h.Wanted}
	for i, held := range h.Images {
		// Names that are too long for a message, as other programs may have written them into a cache, are not asked about.
		if i >= len(q.Images) && (len(out.Images) == MaxImages || len(held.Name) > MaxImageName) {
			out.More++
			continue
		}
		out.Images = append(out.Images, wire.Holding{
			Name: held.Name, Digest: held.Digest, State: string(held.State), Named: held.Named, NameOwner: held.NameOwner,
			Bytes: held.Bytes, Lacks: held.Lacks, Owners: held.Owners[:min(len(held.Owners), wire.MaxOwners)], Why: held.Why[:min(len(held.Why), maxWhy)],
		})
	}
	return out, nil
}

// maxWhy is how many bytes of a reason an answer has for each image, so that it stays far below the limit of a message.
const maxWhy = 1 << 10

func setWishes(ctx context.Context, cfg *NodeConfig, by Client, m *wire.Want) *wire.Error {
	switch {
	case by.Role != RoleSender && by.Role != RoleWarmer:
		return wire.Errorf(wire.CodeAuth, "a certificate of the role %s does not permit wishes", by.Role)
	case by.Role == RoleWarmer && (by.Name != m.Owner || m.Owner == OwnerLocal):
		return wire.Errorf(wire.CodeAuth, "the wishes of %q are not those of the warmer %q", m.Owner, by.Name)
	case cfg.Stock == nil:
		return &wire.Error{Code: wire.CodePolicy, Err: errNoStock}
	}
	var wishes []Wish
	for _, w := range m.Images {
		wishes = append(wishes, Wish(w))
	}
	if err := cfg.Stock.SetWishes(ctx, m.Owner, wishes); err != nil {
		return coded(err, wire.CodeStore)
	}
	return nil
}
