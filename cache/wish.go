package cache

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Wish is an image that an owner wants to be here. See the package comment.
type Wish struct {
	Name   string        // the reference, or "" if only the digest is wanted
	Digest digest.Digest // of the manifest or index
	Pin    bool          // whether what Name leads to is kept, too, whichever image that is
	Keep   int           // how many digests of Name the owner keeps; the cache only tells it again
}

// Local is the owner whose wishes are the pins of this node.
const Local = "local"

const (
	wishesFile    = "wishes.json"
	wishesVersion = 1
	maxWishes     = 8 << 20 // bytes of wishes.json: about 40,000 wishes
	maxOwner      = 255     // bytes of the name of an owner

	// maxOwners is how many owners have wishes beside Local, and maxOfOwner how many bytes of wishes.json each may have, so that none
	// leaves no room to another one.
	maxOwners  = 16
	maxOfOwner = maxWishes / maxOwners
)

// wishes are what owners want, by owner, without Local. The lists are sorted by name and digest and have no wish twice.
type wishes map[string][]Wish

// wishRecord is a wish in wishes.json.
type wishRecord struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Pin    bool          `json:"pin,omitempty"`
	Keep   int           `json:"keep,omitempty"`
}

// wishesRecord is the content of wishes.json.
type wishesRecord struct {
	Version int                     `json:"version"`
	Owners  map[string][]wishRecord `json:"owners"`
}

func (w wishes) encode() ([]byte, error) {
	r := wishesRecord{Version: wishesVersion, Owners: map[string][]wishRecord{}}
	for owner, list := range w {
		for _, wish := range list {
			r.Owners[owner] = append(r.Owners[owner], wishRecord(wish))
		}
	}
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// decodeWishes accepts only what encode writes, so that a torn or edited file is an error.
func decodeWishes(b []byte) (wishes, error) {
	var r wishesRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Version != wishesVersion {
		return nil, fmt.Errorf("version is %d, not %d", r.Version, wishesVersion)
	}
	w := wishes{}
	for owner, list := range r.Owners {
		if err := checkOwner(owner); err != nil {
			return nil, err
		}
		for _, wish := range list {
			w[owner] = append(w[owner], Wish(wish))
		}
		if sorted, err := sortWishes(w[owner]); err != nil || !slices.Equal(sorted, w[owner]) {
			return nil, cmp.Or(err, fmt.Errorf("the wishes of %q are not sorted", owner))
		}
	}
	if again, err := w.encode(); err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("not in its canonical form")
	}
	return w, nil
}

// checkOwner returns an error if owner cannot have wishes in wishes.json.
func checkOwner(owner string) error {
	switch {
	case owner == "" || owner == Local:
		return fmt.Errorf("owner %q: not the name of a warmer", owner)
	case len(owner) > maxOwner:
		return fmt.Errorf("owner %.40q… has %d bytes, and %d is the most", owner, len(owner), maxOwner)
	case printable.Line(owner) != owner:
		return fmt.Errorf("owner %q: not printable", owner)
	}
	return nil
}

// sortWishes returns a sorted copy. It returns an error about a wish that cannot be one, or that is there twice.
func sortWishes(list []Wish) ([]Wish, error) {
	list = slices.SortedFunc(slices.Values(list), func(a, b Wish) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Digest, b.Digest))
	})
	for i, w := range list {
		if w.Name == "" && w.Pin {
			return nil, fmt.Errorf("%s: pinned without a name", w.Digest)
		}
		if w.Name != "" {
			if err := CheckRef(w.Name); err != nil {
				return nil, err
			}
		}
		if err := validate(w.Digest); err != nil {
			return nil, fmt.Errorf("digest %q: %w", w.Digest, err)
		}
		if w.Keep < 0 {
			return nil, fmt.Errorf("%s: keep is %d", w.Name, w.Keep)
		}
		if i > 0 && list[i-1].Name == w.Name && list[i-1].Digest == w.Digest {
			return nil, fmt.Errorf("%s %s is wanted twice", w.Name, w.Digest)
		}
	}
	return list, nil
}

