package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Writer stores one blob of a Transfer. Commit makes the blob durable under its digest, and Abort keeps
// leading bytes for another Begin of the same Transfer. A Writer does not hash. It is an alias, so that a
// package which this one does not import can name the same type.
type Writer = interface {
	io.Writer
	Commit(ctx context.Context, final v1.Descriptor) error
	Abort(keep int64) error
}

// TransferOptions are the options of a Transfer. Zero values are good.
type TransferOptions struct {
	// Root is what the reference will name. Zero is the last blob that is a
	// manifest or an index.
	Root digest.Digest
	// Rehash trusts no record: Offer hashes every blob that is there.
	Rehash bool
	// Pin keeps the image from being evicted, as Cache.Pin does, from Publish on.
	Pin bool
	// Owner is the warmer that sends the image; "" is a sender. The name becomes this warmer's, and if it is another
	// warmer's, Offer refuses with an error of kind cache-conflict.
	Owner string
	// HashTime is how long Offer may hash blobs that no record says are right. Blobs
	// for which there is no time are not held. Zero is 2 s, or a minute with Rehash.
	HashTime time.Duration
}

// Transfer receives the blobs of one image and then names it. It begins with
// Offer and ends with Close. Between the two it leases its blobs.
type Transfer struct {
	c   *Cache
	ref string
	o   TransferOptions

	mu        sync.Mutex
	blobs     []v1.Descriptor // as offered, then as prepared
	vouched   map[digest.Digest]bool
	parts     []*part // those that are written, or that an Abort has kept
	unnamed   digest.Digest
	lease     *lease
	begun     int // how many parts were made; the number is in their names
	closed    bool
	prepared  bool
	root      v1.Descriptor
	inPlace   bool
	claims    bool // a warmer's name is nobody's, or a sender's
	kept      bool // Close keeps parts
	stale     bool // the reference named another image before it was published
	published bool
	need      int64 // bytes for which Begin has to make room
}

// String returns the reference, for logs.
func (t *Transfer) String() string { return t.ref }

// Transfer returns a transfer that receives the image which ref shall name.
func (c *Cache) Transfer(ref string, o TransferOptions) *Transfer {
	if o.HashTime == 0 {
		o.HashTime = 2 * time.Second
		if o.Rehash {
			o.HashTime = time.Minute
		}
	}
	return &Transfer{c: c, ref: ref, o: o, vouched: map[digest.Digest]bool{}}
}

func (t *Transfer) fail(d digest.Digest, what string, err error) error {
	return fmt.Errorf("cache %s: blob %s: %s: %w", t.c.dir, d, what, err)
}

