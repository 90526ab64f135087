package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// storage is what a Store of a test writes to and reads again from.
type storage struct {
	mu    sync.Mutex
	blobs [][]byte
}

type storageWriter struct {
	s    *storage
	blob int
	pace time.Duration
}

func (w storageWriter) Write(b []byte) (int, error) {
	time.Sleep(w.pace)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.blobs[w.blob] = append(w.s.blobs[w.blob], b...)
	return len(b), nil
}

func (s *storage) read(blob int, off int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return io.NopCloser(bytes.NewReader(bytes.Clone(s.blobs[blob][off:]))), nil
}

// Open makes the relay believe that it can be read again.
func (s *storage) Open(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
	return nil, errors.New("no link asks")
}

// sumAt is what a store tells of a blob at off.
func sumAt(d v1.Descriptor, content []byte, off, mark int64, end bool) []byte {
	if !leaf.In(d) {
		sum := sha256.Sum256(content[:off])
		return sum[:]
	}
	if !end {
		sum := sha256.Sum256(content[off-mark : off])
		return sum[:]
	}
	root := sha256.New()
	for l := range slices.Chunk(content, int(mark)) {
		sum := sha256.Sum256(l)
		root.Write(sum[:])
	}
	return root.Sum(nil)
}

// stores makes a relay of the smallest window for blobs of a media type, a storage that has the first bytes of each,
// and a Store between them that checks what it tells.
func stores(t *testing.T, media string, blobs [][]byte, at []int64) (*Relay, *storage, *Store) {
	t.Helper()
	have := &storage{blobs: make([][]byte, len(blobs))}
	var descs []v1.Descriptor
	s := &Store{Hashers: 2, Saved: new(SavedSums), At: func(b int) int64 { return at[b] }, Held: have.read}
	for i, b := range blobs {
		descs = append(descs, v1.Descriptor{MediaType: media, Size: int64(len(b))})
		have.blobs[i] = append(make([]byte, 0, len(b)), b[:at[i]]...)
		s.Blobs = append(s.Blobs, i)
	}
	r := New(NewPool(Sizes{}.MinWindow(), Sizes{}), descs)
	r.Arrive(have, func(b int) (int64, bool) { return at[b], true })
	s.Relay = r
	s.Begin = func(_ context.Context, b int, _ int64) (io.Writer, error) {
		return storageWriter{s: have, blob: b}, nil
	}
	told := 0 // blobs, to their ends
	s.Sum = func(b int, off int64, sum []byte, end bool) error {
		have.mu.Lock()
		defer have.mu.Unlock()
		switch {
		case b != told:
			t.Errorf("told of blob %d after %d of them", b, told)
		case int64(len(have.blobs[b])) < off:
			t.Errorf("told of blob %d at %d, %d bytes are written", b, off, len(have.blobs[b]))
		case !bytes.Equal(sum, sumAt(descs[b], blobs[b], off, wire.MarkEvery, end)):
			t.Errorf("blob %d at %d: wrong sum", b, off)
		}
		if end {
			told++
		}
		return nil
	}
	t.Cleanup(func() {
		if !t.Failed() && told != len(blobs) && r.Err() == nil {
			t.Errorf("told of %d blobs", told)
		}
		r.Close(ErrClosed)
		r.Release()
		if len(r.takers) > 0 || r.win.pool.used > 0 {
			t.Errorf("%d takers and %d chunks are left", len(r.takers), r.win.pool.used)
		}
	})
	return r, have, s
}

// produce puts what is to come of blobs into a relay.
func produce(r *Relay, blobs [][]byte, at []int64) error {
	for b, data := range blobs {
		for off := at[b]; off < int64(len(data)); {
			n := min(int64(len(data))-off, 256<<10)
			buf, err := r.reserve(int(n))
			if err != nil {
				return err
			}
			copy(buf, data[off:off+n])
			var hdr [wire.HeaderSize]byte
			wire.PutData(&hdr, uint32(b), off, buf)
			if err := r.put(&hdr, buf, uint32(b), off); err != nil {
				return err
			}
			off += n
		}
	}
	return nil
}

// Whichever of writing and hashing is behind, what is told is in order, right and written.
func TestStoreTellsInOrderWhatIsWritten(t *testing.T) {
	const m = wire.MaxPayload
	blobs := [][]byte{random(1, 5*m+5), random(2, 3), {}, random(3, 12*m), random(4, 8*m), random(5, 17)}
	at := []int64{0, 0, 0, 8 * m, 4 * m, 0}
	for n := range 8 {
		hashers, pace, media := n%4, time.Duration(n%2)*time.Millisecond, []string{"", leaf.MediaType}[n/4]
		t.Run(fmt.Sprintf("%d_hashers,_writes_of_%v,_%s", hashers, pace, media), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, have, s := stores(t, media, blobs, at)
				s.Hashers = hashers
				s.Begin = func(_ context.Context, b int, off int64) (io.Writer, error) {
					if off != at[b] {
						t.Errorf("blob %d begins at %d", b, off)
					}
					return storageWriter{have, b, pace}, nil
				}
				done := make(chan error)
				go func() { done <- s.Run(t.Context()) }()
				if err := errors.Join(produce(r, blobs, at), <-done); err != nil {
					t.Fatal(err)
				}
				if !slices.EqualFunc(have.blobs, blobs, bytes.Equal) {
					t.Error("other bytes are written")
				}
			})
		})
	}
}

