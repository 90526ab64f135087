package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// Tend does what the commands of cmd/dolly-img do with the cache of their machine; see ring.Stock.
func (s stock) Tend(ctx context.Context, w ring.Work, got func(done, all int64)) (ring.Tended, error) {
	switch w.Do {
	case ring.Removes:
		return s.remove(ctx, w.Names)
	case ring.Collects:
		r, err := s.cache.GC(ctx, cache.GCOptions{Limits: cache.Limits{Max: w.Max, Free: w.Free}, Grace: w.Grace, Attainable: true})
		return removed(r), err
	case ring.Verifies:
		return s.verify(ctx, got)
	case ring.Pins, ring.Unpins:
		return s.pin(ctx, w.Names, w.Do == ring.Pins)
	}
	return ring.Tended{}, fmt.Errorf("%q is nothing that a cache can do", w.Do)
}

// meant returns the full names of images in the cache, each once. Those that are not there are in lacks.
func (s stock) meant(refs []string) (found, lacks []string, err error) {
	names, err := s.cache.Names()
	if err != nil {
		return nil, nil, err
	}
	for _, ref := range refs {
		switch full := image.Meant(names, ref); {
		case len(full) == 0:
			lacks = append(lacks, ref)
		case len(full) > 1:
			return nil, nil, fmt.Errorf("%q is the short name of %s", ref, strings.Join(full, ", "))
		case !slices.Contains(found, full[0]):
			found = append(found, full[0])
		}
	}
	return found, lacks, nil
}

// remove removes the names that are there.
func (s stock) remove(ctx context.Context, refs []string) (all ring.Tended, err error) {
	names, _, err := s.meant(refs)
	for _, name := range names {
		r, err := s.cache.Remove(ctx, name)
		if errors.Is(err, cache.ErrNotFound) {
			continue // somebody else has removed it
		}
		if err != nil {
			return all, err
		}
		t := removed(r)
		all.Images, all.Blobs, all.Bytes = append(all.Images, t.Images...), all.Blobs+t.Blobs, all.Bytes+t.Bytes
	}
	return all, err
}

// removed says what a collection has removed.
func removed(r cache.GCResult) ring.Tended {
	t := ring.Tended{Blobs: r.Blobs, Bytes: r.Bytes, Waits: r.Waits, Over: r.Over, Why: r.Pins}
	for _, name := range r.Images {
		i := ring.TendedImage{Name: name, Pinned: slices.Contains(r.Pinned, name), Owners: r.Wanted[name]}
		if d := digest.Digest(name); d.Validate() == nil {
			i.Name, i.Digest = "", d
		}
		t.Images = append(t.Images, i)
	}
	return t
}

func (s stock) verify(ctx context.Context, got func(done, all int64)) (t ring.Tended, err error) {
	_, err = s.cache.VerifyProgress(ctx, func(r cache.Result) {
		if r.Ref == "" {
			t.Blobs, t.Bytes = t.Blobs+1, t.Bytes+r.Size
		}
		switch {
		case r.Err == nil:
		case len(t.Images) == ring.MaxImages:
			t.More++
		default:
			t.Images = append(t.Images, ring.TendedImage{Name: r.Ref, Digest: r.Digest, Why: r.Err.Error()})
		}
	}, got)
	return t, err
}

func (s stock) pin(ctx context.Context, refs []string, on bool) (t ring.Tended, err error) {
	names, lacks, err := s.meant(refs)
	if err == nil && len(lacks) > 0 {
		err = fmt.Errorf("%q is not in its cache", lacks[0])
	}
	if err != nil {
		return t, err
	}
	changed, err := s.cache.PinAll(ctx, names, on)
	for _, d := range changed {
		t.Images = append(t.Images, ring.TendedImage{Name: d.Annotations[v1.AnnotationRefName], Digest: d.Digest})
	}
	return t, err
}
