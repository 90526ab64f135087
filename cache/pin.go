package cache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// annotationPin is the annotation in index.json of an image that GC must not remove.
const annotationPin = "io.github.dolly-img.pin"

func pinned(d v1.Descriptor) bool { return d.Annotations[annotationPin] == "true" }

// Pin keeps the image of a reference from being evicted if on is true, and allows it again if on is false. If the
// reference moves to another image, that one is pinned. The error about a reference that is not there wraps ErrNotFound.
func (c *Cache) Pin(ctx context.Context, ref string, on bool) error {
	_, err := c.PinAll(ctx, []string{ref}, on)
	return err
}

// PinAll does that for several references at once, and returns those of which it changed anything. If one of them is not there,
// nothing changes.
func (c *Cache) PinAll(ctx context.Context, refs []string, on bool) (changed []v1.Descriptor, err error) {
	err = c.editIndex(ctx, func(index *v1.Index) (bool, error) {
		changed = nil
		for _, ref := range refs {
			i := slices.IndexFunc(index.Manifests, func(d v1.Descriptor) bool { return ref != "" && refName(d) == ref })
			if i < 0 {
				return false, errkind.Errorf("cache-unknown", "cache %s: %q: %w", c.dir, ref, ErrNotFound)
			}
			if mark(&index.Manifests[i], on) {
				changed = append(changed, index.Manifests[i])
			}
		}
		return len(changed) > 0, nil
	})
	return changed, err
}

// mark pins the image of a descriptor of the index, or does the opposite. It reports whether that changes anything.
func mark(d *v1.Descriptor, on bool) (changed bool) {
	changed = pinned(*d) != on
	marks := maps.Clone(d.Annotations)
	delete(marks, annotationPin)
	if on {
		marks[annotationPin] = "true"
	}
	d.Annotations = marks
	return changed
}

// setPins makes the wishes of Local the pins: it pins what they name, and nothing else.
func (c *Cache) setPins(ctx context.Context, list []Wish) error {
	want := map[string]digest.Digest{}
	for _, w := range list {
		if other, twice := want[w.Name]; twice {
			return errkind.Errorf("cache-unknown", "cache %s: %q leads to one of %s and %s at most: %w", c.dir, w.Name, other, w.Digest, ErrNotFound)
		}
		want[w.Name] = w.Digest
	}
	return c.editIndex(ctx, func(index *v1.Index) (changed bool, err error) {
		for i, d := range index.Manifests {
			ref := refName(d)
			if ref == "" {
				continue
			}
			if want[ref] == d.Digest {
				changed = mark(&index.Manifests[i], true) || changed
				delete(want, ref)
			} else {
				changed = mark(&index.Manifests[i], false) || changed
			}
		}
		for _, ref := range slices.Sorted(maps.Keys(want)) {
			return false, errkind.Errorf("cache-unknown", "cache %s: %q %s: %w", c.dir, ref, want[ref], ErrNotFound)
		}
		return changed, nil
	})
}

// pins are the images that somebody keeps, and that keep room from others.
type pins struct {
	names  []string
	bytes  int64 // that would be free without the pins
	local  bool  // whether pins of this node are among them
	others bool  // whether there are some that other owners want
}

// pins returns the images without which there would be more room, once all others were evicted that may be, and whom
// they are wanted by.
func (g *collector) pins() (p pins) {
	var images []v1.Descriptor
	for _, d := range g.index.Manifests {
		if len(g.keepers.of(d)) > 0 && !slices.Contains(g.o.Keep, refName(d)) {
			images = append(images, d)
		}
	}
	named := len(images)
	images = append(images, g.keepers.roots...)
	others := g.evictable()
	stays, needed := g.without(others), g.without(append(others, images...))
	freed := func(b digest.Digest) bool { return stays(b) && !needed(b) }
	for i, d := range images {
		again := i >= named && slices.ContainsFunc(images[:named], func(o v1.Descriptor) bool { return o.Digest == d.Digest })
		if !again && slices.ContainsFunc(g.blobs[d.Digest], freed) {
			p.add(d, i < named, g.keepers)
		}
	}
	for b, size := range g.sizes {
		if freed(b) {
			p.bytes += size
		}
	}
	return p
}

// add adds an image. Leads says whether its name leads to it.
func (p *pins) add(d v1.Descriptor, leads bool, k keepers) {
	name, owners := imageName(d), k.of(d)
	if !leads {
		owners = k.digests[d.Digest]
	}
	if !leads && refName(d) != "" {
		name += "@" + d.Digest.Algorithm().String() + ":" + d.Digest.Encoded()[:12]
	}
	if owners[0] == Local {
		p.local = true
	} else {
		p.others = true
		name += " (wanted by " + strings.Join(owners, ", ") + ")"
	}
	p.names = append(p.names, name)
}

// String names a few of them.
func (p pins) String() string {
	const most = 3
	names, more := p.names, ""
	if len(names) > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	verb := "pinned"
	if p.others {
		verb = "wanted"
		if p.local {
			verb = "pinned or wanted"
		}
	}
	images := "1 image with %s is %s: %s"
	if len(p.names) > 1 {
		images = fmt.Sprint(len(p.names), " images with %s are %s: %s")
	}
	return fmt.Sprintf(images, bytesize.Text(p.bytes), verb, strings.Join(names, ", ")) + more
}

// inTheWay gives an error that is due to the pins its kind.
func (p pins) inTheWay(err error) error {
	if p.local {
		return errkind.Errorf("cache-pinned", "%w", err)
	}
	return errkind.Errorf("cache-wanted", "%w", err)
}

// imageName returns the reference of an image, or its digest if it has none.
func imageName(d v1.Descriptor) string {
	if name := refName(d); name != "" {
		return name
	}
	return d.Digest.String()
}
