package push

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// ErrUnconfirmed says that nobody agreed to what would be overwritten. Nothing was.
var ErrUnconfirmed = errors.New("nothing was overwritten: the plan was not confirmed")

// A Plan is what a transfer to block devices would overwrite.
type Plan struct {
	// Nodes has a row for every requested node. Of those that would be served the Facts are in Devices.
	Nodes []ring.Row
	// Source is what is sent, as the user named it, and Holds what it holds, in the words of disk.Facts.Held.
	Source, Holds string
	// Size is that of the source in bytes.
	Size int64
	// Update is set where nodes compare what they have, and are sent only what differs.
	Update bool
	// Unread is set where nodes do not read back what they wrote.
	Unread bool
}

// Updates reports whether a source of size bytes is compared first where an update is asked for. What is shorter is sent whole.
func Updates(asked bool, size int64) bool { return asked && size >= raw.LeavesFrom }

// Plan returns the plan of these nodes, once Run has opened a source of size bytes.
func (p *Push) Plan(nodes []ring.Row, size int64) Plan {
	return Plan{nodes, p.Name, p.holds, size, Updates(p.Update, size), p.Meta.Device != nil && p.Meta.Device.Unread}
}

// Devices returns the device of each node that would be served, by the node's place in Nodes. It is nil where the node describes
// it in a way that nobody understands.
func (p Plan) Devices() map[int]*disk.Facts {
	all := map[int]*disk.Facts{}
	for i, row := range p.Nodes {
		if row.State != ring.Pending {
			continue
		}
		if all[i] = new(disk.Facts); json.Unmarshal(row.Facts, all[i]) != nil {
			all[i] = nil
		}
	}
	return all
}

// CodeNotReadBack is the code of a row whose device was written and not read back, as the sender wanted it.
const CodeNotReadBack = "not-read-back"

// notReadBack says in the rows of devices that were written that nobody has read them back.
func notReadBack(r *ring.Report) {
	const what = "not read back"
	for i := range r.Nodes {
		row := &r.Nodes[i]
		switch {
		case row.State != ring.Committed:
			continue
		case row.Reason == "":
			row.Cause.Text, row.Reason = what, what
		default: // the node came back, say
			row.Cause.After += ", " + what
			row.Reason += ", " + what
		}
		row.Code = CodeNotReadBack
	}
}

// Alike returns the nodes whose devices hold the same known formats as the source, by their places in Nodes. They may have most of
// it already, as after an earlier transfer.
func (p Plan) Alike() (places []int) {
	devices := p.Devices()
	for i := range p.Nodes {
		f := devices[i]
		known := func(s disk.Signature) bool { return s.Type != disk.UnknownType && s.Type != disk.HalfWrittenType }
		if f != nil && slices.ContainsFunc(f.Holds, known) && f.Held() == p.Holds {
			places = append(places, i)
		}
	}
	return places
}

// overwrites has the plan of a transfer to devices confirmed.
func (p *Push) overwrites(ctx context.Context, cfg *ring.Config) error {
	blobs, err := cfg.Source.Blobs(ctx)
	if err != nil {
		return err
	}
	var size int64
	for _, b := range blobs {
		size += b.Size
	}
	cfg.Confirm = func(ctx context.Context, plan []ring.Row) error { return p.Confirm(ctx, p.Plan(plan, size)) }
	cfg.Same = func(planned, now json.RawMessage) bool {
		var a, b disk.Facts
		return json.Unmarshal(planned, &a) == nil && json.Unmarshal(now, &b) == nil && a.Same(&b)
	}
	return nil
}
