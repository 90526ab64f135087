package mirror

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

// A runtime asks for a manifest, and then for the blobs that it names. Between the two the tag may move, or the image may
// be removed or evicted. A hold lets the runtime finish all the same.
//
// A push that lacks room ends holds. It leaves those of the images that are being pulled: a blob was asked for lately, and
// not yet all of them.

const (
	holdFor  = time.Minute // how long images are held after the last request of their repository
	maxHolds = 64          // how many images of one repository are held; more are served without a hold
)

// holds has the images that were served lately, by their repository.
type holds struct {
	mu   sync.Mutex
	repo map[string]*held
}

// held is the images of one repository that were served lately.
type held struct {
	requests int // how many are under way
	images   map[digest.Digest]*image
	last     time.Time   // when a request ended
	end      *time.Timer // runs while there is no request
}

// image is a manifest that was served, and is held.
type image struct {
	root  v1.Descriptor
	hold  *cache.Hold
	lacks map[digest.Digest]bool // its blobs of which the last byte was not asked for
}

// begin is called at the start of each request of a repository, and done at its end. Begin returns the images of the
// repository that were served lately.
func (h *holds) begin(repo string) (images []v1.Descriptor, done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	if r == nil {
		r = &held{images: map[digest.Digest]*image{}}
		h.repo[repo] = r
	}
	r.requests++
	if r.end != nil {
		r.end.Stop()
	}
	for d, i := range r.images {
		if i.hold.Ended() { // a push needed the room
			i.hold.Release()
			delete(r.images, d)
			continue
		}
		images = append(images, i.root)
	}
	return images, func() { h.done(repo, r) }
}

func (h *holds) done(repo string, r *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.requests--; r.requests > 0 {
		return
	}
	if len(r.images) == 0 {
		delete(h.repo, repo)
		return
	}
	r.last = time.Now()
	r.end = time.AfterFunc(holdFor, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		// A request may have come and ended since this timer ran out.
		if r.requests == 0 && time.Since(r.last) >= holdFor && h.repo[repo] == r {
			delete(h.repo, repo)
			for _, i := range r.images {
				i.hold.Release()
			}
		}
	})
}

// add holds an image. It is called between begin and done. If the cache cannot be written to, it holds nothing.
func (h *holds) add(ctx context.Context, c *cache.Cache, repo string, d v1.Descriptor) error {
	if !h.wants(repo, d) {
		return nil
	}
	// This may wait for the lock of the index while other requests go on.
	hold, err := c.Hold(ctx, d)
	if err != nil {
		return err
	}
	i := &image{root: d, hold: hold, lacks: map[digest.Digest]bool{}}
	for _, b := range hold.Blobs {
		if !cache.IsManifest(b.MediaType) {
			i.lacks[b.Digest] = true
		}
	}
	if !h.take(repo, i) {
		hold.Release()
	}
	return nil
}

func (h *holds) wants(repo string, d v1.Descriptor) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	return r.images[d.Digest] == nil && len(r.images) < maxHolds
}

// take reports whether the image is held from now on. If it returns false, another request was faster.
func (h *holds) take(repo string, i *image) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	if r.images[i.root.Digest] != nil {
		return false
	}
	r.images[i.root.Digest] = i
	return true
}

// ask notes that a blob was asked for, to its last byte or not.
func (h *holds) ask(repo string, d digest.Digest, last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.repo[repo].images {
		if i.lacks[d] {
			if last {
				delete(i.lacks, d)
			}
			_ = i.hold.Pulled(len(i.lacks) > 0) // if this fails, a push may take the room, and the registry is asked
		}
	}
}
