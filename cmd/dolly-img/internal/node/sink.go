package node

import (
	"context"
	"fmt"
	"io/fs"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/tree"
)

// compose makes the sink that the request asks for. The policy permits it.
func (a *acceptor) compose(ctx context.Context, r ring.Request, m *meta.Transfer) (ring.Sink, error) {
	blobs, named := r.Blobs, cache.TransferOptions{Pin: m.Pin, Owner: ownerOf(r)}
	switch {
	case m.Discard:
		return raw.Discard{}, nil
	case m.Output == "-":
		return raw.Stdout(a.stdout), nil
	case m.Output == "":
		t := a.cache.Transfer(m.Ref, named)
		if err := t.Allowed(blobs); err != nil {
			return nil, err
		}
		return t, nil
	}
	o, err := a.target(m)
	if err != nil {
		return nil, err
	}
	if m.Split {
		return a.split(ctx, m, blobs, o)
	}
	if m.Tree != nil {
		return a.directory(ctx, m, blobs, o)
	}
	if m.Kind == meta.KindRaw {
		target, err := raw.NewTarget(o)
		if err != nil {
			return nil, err
		}
		if _, _, err := target.Offer(ctx, blobs); err != nil {
			target.Close()
			return nil, err
		}
		a.journalPart(m.Output)
		return target, nil
	}
	if m.NoKeep {
		d, err := newDirect(a.cache, m, blobs, o)
		if err != nil {
			return nil, err
		}
		a.journalPart(m.Output)
		return d, nil
	}
	out, err := newOutput(m, blobs, o)
	if err != nil {
		return nil, err
	}
	p := &placing{Transfer: a.cache.Transfer(m.Ref, named), cache: a.cache, out: out, meta: m}
	if err := p.begin(); err != nil {
		out.Close()
		return nil, err
	}
	a.journalPart(m.Output)
	return p, nil
}

// split makes the sink of a file in parts.
func (a *acceptor) split(ctx context.Context, m *meta.Transfer, blobs []v1.Descriptor, o raw.TargetOptions) (ring.Sink, error) {
	s, err := raw.NewSplit(o)
	if err != nil {
		return nil, err
	}
	if _, _, err := s.Offer(ctx, blobs); err != nil {
		s.Close()
		return nil, err
	}
	for _, file := range written(m, len(blobs)) {
		a.journalPart(file)
	}
	return s, nil
}

// directory returns the sink of a whole directory.
func (a *acceptor) directory(ctx context.Context, m *meta.Transfer, blobs []v1.Descriptor, o raw.TargetOptions) (ring.Sink, error) {
	t, err := tree.NewTarget(tree.TargetOptions{Place: o, Special: m.Tree.Special, InPlace: m.Tree.InPlace, Records: a.cache, Explain: func(err error) error {
		if hint := a.hint(err); hint != "" {
			return fmt.Errorf("%w (%s)", err, hint)
		}
		return err
	}})
	if err != nil {
		return nil, err
	}
	if _, _, err := t.Offer(ctx, blobs); err != nil {
		t.Close()
		return nil, err
	}
	a.journalPart(m.Output)
	return t.Sink(), nil
}

// target returns what the policy and the sender say about the output.
func (a *acceptor) target(m *meta.Transfer) (o raw.TargetOptions, err error) {
	permitted := a.policy.Output
	if m.Tree != nil {
		permitted = a.policy.Directory
	}
	dir, rel, overwrite, err := permitted(m.Output)
	if err != nil {
		return o, err
	}
	owner, err := resolveOwner(m.Owner)
	return raw.TargetOptions{
		Dir: dir, Name: rel, Overwrite: overwrite,
		Mode: fs.FileMode(m.Mode), Owner: owner, ModTime: m.Mtime, Mkdir: m.Mkdir, Shared: m.Shared, NoSync: m.NoSync,
	}, err
}
