package relay

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"golang.org/x/sys/unix"
)

// DefaultWindow is the memory in bytes of a Pool whose size is not set.
const DefaultWindow = 32 << 20

// Sizes are the sizes of window memory and frames, and the distance of marks, in bytes, and how many marks are sent. 0 stands for the usual
// one. Simulations make all of them smaller together.
type Sizes struct {
	// Mark is the distance of marks. Both ends of a link must have the same.
	Mark int64
	// Chunk is what the window takes from the pool at once. No frame is larger.
	Chunk int
	// Frame is the smallest payload that is chosen for a frame, unless less is left to send.
	Frame int
	// Zero is the distance at which runs of zeros may begin and end. They are looked for at its multiples.
	Zero int
	// Ahead is how many marks a node is sent ahead of what it said to be good. It says that whenever a quarter of it more are.
	Ahead int64
}

func (z Sizes) orUsual() Sizes {
	if z.Mark == 0 {
		z.Mark = wire.MarkEvery
	}
	if z.Chunk == 0 {
		z.Chunk = wire.MaxPayload
	}
	if z.Frame == 0 {
		z.Frame = minFrame
	}
	if z.Zero == 0 {
		z.Zero = 64 << 10
	}
	if z.Ahead == 0 {
		z.Ahead = wire.MarksAhead
	}
	return z
}

// minChunks is how many chunks each transfer may always hold. They must exceed the distance of
// two marks by a frame: a link that lags waits for the next mark, which must not wait for
// the link.
func (z Sizes) minChunks() int { return int(z.Mark)/z.Chunk + 2 }

// MinWindow is the memory that each transfer may always hold, in bytes.
func (z Sizes) MinWindow() int {
	z = z.orUsual()
	return z.minChunks() * z.Chunk
}

// Pool is the memory for replay windows, shared by the transfers of a node.
// Chunks are mapped, not allocated: they go back to the system when the transfer
// ends and do not make the garbage collector reckon with twice their size.
type Pool struct {
	// RunDelay returns how long the threads of this process have waited for a processor until now. It is the kernel's
	// figure unless somebody sets it: a simulation's time is not the kernel's.
	RunDelay func(now time.Time) time.Duration

	sizes Sizes
	// received and sent count the payload of all links, in bytes.
	received, sent atomic.Int64

	mu    sync.Mutex
	limit int // chunks
	used  int
}

// NewPool makes a pool of bytes of memory, of DefaultWindow where that is 0. It has at least the memory of one
// transfer, MinWindow.
func NewPool(bytes int, sizes Sizes) *Pool {
	if bytes <= 0 {
		bytes = DefaultWindow
	}
	sizes = sizes.orUsual()
	return &Pool{RunDelay: delayNow, sizes: sizes, limit: max(bytes/sizes.Chunk, sizes.minChunks())}
}

// MarkEvery returns the distance of marks in bytes.
func (p *Pool) MarkEvery() int64 { return p.sizes.Mark }

// Traffic returns how much payload the links of all transfers have brought and taken, in bytes. Runs of zeros that do not travel are not
// counted, and what travels twice is counted twice.
func (p *Pool) Traffic() (received, sent int64) { return p.received.Load(), p.sent.Load() }

// Ahead returns how many marks a node is sent ahead of what it said to be good.
func (p *Pool) Ahead() int64 { return p.sizes.Ahead }

// Fits returns how many bytes so many transfers must be able to hold at once, and how many there are.
func (p *Pool) Fits(transfers int) (need, have int) {
	return transfers * p.sizes.MinWindow(), p.limit * p.sizes.Chunk
}

// Used returns how many bytes are taken now.
func (p *Pool) Used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used * p.sizes.Chunk
}

// take maps a chunk, or returns nil when the budget is used up and the window
// has its guaranteed share.
func (p *Pool) take(have int) *chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used >= p.limit && have >= p.sizes.minChunks() {
		return nil
	}
	// All pages are made at once, which costs less than a fault for each while bytes are copied into it.
	mem, err := unix.Mmap(-1, 0, p.sizes.Chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		if have >= p.sizes.minChunks() {
			return nil
		}
		mem = make([]byte, p.sizes.Chunk) // let the runtime report that memory is out
		p.used++
		return &chunk{mem: mem}
	}
	p.used++
	return &chunk{mem: mem, mapped: true}
}

func (p *Pool) give(c *chunk) {
	p.mu.Lock()
	p.used--
	p.mu.Unlock()
	if c.mapped {
		unix.Munmap(c.mem)
	}
	c.mem = nil
}

// over reports whether the guaranteed share of another transfer took the pool beyond its limit. Windows
// shrink then.
func (p *Pool) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used > p.limit
}

// chunk is one piece of window memory; frames lie in it one after the other.
type chunk struct {
	mem    []byte
	fill   int
	live   int // frames that are not evicted yet
	mapped bool
}

// frame is one DATA or ZERO frame in the window. Its header is as it was received or made.
type frame struct {
	hdr  [wire.HeaderSize]byte
	data []byte // nil for a run of zeros, which takes no memory
	n    int    // how many bytes of the blob it stands for
	blob uint32
	off  int64

	chunk *chunk // where data is
	pins  int    // how many goroutines other than the producer work on it: links that write it, takers of the store
}