// Offer returns how many bytes of each blob are held, and how many bytes are free. A blob is held if it is there and
// right; of a blob whose transfer was cut off, the first bytes are held. Offer writes nothing but a lease on the blobs,
// which lasts until Close.
func (t *Transfer) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	if err := CheckRef(t.ref); err != nil {
		return nil, 0, fmt.Errorf("cache %s: %w", t.c.dir, err)
	}
	for _, d := range blobs {
		if d.Digest == "" {
			continue
		}
		if err := validate(d.Digest); err != nil {
			return nil, 0, fmt.Errorf("cache %s: digest %q: %w", t.c.dir, d.Digest, err)
		}
	}
	if err := t.hold(ctx, blobs); err != nil {
		return nil, 0, err
	}
	if err := t.Allowed(blobs); err != nil {
		return nil, 0, err
	}
	hashing, cancel := context.WithTimeout(ctx, t.o.HashTime)
	defer cancel()
	held = make([]int64, len(blobs))
	left := t.c.keptParts()
	for i, d := range blobs {
		switch {
		case d.Digest == "":
		case t.holds(hashing, d):
			held[i] = d.Size
		case left[d.Digest]:
			held[i] = claimable(t.claim(d), d)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if free, err = t.room(ctx, blobs, held); err != nil {
		return nil, 0, fmt.Errorf("cache %s: %w", t.c.dir, err)
	}
	if need := lacking(blobs, held); free >= 0 && need > free {
		return nil, 0, fmt.Errorf("cache %s: needs %s, %s are free there: %w", t.c.dir, bytesize.Text(need), bytesize.Text(free), syscall.ENOSPC)
	}
	return held, free, nil
}

// gc returns the options of a GC that makes room for so many bytes. It keeps the image that the reference names now,
// because users need that one if this transfer fails.
func (t *Transfer) gc(room int64) GCOptions {
	return GCOptions{Limits: t.c.limitsNow(), Room: room, Grace: DefaultGrace, Keep: []string{t.ref}}
}

// makeRoom evicts images once if the cache has limits.
func (t *Transfer) makeRoom(ctx context.Context) error {
	t.mu.Lock()
	need := t.need
	t.need = 0
	t.mu.Unlock()
	if need == 0 {
		return nil
	}
	_, err := t.c.GC(ctx, t.gc(need))
	if errors.Is(err, syscall.ENOSPC) {
		return nil // another transfer took the room meanwhile; Close keeps the limits
	}
	return err
}

// hold leases the blobs whose digests are known. It locks the index, so that a GC which is under
// way has finished before Offer looks what there is.
func (t *Transfer) hold(ctx context.Context, blobs []v1.Descriptor) error {
	if err := t.c.ensure(skeleton); err != nil {
		return err
	}
	unlock, err := t.c.lockIndex(ctx)
	if err != nil {
		return errkind.Errorf("cache-unwritable", "%w", err)
	}
	defer unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blobs = slices.Clone(blobs)
	if err := t.ensureLease(); err != nil {
		return errkind.Errorf("cache-unwritable", "cache %s: lease: %w", t.c.dir, err)
	}
	var digests []digest.Digest
	for _, d := range blobs {
		if d.Digest != "" {
			digests = append(digests, d.Digest)
		}
	}
	if err := t.lease.add(digests...); err != nil {
		return fmt.Errorf("cache %s: lease: %w", t.c.dir, err)
	}
	return nil
}

// ensureLease makes the lease if there is none yet. The caller holds mu.
func (t *Transfer) ensureLease() (err error) {
	if t.closed {
		return errors.New("the transfer is closed")
	}
	if t.lease == nil {
		t.lease, err = newLease(t.c.fs, "leases")
	}
	return err
}

// holds reports whether blob d is there, whole and right, and remembers it.
func (t *Transfer) holds(ctx context.Context, d v1.Descriptor) bool {
	size, ok := t.c.trusted(d.Digest)
	if size != d.Size {
		return false // this includes a blob that is not there
	}
	if !ok || t.o.Rehash {
		info, err := t.c.hash(ctx, d.Digest, func(int) {})
		if err != nil {
			return false
		}
		if info.Size() != d.Size {
			return false
		}
		t.c.trust(d.Digest, info)
	}
	t.mu.Lock()
	t.vouched[d.Digest] = true
	t.mu.Unlock()
	return true
}

// Prepare is called when every blob is there. It makes them durable, checks that the image lacks
// none, and reports whether the reference already names the image.
func (t *Transfer) Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blobs = slices.Clone(blobs)
	if err := t.prepare(); err != nil {
		return false, err
	}
	return t.inPlace, nil
}

// Switches reports whether Publish would make the reference name another image than it names now.
func (t *Transfer) Switches(context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	root, err := t.rootOf(t.blobs)
	if err != nil {
		return true
	}
	d, err := t.c.Resolve(t.ref)
	return err != nil || d.Digest != root.Digest || t.o.Pin && !pinned(d)
}

// Allowed returns an error of kind cache-conflict if the reference is another warmer's, and these blobs are those of another
// image than it leads to. Offer looks, too, and Publish, under the lock.
func (t *Transfer) Allowed(blobs []v1.Descriptor) error {
	if t.o.Owner == "" {
		return nil
	}
	d, err := t.c.Resolve(t.ref)
	if err != nil {
		return nil // there is no such name, or Prepare says what is wrong
	}
	root, err := t.rootOf(blobs)
	if err != nil {
		return nil // Prepare says so
	}
	return t.c.mayMove(d, root, t.o.Owner)
}

