package cache

import (
	"context"
	"maps"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

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
