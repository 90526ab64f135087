package cache

import (
	"cmp"
	"context"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// annotationOwner is the annotation of a descriptor in index.json whose name a warmer has set. Its value is the warmer.
const annotationOwner = "io.github.dolly-img.owner"

func ownerOf(d v1.Descriptor) string { return d.Annotations[annotationOwner] }

// setRef makes ref the name of d, and of nothing else. If ref was pinned, it stays pinned. Owner is the warmer that
// does it, or "". The error about a name that it may not move has the kind cache-conflict.
func (c *Cache) setRef(ctx context.Context, ref string, d v1.Descriptor, pin bool, owner string) error {
	var was v1.Descriptor
	err := c.editIndex(ctx, func(index *v1.Index) (bool, error) {
		if i := slices.IndexFunc(index.Manifests, func(have v1.Descriptor) bool { return refName(have) == ref }); i >= 0 {
			was = index.Manifests[i]
		}
		if err := c.mayMove(was, d, owner); err != nil {
			return false, err
		}
		moveRef(index, ref, d, pin, owner)
		return true, nil
	})
	if err != nil || was.Digest == "" || was.Digest == d.Digest {
		return err
	}
	switch {
	case owner != "" && ownerOf(was) == "":
		c.log.Info("a warmer moves a name that a sender had set", "reference", ref, "warmer", owner, "from", was.Digest, "to", d.Digest)
	case owner == "" && ownerOf(was) != "":
		c.log.Info("a sender moves a name that a warmer had set", "reference", ref, "warmer", ownerOf(was), "from", was.Digest, "to", d.Digest)
	}
	return nil
}

// mayMove returns an error if owner may not make the name of have lead to d. Others than warmers may, for whom owner is "".
// The name of a warmer that wants nothing under it any more is free.
func (c *Cache) mayMove(have, d v1.Descriptor, owner string) error {
	theirs := ownerOf(have)
	if owner == "" || theirs == "" || theirs == owner || have.Digest == d.Digest {
		return nil
	}
	w, err := c.readWishes()
	if err != nil || w.nameOwner(have) == "" {
		return err
	}
	return errkind.Errorf("cache-conflict", "cache %s: the name %s is of the warmer %s, and leads to %s", c.dir, refName(have), theirs, have.Digest)
}

// nameOwner returns the warmer whose name that of an image of the index is, or "".
func (w wishes) nameOwner(d v1.Descriptor) string {
	owner, ref := ownerOf(d), refName(d)
	if _, wants := slices.BinarySearchFunc(w[owner], ref, func(wish Wish, ref string) int { return cmp.Compare(wish.Name, ref) }); !wants {
		return ""
	}
	return owner
}

func moveRef(index *v1.Index, ref string, d v1.Descriptor, pin bool, owner string) {
	marks := map[string]string{v1.AnnotationRefName: ref}
	if pin {
		marks[annotationPin] = "true"
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(have v1.Descriptor) bool {
		if refName(have) != ref {
			return false
		}
		if pinned(have) {
			marks[annotationPin] = "true"
		}
		if have.Digest == d.Digest && ownerOf(have) != "" { // the name does not move
			owner = ownerOf(have)
		}
		return true
	})
	if owner != "" {
		marks[annotationOwner] = owner
	}
	index.Manifests = append(index.Manifests, v1.Descriptor{
		MediaType:    d.MediaType,
		ArtifactType: d.ArtifactType,
		Digest:       d.Digest,
		Size:         d.Size,
		Platform:     d.Platform,
		Annotations:  marks,
	})
}
