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
	return c.editIndex(ctx, func(index *v1.Index) (bool, error) {
		for i, d := range index.Manifests {
			if ref == "" || refName(d) != ref {
				continue
			}
			marks := maps.Clone(d.Annotations)
			delete(marks, annotationPin)
			if on {
				marks[annotationPin] = "true"
			}
			index.Manifests[i].Annotations = marks
			return pinned(d) != on, nil
		}
		return false, errkind.Errorf("cache-unknown", "cache %s: %q: %w", c.dir, ref, ErrNotFound)
	})
}

// pins are the pinned images that keep room from others.
type pins struct {
	names []string
	bytes int64 // that would be free without the pins
}

// pins returns the pinned images without which there would be more room, once all others were evicted that may be.
func (g *collector) pins() (p pins) {
	images := slices.DeleteFunc(slices.Clone(g.index.Manifests), func(d v1.Descriptor) bool {
		return !pinned(d) || slices.Contains(g.o.Keep, refName(d))
	})
	others := g.evictable()
	stays, needed := g.without(others), g.without(append(others, images...))
	freed := func(b digest.Digest) bool { return stays(b) && !needed(b) }
	for _, d := range images {
		if slices.ContainsFunc(g.blobs[d.Digest], freed) {
			p.names = append(p.names, imageName(d))
		}
	}
	for b, size := range g.sizes {
		if freed(b) {
			p.bytes += size
		}
	}
	return p
}

// String names a few of them.
func (p pins) String() string {
	const most = 3
	names, more := p.names, ""
	if len(names) > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	images := "1 image with %s is pinned: %s"
	if len(p.names) > 1 {
		images = fmt.Sprint(len(p.names), " images with %s are pinned: %s")
	}
	return fmt.Sprintf(images, bytesize.Text(p.bytes), strings.Join(names, ", ")) + more
}

// imageName returns the reference of an image, or its digest if it has none.
func imageName(d v1.Descriptor) string {
	if name := refName(d); name != "" {
		return name
	}
	return d.Digest.String()
}
