package oci

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// annotationName is where containerd, and this project, write the full name of an image in a layout.
const annotationName = "io.containerd.image.name"

// named is an entry of a layout's index.json.
type named struct {
	v1.Descriptor
	own  string // the name in the layout as it is written there; "" if it is only a tag
	full string // the full name of own, or own itself if it is no name
}

func nameEntry(d v1.Descriptor) named {
	n := named{Descriptor: d, own: d.Annotations[annotationName]}
	if ref := d.Annotations[v1.AnnotationRefName]; n.own == "" && hasPath(ref) {
		n.own = ref
	}
	n.full = familiar(n.own)
	return n
}

// String returns the name of the image for messages.
func (n named) String() string {
	for _, s := range []string{n.full, n.Annotations[v1.AnnotationRefName]} {
		if s != "" {
			return s
		}
	}
	return n.Digest.String()
}

// same reports whether two entries say the same about one image.
func (n named) same(o named) bool { return n.Digest == o.Digest && n.full == o.full }

// is reports whether ref is the name that the layout itself has for the entry.
func (n named) is(ref string) bool {
	return ref == n.Annotations[v1.AnnotationRefName] || ref == n.Annotations[annotationName] || ref == n.Digest.String()
}

// pick finds the image with a name in index.json, or the only image. Ref may be a tag, a full name, a short name,
// or a digest. A name that is written there exactly has precedence over one that has to be completed. If several
// images have the name, one for each platform, index.json itself is the list of platforms, and pick returns all of
// them.
func pick(list []v1.Descriptor, ref string) ([]named, error) {
	if len(list) == 0 {
		return nil, errors.New("there is no image in it")
	}
	all := make([]named, len(list))
	for i, d := range list {
		all[i] = nameEntry(d)
	}
	found := all
	if ref != "" {
		found = only(all, func(n named) bool { return n.is(ref) })
		if full := familiar(ref); len(found) == 0 {
			found = only(all, func(n named) bool { return n.full == full })
		}
	}
	found, all = distinct(found), distinct(all)
	switch {
	case len(found) == 1 || arePlatforms(found):
		return found, nil
	case ref == "":
		return nil, errkind.Errorf("ref-missing", "has %d images: %s", len(all), tell(all))
	case len(found) == 0:
		return nil, errkind.Errorf("ref-unknown", "has no %q, only %s", ref, tell(all))
	}
	return nil, errkind.Errorf("ref-ambiguous", "%q may be any of %d images: %s", ref, len(found), tell(found))
}

// onlyTag returns the tag that the list has for an image, if the image has only this tag and no name.
func onlyTag(list []v1.Descriptor, image named) string {
	tag := ""
	for _, d := range list {
		ref := d.Annotations[v1.AnnotationRefName]
		switch {
		case d.Digest != image.Digest || ref == "" || ref == tag:
		case tag != "" || hasPath(ref): // this is a second tag, or a name
			return ""
		default:
			tag = ref
		}
	}
	return tag
}

func only(list []named, is func(named) bool) (found []named) {
	for _, n := range list {
		if is(n) {
			found = append(found, n)
		}
	}
	return found
}

// distinct leaves out entries that say the same about one image again.
func distinct(list []named) (found []named) {
	for _, n := range list {
		if !slices.ContainsFunc(found, n.same) {
			found = append(found, n)
		}
	}
	return found
}

// arePlatforms reports whether all entries have one name, and each is for another platform.
func arePlatforms(list []named) bool {
	seen := map[platform]bool{}
	for _, n := range list {
		if n.Platform == nil || n.full != list[0].full || n.Annotations[v1.AnnotationRefName] != list[0].Annotations[v1.AnnotationRefName] {
			return false
		}
		p := platformOf(n.Platform)
		if seen[p] {
			return false
		}
		seen[p] = true
	}
	return len(list) > 1
}

// tell lists entries for people. If several have the same name, it adds their digests.
func tell(list []named) string {
	var names []string
	for _, n := range list[:min(len(list), 10)] {
		name := n.String()
		if len(only(list, func(o named) bool { return o.String() == name })) > 1 {
			name = fmt.Sprintf("%s (%s)", name, n.Digest)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