func (f *frame) end() int64 { return f.off + int64(f.n) }

// maxZeros bounds how many runs of zeros the window holds.
const maxZeros = 1024

// before orders positions in travelling order.
func before(blobA uint32, offA int64, blobB uint32, offB int64) bool {
	return blobA < blobB || blobA == blobB && offA < offB
}

// window holds the newest frames of a transfer, oldest first, in travelling
// order. It is guarded by its relay's mutex.
type window struct {
	pool   *Pool
	frames []*frame
	cur    *chunk // being filled
	chunks int
	zeros  int      // how many of the frames are runs of zeros
	spare  []*frame // frame structs to use again
}

// alloc returns n bytes to receive a frame into, and evicts the oldest frames for
// them where it must. It returns nil when the oldest frame has to stay, which keep
// says and a pin.
func (w *window) alloc(n int, keep func(*frame) bool) []byte {
	if w.cur != nil && len(w.cur.mem)-w.cur.fill >= n {
		return w.cur.mem[w.cur.fill : w.cur.fill+n]
	}
	if c := w.pool.take(w.chunks); c != nil {
		w.chunks++
		w.retire(w.cur)
		w.cur = c
		return c.mem[:n]
	}
	for len(w.frames) > 0 {
		c, ok := w.evict(keep)
		if !ok {
			return nil
		}
		if c == nil || c.live > 0 || c == w.cur {
			continue
		}
		if w.pool.over() && w.chunks > w.pool.sizes.minChunks() {
			w.drop(c)
			continue
		}
		w.retire(w.cur)
		c.fill = 0
		w.cur = c
		return c.mem[:n]
	}
	if w.cur != nil && w.cur.live == 0 {
		w.cur.fill = 0
		return w.cur.mem[:n]
	}
	return nil
}

// zeroRoom makes room for one more run of zeros, and returns false where the oldest frame has to stay.
func (w *window) zeroRoom(keep func(*frame) bool) bool {
	for w.zeros >= maxZeros {
		c, ok := w.evict(keep)
		if !ok {
			return false
		}
		if c != w.cur {
			w.retire(c)
		}
	}
	return true
}

// evict drops the oldest frame, and returns the chunk it was in, nil for a run of zeros. ok is false where the frame has to
// stay.
func (w *window) evict(keep func(*frame) bool) (c *chunk, ok bool) {
	f := w.frames[0]
	if f.pins > 0 || keep(f) {
		return nil, false
	}
	w.frames = w.frames[1:]
	if c = f.chunk; c != nil {
		c.live--
	} else {
		w.zeros--
	}
	*f = frame{}
	w.spare = append(w.spare, f)
	return c, true
}

// claim keeps data, which is a part of what alloc returned last, until a frame has it or unclaim is called. alloc then returns
// what is behind it.
func (w *window) claim(data []byte) *chunk {
	c := w.cur
	end := cap(c.mem) - cap(data) + len(data)
	// Small frames take as much as larger ones: their number is bounded, too.
	c.fill = min((end+frameUnit-1)&^(frameUnit-1), len(c.mem))
	c.live++
	return c
}

// unclaim gives up what claim returned c for.
func (w *window) unclaim(c *chunk) {
	if c.live--; c != w.cur {
		w.retire(c)
	}
}

// retire gives c back if it holds no frame. The caller does not fill it any more.
func (w *window) retire(c *chunk) {
	if c != nil && c.live == 0 {
		w.drop(c)
	}
}

func (w *window) drop(c *chunk) {
	w.chunks--
	w.pool.give(c)
}

// add appends a frame. Its payload is claimed, or a part of what alloc returned last.
func (w *window) add(add frame) *frame {
	var f *frame
	if n := len(w.spare); n > 0 {
		f, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		f = new(frame)
	}
	*f = add
	switch {
	case f.data == nil:
		w.zeros++
	case f.chunk == nil:
		f.chunk = w.claim(f.data)
	}
	w.frames = append(w.frames, f)
	return f
}

// find returns the frame that has the byte at a position, or nil.
func (w *window) find(blob uint32, off int64) *frame {
	lo, hi := 0, len(w.frames)
	for lo < hi { // the first frame that ends behind the position
		mid := (lo + hi) / 2
		if f := w.frames[mid]; before(blob, off, f.blob, f.end()) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo < len(w.frames) && w.frames[lo].blob == blob && w.frames[lo].off <= off {
		return w.frames[lo]
	}
	return nil
}

// first returns the offset of the oldest frame of blob behind off, or -1.
func (w *window) first(blob uint32, off int64) int64 {
	for _, f := range w.frames {
		if f.blob == blob && f.off > off {
			return f.off
		}
		if f.blob > blob {
			break
		}
	}
	return -1
}

// pinned reports whether some frame is still being written.
func (w *window) pinned() bool {
	return slices.ContainsFunc(w.frames, func(f *frame) bool { return f.pins > 0 })
}

// release gives all memory back. No frame may be used afterwards.
func (w *window) release() {
	seen := map[*chunk]bool{}
	for _, f := range w.frames {
		if f.chunk != nil {
			seen[f.chunk] = true
		}
	}
	if w.cur != nil {
		seen[w.cur] = true
	}
	for c := range seen {
		w.drop(c)
	}
	w.frames, w.cur, w.spare, w.zeros = nil, nil, nil, 0
}