// The next blob is hashed while the one before still is. The window bounds how far, and nothing that
// arrived is read again.
func TestStoreHashesNextBlobBeside(t *testing.T) {
	const m = wire.MaxPayload
	synctest.Test(t, func(t *testing.T) {
		blobs := [][]byte{random(1, 6*m), random(2, 24*m)}
		at := []int64{4 * m, 0}
		r, have, s := stores(t, "", blobs, at)
		slow := make(chan struct{})
		s.Held = func(b int, off int64) (io.ReadCloser, error) {
			if b != 0 || off != 0 {
				t.Errorf("reads blob %d again from %d", b, off)
			}
			<-slow
			return have.read(b, off)
		}
		done := make(chan error, 2)
		go func() { done <- s.Run(t.Context()) }()
		go func() { done <- produce(r, blobs, at) }()
		synctest.Wait()
		r.mu.Lock()
		var hashed []int64
		for _, k := range r.takers {
			if k.blob == 1 {
				hashed = append(hashed, k.off)
			}
		}
		if u := r.win.pool.Used(); u > (Sizes{}).MinWindow() {
			t.Errorf("the window takes %d bytes", u)
		}
		r.mu.Unlock()
		// The window holds the end of the first blob and as much of the second as is left of it.
		if !slices.Equal(hashed, []int64{4 * m, 4 * m}) {
			t.Errorf("the second blob is hashed and written up to %v while the first is not hashed", hashed)
		}
		close(slow)
		if err := errors.Join(<-done, <-done); err != nil {
			t.Fatal(err)
		}
	})
}

// What arrives is hashed while the blob is still being begun, and no sum of it is told before it is written.
func TestStoreHashesWhileItBegins(t *testing.T) {
	const m = wire.MaxPayload
	synctest.Test(t, func(t *testing.T) {
		blobs := [][]byte{{}, random(1, 4*m), random(2, 5*m)}
		at := []int64{0, 0, 4 * m}
		r, have, s := stores(t, "", blobs, at)
		begin := make(chan struct{})
		var begun [3]atomic.Bool
		s.Held = func(b int, off int64) (io.ReadCloser, error) {
			if !begun[b].Load() {
				t.Errorf("blob %d is read again before it is begun", b)
			}
			return have.read(b, off)
		}
		s.Begin = func(_ context.Context, b int, _ int64) (io.Writer, error) {
			<-begin
			begun[b].Store(true)
			s.judge.mu.Lock()
			defer s.judge.mu.Unlock()
			if b == 0 && len(s.judge.blobs) != 3 {
				t.Error("told of a blob that is not begun")
			}
			return storageWriter{s: have, blob: b}, nil
		}
		done := make(chan error, 2)
		go func() { done <- s.Run(t.Context()) }()
		go func() { done <- produce(r, blobs, at) }()
		synctest.Wait()
		begin <- struct{}{}
		synctest.Wait()
		if n := r.meter.hashed.Load(); n != 4*m {
			t.Errorf("%d bytes are hashed before the blob is begun", n)
		}
		begin <- struct{}{}
		synctest.Wait()
		begin <- struct{}{}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Fatal(err)
		}
	})
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// A failure of either half ends the other, wherever it waits.
func TestStoreFailsAsOne(t *testing.T) {
	const m = wire.MaxPayload
	full := errors.New("full")
	blobs := [][]byte{random(1, 8*m), random(2, 8*m), random(3, 8*m)}
	for name, set := range map[string]func(s *Store, have *storage) (at []int64){
		"write beside a hasher that waits": func(s *Store, have *storage) []int64 {
			s.Begin = func(context.Context, int, int64) (io.Writer, error) { return failingWriter{full}, nil }
			return []int64{0, 0, 0}
		},
		"hasher beside a writer that waits for frames": func(s *Store, have *storage) []int64 {
			s.Held = func(int, int64) (io.ReadCloser, error) { return nil, full }
			return []int64{4 * m, 0, 0}
		},
		"hasher beside a writer that waits to begin": func(s *Store, have *storage) []int64 {
			begin := s.Begin
			s.Begin = func(ctx context.Context, b int, off int64) (io.Writer, error) {
				if b == 2 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return begin(ctx, b, off)
			}
			s.Held = func(int, int64) (io.ReadCloser, error) {
				time.Sleep(time.Second)
				return nil, full
			}
			return []int64{4 * m, 0, 0}
		},
		"hasher beside a writer that waits for a hasher": func(s *Store, have *storage) []int64 {
			s.Hashers = 1
			s.Held = func(int, int64) (io.ReadCloser, error) {
				time.Sleep(time.Second)
				return nil, full
			}
			return []int64{4 * m, 0, 0}
		},
		"sum": func(s *Store, have *storage) []int64 {
			s.Sum = func(int, int64, []byte, bool) error { return full }
			return []int64{0, 0, 0}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := []int64{0, 0, 0}
				r, have, s := stores(t, "", blobs, at)
				copy(at, set(s, have)) // stores keeps at
				for b := range at {
					have.blobs[b] = bytes.Clone(blobs[b][:at[b]])
				}
				r.Arrive(have, func(b int) (int64, bool) { return at[b], true })
				done := make(chan error)
				go func() { done <- s.Run(t.Context()) }()
				go produce(r, blobs[:2], at)
				if err := <-done; !errors.Is(err, full) {
					t.Errorf("%v", err)
				}
				r.Close(full)
				synctest.Wait()
			})
		})
	}
}
