// Package ringtest has the test suites that every Source and Sink of the ring passes. A package runs one from a test of
// a few lines:
//
//	ringtest.TestSource(t, func(t *testing.T) ring.Source { … }, bytes)
//	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink { … })
package ringtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
)

// TestSource checks a Source whose blobs have the bytes of want, in travelling order. Each call of open makes a new one.
func TestSource(t *testing.T, open func(t *testing.T) ring.Source, want ...[]byte) {
	s := &sourceTest{open, want}
	t.Run("Blobs", s.testBlobs)
	t.Run("Open", s.testOpen)
	t.Run("Concurrent", s.testConcurrent)
	t.Run("Cancelled", s.testCancelled)
	t.Run("Unchanged", s.testUnchanged)
}

// sourceTest is a source under test.
type sourceTest struct {
	open func(t *testing.T) ring.Source
	want [][]byte
}

func (s *sourceTest) testBlobs(t *testing.T) {
	src := s.open(t)
	blobs := blobsOf(t, src, s.want)
	for i, d := range blobs {
		if d.MediaType == "" {
			t.Errorf("blob %d has no media type", i)
		}
		if d.Size != -1 && d.Size != int64(len(s.want[i])) {
			t.Errorf("blob %d has size %d, want %d", i, d.Size, len(s.want[i]))
		}
		if d.Digest != "" && d.Digest != d.Digest.Algorithm().FromBytes(s.want[i]) {
			t.Errorf("blob %d has digest %s of other bytes", i, d.Digest)
		}
	}
	if again := blobsOf(t, src, s.want); !reflect.DeepEqual(blobs, again) {
		t.Errorf("second list is %v, first was %v", again, blobs)
	}
}

func (s *sourceTest) testOpen(t *testing.T) {
	src := s.open(t)
	for i, d := range blobsOf(t, src, s.want) {
		n := int64(len(s.want[i]))
		for _, off := range []int64{0, n / 2, n, 1} { // 0 comes first, because a stream has nothing else yet
			if off > n {
				continue
			}
			if got := read(t, src, d, off, s.want[i][off:]); !got.whole() {
				t.Errorf("blob %d from %d: %s", i, off, got)
			}
		}
		for _, off := range []int64{-1, n + 1} {
			if r, err := src.Open(t.Context(), d, off); err == nil {
				_, err = io.ReadAll(r)
				r.Close()
				if err == nil {
					t.Errorf("blob %d of %d bytes opened at %d", i, n, off)
				}
			}
		}
	}
}

func (s *sourceTest) testConcurrent(t *testing.T) {
	src := s.open(t)
	var wg sync.WaitGroup
	for i, d := range blobsOf(t, src, s.want) {
		for range 4 {
			wg.Go(func() {
				if got := read(t, src, d, 0, s.want[i]); !got.whole() {
					t.Errorf("blob %d: %s", i, got)
				}
			})
		}
	}
	wg.Wait()
}

func (s *sourceTest) testCancelled(t *testing.T) {
	src := s.open(t)
	gone, cancel := context.WithCancel(t.Context())
	blobs := blobsOf(t, src, s.want)
	r, err := src.Open(gone, blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("a reader whose context is done read all %d bytes", n)
	}
	if r, err := src.Open(gone, blobs[0], 0); err == nil {
		r.Close()
		t.Error("opened with a context that is done")
	}
}

func (s *sourceTest) testUnchanged(t *testing.T) {
	src := s.open(t)
	for i, d := range blobsOf(t, src, s.want) {
		read(t, src, d, 0, s.want[i])
	}
	if u, ok := src.(ring.Unchanged); ok {
		if err := u.Unchanged(t.Context()); err != nil {
			t.Errorf("after reading it: %v", err)
		}
	}
}

func blobsOf(t *testing.T, src ring.Source, want [][]byte) []v1.Descriptor {
	t.Helper()
	if c, ok := src.(io.Closer); ok {
		t.Cleanup(func() { c.Close() })
	}
	blobs, err := src.Blobs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(blobs) != len(want) || len(blobs) == 0 {
		t.Fatalf("%d blobs, want %d and at least one", len(blobs), len(want))
	}
	return blobs
}

// found is what a reader had beside what was wanted of it, in bytes: how many there were, and how many of them are the same
// up to the first that is not.
type found struct{ all, same, want int64 }

func (f found) whole() bool { return f.same == f.all && f.all == f.want }

func (f found) String() string {
	if f.same < min(f.all, f.want) {
		return fmt.Sprintf("%d bytes, want %d, different from byte %d on", f.all, f.want, f.same)
	}
	return fmt.Sprintf("%d bytes, want %d", f.all, f.want)
}

// read reads to the end. It may be called in any goroutine.
func read(t *testing.T, o ring.Opener, d v1.Descriptor, off int64, want []byte) found {
	t.Helper()
	r, err := o.Open(context.Background(), d, off)
	if err != nil {
		t.Errorf("open %s at %d: %v", d.Digest, off, err)
		return found{want: int64(len(want))}
	}
	f, err := compared(r, want)
	if err != nil {
		t.Errorf("read %s from %d: %v", d.Digest, off, err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close %s: %v", d.Digest, err)
	}
	return f
}

// compared reads to the end, and keeps nothing: with the race detector memory for everything costs more than all else.
func compared(r io.Reader, want []byte) (found, error) {
	f := found{want: int64(len(want))}
	for buf := make([]byte, 65537); ; {
		n, err := r.Read(buf)
		if f.same == f.all {
			rest := want[min(f.all, f.want):]
			most := min(n, len(rest))
			if got := buf[:most]; bytes.Equal(got, rest[:most]) {
				f.same += int64(most)
			} else {
				for k := 0; got[k] == rest[k]; k++ {
					f.same++
				}
			}
		}
		f.all += int64(n)
		if err == io.EOF {
			return f, nil
		} else if err != nil {
			return f, err
		}
	}
}