// readWishes reads wishes.json. If the file is damaged, it returns an error and leaves the file as it is.
func (c *Cache) readWishes() (wishes, error) {
	b, err := readFile(c.fs, wishesFile, maxWishes)
	if errors.Is(err, fs.ErrNotExist) {
		return wishes{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cache %s: %s: %w", c.dir, wishesFile, err)
	}
	w, err := decodeWishes(b)
	if err != nil {
		return nil, errkind.Errorf("cache-wishes", "cache %s: %s: %w", c.dir, wishesFile, err)
	}
	return w, nil
}

// SetWishes replaces what owner wants, durably and as a whole. After an error the old list is in force, or the new one.
// Wishes of Local are pins: each needs a name that leads to its digest, and the error about another one wraps ErrNotFound.
func (c *Cache) SetWishes(ctx context.Context, owner string, list []Wish) error {
	list, err := sortWishes(list)
	if err == nil {
		if err := c.ensure(skeleton); err != nil {
			return err
		}
	}
	if owner == Local && err == nil {
		return c.setPins(ctx, list)
	}
	if err = cmp.Or(err, checkOwner(owner)); err != nil {
		return fmt.Errorf("cache %s: wishes of %q: %w", c.dir, owner, err)
	}
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	w, err := c.readWishes()
	if err != nil {
		return err
	}
	if slices.Equal(w[owner], list) {
		return c.settleIndex() // an earlier call may have failed before the file was durable
	}
	if w[owner] = list; len(list) == 0 {
		delete(w, owner)
	}
	b, err := w.encode()
	if err == nil {
		err = w.fits(owner)
	}
	if err == nil {
		err = c.replace(wishesFile, b)
	}
	if err != nil {
		return fmt.Errorf("cache %s: %s: %w", c.dir, wishesFile, err)
	}
	return nil
}

// fits returns an error if the wishes of an owner are too many, or those of too many owners. Wishes that were there before may stay, and
// become fewer.
func (w wishes) fits(owner string) error {
	if len(w[owner]) == 0 {
		return nil
	}
	own, err := wishes{owner: w[owner]}.encode()
	switch {
	case err != nil:
		return err
	case len(own) > maxOfOwner:
		return errkind.Errorf("cache-wishes-many", "the wishes of %q have %d bytes, and %d are the most", owner, len(own), maxOfOwner)
	case len(w) > maxOwners:
		return errkind.Errorf("cache-owners", "%q would be the owner %d of wishes, and %d are the most", owner, len(w), maxOwners)
	}
	return nil
}

// Wishes returns what each owner wants. Those of Local are the pins.
func (c *Cache) Wishes() (map[string][]Wish, error) {
	w, err := c.readWishes()
	if err != nil {
		return nil, err
	}
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if pinned(d) && refName(d) != "" {
			w[Local] = append(w[Local], Wish{Name: refName(d), Digest: d.Digest, Pin: true})
		}
	}
	return w, nil
}

// keepers says who wants what.
type keepers struct {
	digests map[digest.Digest][]string // the owners that want a digest
	names   map[string][]string        // the owners that want what a name leads to
	// roots has each digest in digests once, under a name for which it is wanted.
	roots []v1.Descriptor
}

func (w wishes) keepers() keepers {
	k := keepers{digests: map[digest.Digest][]string{}, names: map[string][]string{}}
	for _, owner := range slices.Sorted(maps.Keys(w)) {
		for _, wish := range w[owner] {
			if k.digests[wish.Digest] == nil {
				k.roots = append(k.roots, v1.Descriptor{Digest: wish.Digest, Annotations: map[string]string{v1.AnnotationRefName: wish.Name}})
			}
			k.digests[wish.Digest] = append(k.digests[wish.Digest], owner)
			if wish.Pin {
				k.names[wish.Name] = append(k.names[wish.Name], owner)
			}
		}
	}
	return k
}

// of returns the owners that keep an image of the index from being evicted, each once, Local first.
func (k keepers) of(d v1.Descriptor) []string {
	owners := slices.Concat(k.digests[d.Digest], k.names[refName(d)])
	if pinned(d) {
		owners = append(owners, Local)
	}
	return ordered(owners)
}

// ordered returns owners in their order, each once, Local first.
func ordered(owners []string) []string {
	rank := func(owner string) int {
		if owner == Local {
			return 0
		}
		return 1
	}
	return slices.Compact(slices.SortedFunc(slices.Values(owners), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	}))
}

// nameless returns what is wanted and here, and is not in the index.
func (c *Cache) nameless(index v1.Index, k keepers) (list []v1.Descriptor) {
	for _, root := range k.roots {
		if slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == root.Digest }) {
			continue
		}
		if d, err := c.describe(root.Digest); err == nil {
			list = append(list, d)
		}
	}
	return list
}

// describe returns the descriptor of a manifest or an index that is here.
func (c *Cache) describe(d digest.Digest) (v1.Descriptor, error) {
	b, err := c.manifestBytes(v1.Descriptor{Digest: d})
	if err != nil {
		return v1.Descriptor{}, err
	}
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return v1.Descriptor{}, err
	}
	if m.MediaType == "" { // the specification does not demand it
		if m.MediaType = v1.MediaTypeImageManifest; m.Manifests != nil {
			m.MediaType = v1.MediaTypeImageIndex
		}
	}
	return v1.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(b))}, nil
}
