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
	own  string // how the layout names the image where that is more than a tag, as it stands there
	full string // the same in full; own where that is no name
}

func nameEntry(d v1.Descriptor) named {
	n := named{Descriptor: d, own: d.Annotations[annotationName]}
	if ref := d.Annotations[v1.AnnotationRefName]; n.own == "" && hasPath(ref) {
		n.own = ref
	}
	n.full = familiar(n.own)
	return n
}

// String is what the image is called in messages.
func (n named) String() string {
	for _, s := range []string{n.full, n.Annotations[v1.AnnotationRefName]} {
		if s != "" {
			return s
		}
	}
	return n.Digest.String()
}

// same says whether two entries say the same of one image.
func (n named) same(o named) bool { return n.Digest == o.Digest && n.full == o.full }

// is says whether ref is how the layout itself calls the entry.
func (n named) is(ref string) bool {
	return ref == n.Annotations[v1.AnnotationRefName] || ref == n.Annotations[annotationName] || ref == n.Digest.String()
}

// pick finds the image of a name in index.json, or the only one: ref may be a tag, a full name, a short one,
// or a digest. A name that stands there as it is counts before one that is completed. Where one name is of
// several images, one for each platform, index.json is itself the list of platforms, and all of them are
// returned.
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

// onlyTag is what the list calls an image that it found, where that is a tag and it has no other.
func onlyTag(list []v1.Descriptor, image named) string {
	tag := ""
	for _, d := range list {
		ref := d.Annotations[v1.AnnotationRefName]
		switch {
		case d.Digest != image.Digest || ref == "" || ref == tag:
		case tag != "" || hasPath(ref): // another one, or a name
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

// distinct leaves out what says the same of an image again.
func distinct(list []named) (found []named) {
	for _, n := range list {
		if !slices.ContainsFunc(found, n.same) {
			found = append(found, n)
		}
	}
	return found
}

// arePlatforms says whether all entries are of one name, and each of another platform.
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

// tell lists entries for people. Of several with one name each has its digest.
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