// rootOf returns what the reference shall name of these blobs.
func (t *Transfer) rootOf(blobs []v1.Descriptor) (v1.Descriptor, error) {
	for _, d := range slices.Backward(blobs) {
		if t.o.Root != "" && t.o.Root == d.Digest || t.o.Root == "" && IsManifest(d.MediaType) {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("cache %s: %s: no manifest among its %d blobs", t.c.dir, t.ref, len(blobs))
}

func (t *Transfer) prepare() (err error) {
	if t.root, err = t.rootOf(t.blobs); err != nil {
		return err
	}
	dirs := map[string]bool{"blobs": true} // also of what others put there: were they as far as this?
	seen := map[digest.Digest]int64{}
	present := func(d v1.Descriptor) error {
		if size, ok := seen[d.Digest]; ok && size == d.Size {
			return nil
		}
		if err := t.c.present(d); err != nil {
			return err
		}
		seen[d.Digest] = d.Size
		dirs["blobs/"+d.Digest.Algorithm().String()] = true
		return nil
	}
	for _, d := range t.blobs {
		if err := checkDescriptor(d); err != nil {
			return fmt.Errorf("cache %s: %s: %w", t.c.dir, t.ref, err)
		}
		if err := present(d); err != nil {
			return err
		}
	}
	if err := t.c.walk(t.root, present); err != nil {
		return err
	}
	for dir := range dirs {
		if err := t.c.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("cache %s: make blobs durable: %w", t.c.dir, err)
		}
	}
	d, err := t.c.Resolve(t.ref)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	t.stale = err == nil && d.Digest != t.root.Digest
	t.claims = t.o.Owner != "" && ownerOf(d) == ""
	if t.inPlace = err == nil && d.Digest == t.root.Digest && (pinned(d) || !t.o.Pin); t.inPlace {
		if err := t.c.settleIndex(); err != nil {
			return err
		}
	}
	t.prepared = true
	return nil
}

// Publish makes the reference name the image, durably. If the reference named another
// image, it moves.
func (t *Transfer) Publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.prepared {
		if err := t.prepare(); err != nil {
			return err
		}
	}
	if err := t.stands(); err != nil {
		return err
	}
	if !t.inPlace || t.claims {
		if err := t.c.setRef(ctx, t.ref, t.root, t.o.Pin, t.o.Owner); err != nil {
			return err
		}
	}
	if err := t.stands(); err != nil { // or else the name may be in a new cache, and the blobs gone with the old one
		return err
	}
	t.c.touch(t.root.Digest)
	t.published = true
	return nil
}

// Keep tells Close to keep the bytes of blobs that are not complete for another
// transfer.
func (t *Transfer) Keep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = true
}

// tendFor is how long Close may wait for the index, which another process may hold.
const tendFor = time.Minute

// Close ends the transfer. It removes blobs that are not complete, unless Keep was
// called or they were only claimed. It calls Tend if Publish moved the reference away
// from another image, or if there are limits.
func (t *Transfer) Close() error {
	err := t.end()
	if t.published && (t.stale || t.c.limitsNow() != (Limits{})) { // the image is in place, whatever comes of it
		ctx, cancel := context.WithTimeout(context.Background(), tendFor)
		defer cancel()
		if err := t.c.Tend(ctx, t.ref); err != nil {
			t.c.log.Warn("the cache could not be looked after", "error", err)
		}
	}
	return err
}

func (t *Transfer) end() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, p := range t.parts {
		if t.kept || !p.begun {
			errs = append(errs, t.c.keep(p.File, p.name, p.d.Digest, p.Written()))
		} else {
			errs = append(errs, t.c.fs.Remove(p.name))
		}
		errs = append(errs, p.release())
	}
	t.parts, t.closed = nil, true
	if t.lease != nil {
		t.lease.close(t.c.fs)
		t.lease = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cache %s: clean up: %w", t.c.dir, err)
	}
	return nil
}
