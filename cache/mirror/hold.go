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
	images   map[digest.Digest]v1.Descriptor
	release  []func()
	last     time.Time   // when a request ended
	end      *time.Timer // runs while there is no request
}

// begin is called at the start of each request of a repository, and done at its end. Begin returns the images of the
// repository that were served lately.
func (h *holds) begin(repo string) (images []v1.Descriptor, done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	if r == nil {
		r = &held{images: map[digest.Digest]v1.Descriptor{}}
		h.repo[repo] = r
	}
	r.requests++
	if r.end != nil {
		r.end.Stop()
	}
	for _, d := range r.images {
		images = append(images, d)
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
			for _, release := range r.release {
				release()
			}
		}
	})
}

// add holds an image. It is called between begin and done. If the cache cannot be written to, it holds nothing.
func (h *holds) add(ctx context.Context, c *cache.Cache, repo string, d v1.Descriptor) error {
	if !h.wants(repo, d) {
		return nil
	}
	release, err := c.Hold(ctx, d) // this may wait for the lock of the index while other requests go on
	if err != nil {
		return err
	}
	if !h.take(repo, d, release) {
		release()
	}
	return nil
}

func (h *holds) wants(repo string, d v1.Descriptor) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	_, has := r.images[d.Digest]
	return !has && len(r.images) < maxHolds
}

// take reports whether the image is held from now on. If it returns false, another request was faster.
func (h *holds) take(repo string, d v1.Descriptor, release func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	if _, has := r.images[d.Digest]; has {
		return false
	}
	r.images[d.Digest] = d
	r.release = append(r.release, release)
	return true
}
