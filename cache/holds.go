package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// This file answers what the cache holds. An answer takes no lease and no lock that others wait for, and it reads no
// blobs but manifests: a blob is held if it is there and a record says that it is right, and its inode, size and times
// are those in the record. An answer is true of a moment within the last second (known.go).

// Asked is an image that a question is about. If Digest is "", it is what Name leads to; Name may be "", too.
type Asked struct {
	Name   string
	Digest digest.Digest
}

// These are the states of an image.
const (
	HeldAll  = "held"    // every blob is here and right
	HeldPart = "partly"  // the manifest is here, and not all that it needs
	HeldNone = "missing" // not even the manifest
)

// Holding is what the cache has of an image.
type Holding struct {
	Name   string
	Digest digest.Digest // that of the question, or Named if that had none
	State  string        // of Digest
	Named  digest.Digest // what Name leads to, or ""
	// NameOwner is the warmer whose name it is: no other warmer may make it lead to another image. "" is that every one may.
	NameOwner string
	Bytes     int64 // of all its blobs together; -1 is unknown
	// Lacks is how many bytes of its blobs are not here, not even as first bytes that a transfer has left. -1 is unknown.
	Lacks int64
	// Owners are who wants it, Local first. If Name leads to it, they are those who keep it under this name, and a pin of another
	// name is not among them.
	Owners []string
	// Why says what keeps the image from being held or, if it is held, by whom the name leads to another one. It may be "".
	Why string
}

// Holdings is the answer to a question.
type Holdings struct {
	Images []Holding // those of the question, in its order, and then the others
	Free   int64     // bytes that the cache could take, once what may go is gone; -1 is unknown
	Limits Limits
	Wanted int64 // bytes that stay because somebody wants them
}

// Holds returns what the cache has of these images and, if all is true, of every other one that has a name.
func (c *Cache) Holds(ctx context.Context, images []Asked, all bool) (Holdings, error) {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	if err := c.ensure(skeleton[:1]); err != nil {
		return Holdings{}, err
	}
	q := question{ctx: ctx, c: c, known: &c.known}
	if err := q.refresh(); err != nil {
		return Holdings{}, err
	}
	h := Holdings{Limits: c.limitsNow()}
	if all {
		images = slices.Concat(images, q.others(images))
	}
	for _, a := range images {
		if err := ctx.Err(); err != nil {
			return Holdings{}, fmt.Errorf("cache %s: %w", c.dir, err)
		}
		h.Images = append(h.Images, q.image(a))
	}
	var err error
	if h.Wanted, err = q.wanted(); err == nil {
		h.Free, err = q.free(h.Limits)
	}
	if err != nil {
		return Holdings{}, fmt.Errorf("cache %s: %w", c.dir, err)
	}
	return h, nil
}

// others returns the images that have a name and are not asked about.
func (q *question) others(images []Asked) (list []Asked) {
	asked := map[string]bool{"": true}
	for _, a := range images {
		asked[a.Name] = true
	}
	for _, d := range q.images {
		if !asked[refName(d)] {
			list = append(list, Asked{refName(d), d.Digest})
		}
	}
	return list
}

func (q *question) image(a Asked) Holding {
	named := q.names[a.Name]
	h := Holding{Name: a.Name, Digest: a.Digest, Named: named.Digest, NameOwner: q.owned[a.Name], State: HeldNone, Bytes: -1, Lacks: -1}
	if h.Digest == "" {
		h.Digest = h.Named
	}
	if h.Digest == "" {
		h.Why = "no such name"
		return h
	}
	if h.Owners = q.owners(h.Digest); named.Digest == h.Digest {
		h.Owners = q.keepers.of(named)
	}
	has := q.has(h.Digest)
	h.State, h.Bytes, h.Lacks, h.Why = has.State, has.Bytes, has.Lacks, has.Why
	if owner := ownerOf(named); h.State == HeldAll && named.Digest != h.Digest && owner != "" {
		h.Why = fmt.Sprintf("the warmer %s has set the name", owner)
	}
	return h
}

// has returns State, Bytes, Lacks and Why of a digest.
func (q *question) has(d digest.Digest) Holding {
	h, ok := q.summed[d]
	if !ok {
		if h = q.sumUp(d); q.ctx.Err() == nil {
			remember(&q.summed, d, h)
		}
	}
	return h
}

