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
// A push that lacks room ends holds, or else anybody could keep every image here by asking for its manifest now and then. It
// leaves those of the images that are being pulled: a blob was asked for lately, and not yet all of them.

const (
	pullFor  = 10 * time.Second // how long after a request for a blob its image is being pulled, at most
	maxPulls = 4                // how many images are being pulled as far as room is concerned, those asked for last
	holdFor  = time.Minute      // how long images are held after the last request of their repository
	maxHolds = 64               // how many images of one repository are held; more are served without a hold
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
	root    v1.Descriptor
	release func()
	lacks   map[digest.Digest]bool // its blobs of which the last byte was not asked for
	asked   time.Time              // when one of its blobs was asked for last; zero is never
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
	for _, i := range r.images {
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
				i.release()
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
	blobs, release, err := c.Hold(ctx, d, func() bool { return h.yields(repo, d.Digest) })
	if err != nil {
		return err
	}
	i := &image{root: d, release: release, lacks: map[digest.Digest]bool{}}
	for _, b := range blobs {
		if !cache.IsManifest(b.MediaType) {
			i.lacks[b.Digest] = true
		}
	}
	if !h.take(repo, i) {
		release()
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
			i.asked = time.Now()
			if last {
				delete(i.lacks, d)
			}
		}
	}
}

// yields reports whether the hold of an image ends for a transfer that lacks room. It does unless the image is being
// pulled. A hold that yields is forgotten.
func (h *holds) yields(repo string, root digest.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repo[repo]
	if r == nil || r.images[root] == nil {
		return false // it is about to be taken
	}
	me, later := r.images[root], 0
	for _, r := range h.repo {
		for _, i := range r.images {
			if i.pulled() && i.asked.After(me.asked) {
				later++
			}
		}
	}
	if me.pulled() && later < maxPulls {
		return false
	}
	delete(r.images, root)
	return true
}

// pulled reports whether a runtime is about to ask for more of the image.
func (i *image) pulled() bool { return len(i.lacks) > 0 && time.Since(i.asked) < pullFor }
