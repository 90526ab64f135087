package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// ahead is how many blobs are pulled at once: the one that the ring sends, and the next ones, so that the ring does not
// wait for the registry to answer.
const ahead = 3

// pull is an image in a registry or, with Options.Keep, any other, as a ring.Source. It asks for each blob once and writes it to this server's cache while
// it arrives. All readers take it from there: the first one, and any that must send it again. Blobs that are in the
// cache already are not pulled.
type pull struct {
	image oci.Source
	store *cache.Transfer
	blobs []v1.Descriptor

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	fetches map[digest.Digest]*fetch
	// held has the blobs that every node holds. They are not pulled ahead.
	held map[digest.Digest]bool
}

// fetch is a blob on its way into the cache.
type fetch struct {
	n    int64 // bytes in the cache
	done bool  // the whole blob is there, and it is right
	err  error // why no more bytes will come
}

// newPull returns a pull of the image that keeps it in the cache of cacheFlag, under the name ref and within the limits.
// A nil log is silent.
func newPull(ctx context.Context, image oci.Source, ref, cacheFlag string, limits cache.Limits, log *slog.Logger) (*pull, error) {
	c, err := cachedir.Create(cacheFlag)
	if err != nil {
		return nil, errkind.Errorf("cache-own", "this server's own cache: %w", err)
	}
	if log != nil {
		c.SetLog(log)
	}
	c.SetLimits(limits)
	p := &pull{image: image, store: c.Transfer(ref, cache.TransferOptions{}), fetches: map[digest.Digest]*fetch{}, held: map[digest.Digest]bool{}}
	p.changed.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if p.blobs, err = image.Blobs(ctx); err == nil {
		err = p.offer(ctx, c.Dir())
	}
	if err != nil {
		p.cancel()
		return nil, errors.Join(errkind.Errorf("cache-own", "this server's own cache: %w", err), p.store.Close())
	}
	return p, nil
}

// offer finds out which blobs the cache in dir holds, and checks that there is room for the others.
func (p *pull) offer(ctx context.Context, dir string) error {
	held, free, err := p.store.Offer(ctx, p.blobs)
	if err != nil {
		return err
	}
	need := int64(0)
	for i, d := range p.blobs {
		if held[i] == d.Size && d.Size > 0 { // 0 bytes of an empty blob are held even if the blob is not there
			p.fetches[d.Digest] = &fetch{n: d.Size, done: true}
		} else {
			need += d.Size
		}
	}
	if free >= 0 && need > free {
		return fmt.Errorf("cache %s: needs %s, %s are free there", dir, bytesize.Text(need), bytesize.Text(free))
	}
	return nil
}

func (p *pull) Blobs(context.Context) ([]v1.Descriptor, error) { return p.blobs, nil }

// Planned is called by the ring. It notes which blobs no node lacks.
func (p *pull) Planned(read []bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, b := range p.blobs {
		p.held[b.Digest] = !read[i]
	}
}

// Open returns a reader of a blob. It waits for bytes that have not arrived yet.
func (p *pull) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > d.Size {
		return nil, fmt.Errorf("blob %s: offset %d is outside of %d bytes", d.Digest, off, d.Size)
	}
	f := p.want(d)
	r := &pullReader{ctx: ctx, p: p, f: f, d: d, off: off}
	r.stop = context.AfterFunc(ctx, p.wake)
	return r, nil
}

// want begins to pull blob d if nobody has, and the next blobs that some node lacks.
func (p *pull) want(d v1.Descriptor) *fetch {
	p.mu.Lock()
	defer p.mu.Unlock()
	running, found := 0, false
	for _, b := range p.blobs {
		if found = found || b.Digest == d.Digest; !found || p.held[b.Digest] && b.Digest != d.Digest {
			continue
		}
		f := p.fetches[b.Digest]
		// A blob that failed while it was pulled ahead is pulled again when somebody waits for it.
		if f == nil || f.err != nil && b.Digest == d.Digest {
			f = p.start(b)
		}
		if !f.done && f.err == nil {
			if running++; running == ahead {
				break
			}
		}
	}
	return p.fetches[d.Digest]
}

// start begins to pull b. The caller holds mu.
func (p *pull) start(b v1.Descriptor) *fetch {
	f := &fetch{}
	p.fetches[b.Digest] = f
	p.wg.Go(func() {
		err := p.fetch(b, f)
		p.mu.Lock()
		f.done, f.err = err == nil, err
		p.mu.Unlock()
		p.wake()
	})
	return f
}

func (p *pull) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
}

// fetch brings b into the cache. The reader of the image compares the bytes with the digest at their end.
func (p *pull) fetch(b v1.Descriptor, f *fetch) error {
	from, err := p.image.Open(p.ctx, b, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := p.store.Begin(p.ctx, b, 0)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(fetched{to, p, f}, from, make([]byte, 256<<10)); err != nil {
		return errors.Join(err, to.Abort(0))
	}
	return to.Commit(p.ctx, b)
}

// fetched writes to the cache and wakes the readers.
type fetched struct {
	io.Writer
	p *pull
	f *fetch
}

func (w fetched) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.p.mu.Lock()
	w.f.n += int64(n)
	w.p.mu.Unlock()
	w.p.changed.Broadcast()
	return n, err
}

// Close stops what is being pulled. An image that is whole gets its name in the cache. If it is not whole, its blobs stay
// in the cache for the next push.
func (p *pull) Close() error {
	p.mu.Lock()
	whole := true
	for _, b := range p.blobs {
		f := p.fetches[b.Digest]
		whole = whole && f != nil && f.done
	}
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	var err error
	if whole {
		if _, err = p.store.Prepare(context.Background(), p.blobs); err == nil {
			err = p.store.Publish(context.Background())
		}
	}
	return errors.Join(err, p.store.Close(), p.image.Close())
}

// pullReader reads a blob while it arrives.
type pullReader struct {
	ctx  context.Context
	p    *pull
	f    *fetch
	d    v1.Descriptor
	off  int64
	rc   io.ReadCloser // reads from the cache; nil until the first bytes are there
	stop func() bool
}

func (r *pullReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := r.wait()
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	if r.rc == nil {
		if r.rc, err = r.p.store.Open(r.ctx, r.d, r.off); err != nil {
			return 0, err
		}
	}
	k, err := r.rc.Read(b[:min(int64(len(b)), n)])
	r.off += int64(k)
	if k > 0 || err == io.EOF {
		err = nil
	}
	return k, err
}

// wait waits for bytes and returns how many can be read. It returns 0 at the end of the blob.
func (r *pullReader) wait() (int64, error) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	for {
		switch {
		case r.ctx.Err() != nil:
			return 0, r.ctx.Err()
		case r.f.err != nil: // this comes first, because the bytes that arrived may be wrong
			return 0, r.f.err
		case r.off < r.f.n && (r.off < r.d.Size-1 || r.f.done):
			// The last byte waits until the whole blob was found right. So a wrong blob fails here, where the error can
			// name the registry.
			if r.f.done {
				return r.f.n - r.off, nil
			}
			return min(r.f.n, r.d.Size-1) - r.off, nil
		case r.f.done:
			return 0, nil
		}
		r.p.changed.Wait()
	}
}

func (r *pullReader) Close() error {
	r.stop()
	if r.rc != nil {
		return r.rc.Close()
	}
	return nil
}