func (q *question) sumUp(d digest.Digest) Holding {
	if q.look(d).size < 0 {
		why := "it is not here"
		if q.c.quarantined(d) {
			why = "its manifest had wrong bytes, and is in quarantine"
		}
		return Holding{State: HeldNone, Bytes: -1, Lacks: -1, Why: why}
	}
	h := Holding{Digest: d, State: HeldPart}
	lacks, doubtful, err := q.sum(&h)
	switch {
	case err != nil:
		h.Bytes, h.Lacks, h.Why = -1, -1, err.Error()
	case lacks > 0:
		h.Why = fmt.Sprintf("%d of its blobs with %s are not here", lacks, bytesize.Text(h.Lacks))
	case doubtful > 0:
		h.Why = fmt.Sprintf("of %d of its blobs nobody knows whether they are right; a push or dolly-img cache verify reads them", doubtful)
	default:
		h.State = HeldAll
	}
	return h
}

// owners returns who wants an image, whatever its names.
func (q *question) owners(d digest.Digest) []string {
	owners := slices.Clone(q.keepers.digests[d])
	for _, named := range q.digests[d] {
		owners = append(owners, q.keepers.of(named)...)
	}
	return ordered(owners)
}

// sum adds up the blobs of an image whose manifest is here. It returns how many are not, and how many no record vouches for.
func (q *question) sum(h *Holding) (lacks, doubtful int, err error) {
	h.Bytes, h.Lacks = 0, 0
	err = q.walk(h.Digest, func(d v1.Descriptor) {
		h.Bytes += d.Size
		switch b := q.look(d.Digest); {
		case b.size != d.Size:
			lacks++
			h.Lacks += d.Size - q.c.keptOf(d)
		case !b.right:
			doubtful++
		}
	})
	return lacks, doubtful, err
}

// look looks for a blob, if no question did so lately.
func (q *question) look(d digest.Digest) blobState {
	if b, ok := q.looked[d]; ok {
		return b
	}
	b := q.lookUp(d)
	remember(&q.looked, d, b)
	return b
}

func (q *question) lookUp(d digest.Digest) blobState {
	name, err := blobName(d)
	if err != nil {
		return blobState{size: -1}
	}
	info, err := q.c.fs.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return blobState{size: -1}
	}
	if was, ok := q.right[d]; ok && q.still && was[0] == stampOf(info) {
		return blobState{info.Size(), true}
	}
	record, err := q.c.fs.Lstat("verified/" + flat(d))
	if err != nil {
		return blobState{size: info.Size()}
	}
	now := [2]stamp{stampOf(info), stampOf(record)}
	if q.right[d] == now {
		return blobState{info.Size(), true}
	}
	size, right := q.c.trusted(d)
	if right {
		remember(&q.right, d, now)
	}
	return blobState{size, right}
}

// walk calls visit for each blob of an image once, as far as the manifests are here, the first one the root. It ends with the context.
func (q *question) walk(root digest.Digest, visit func(v1.Descriptor)) error {
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: root, Size: q.look(root).size}
	return q.walkTo(maxDepth, d, seen{}, visit)
}

func (q *question) walkTo(depth int, d v1.Descriptor, seen seen, visit func(v1.Descriptor)) error {
	if err := q.ctx.Err(); err != nil || len(d.URLs) > 0 {
		return err
	}
	blob, references := seen.add(d, IsManifest(d.MediaType))
	if blob {
		visit(d)
	}
	if size := q.look(d.Digest).size; !references || size < 0 || size != d.Size {
		return nil
	}
	if depth < 0 {
		return errors.New("its manifests are nested too deeply")
	}
	refs, err := q.references(d)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, child := range refs {
		if err := q.walkTo(depth-1, child, seen, visit); err != nil {
			return err
		}
	}
	return nil
}

// references returns what a manifest references that is here.
func (q *question) references(d v1.Descriptor) ([]v1.Descriptor, error) {
	if known, ok := q.refs[d.Digest]; ok {
		return known.list, known.err
	}
	if d.Size > maxManifest {
		return nil, &largeError{"it", maxManifest}
	}
	b, err := q.c.manifestBytes(d)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	refs := references{m.references(), err}
	if q.referred += len(refs.list); q.referred > maxKnown {
		q.refs, q.referred = nil, len(refs.list)
	}
	remember(&q.refs, d.Digest, refs)
	return refs.list, refs.err
}
