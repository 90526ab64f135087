package tree

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw"
)

// benchTree is a directory of many small files on most machines.
const benchTree = "/usr/share/doc"

func openBench(b *testing.B) *Source {
	b.Helper()
	s, err := Open(benchTree, Options{Special: true})
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { s.Close() })
	b.SetBytes(s.Size())
	return s
}

// BenchmarkOpen walks a directory.
func BenchmarkOpen(b *testing.B) {
	openBench(b)
	for b.Loop() {
		s, err := Open(benchTree, Options{Special: true})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkRead makes its stream.
func BenchmarkRead(b *testing.B) {
	s := openBench(b)
	buf := make([]byte, 1<<20)
	for b.Loop() {
		blobs, _ := s.Blobs(b.Context())
		r, err := s.Open(b.Context(), blobs[0], 0)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := io.ReadFull(r, buf); err != nil {
				break
			}
		}
		r.Close()
	}
}

// benchStream returns the stream of the directory.
func benchStream(b *testing.B) []byte {
	b.Helper()
	s := openBench(b)
	blobs, _ := s.Blobs(b.Context())
	r, err := s.Open(b.Context(), blobs[0], 0)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	stream, err := io.ReadAll(r)
	if err != nil {
		b.Fatal(err)
	}
	return stream
}

// BenchmarkExtract unpacks it. TMPDIR says where.
func BenchmarkExtract(b *testing.B) {
	stream := benchStream(b)
	dir := b.TempDir()
	for b.Loop() {
		if err := os.Mkdir(dir+"/out", 0o700); err != nil {
			b.Fatal(err)
		}
		top, err := unix.Open(dir+"/out", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			b.Fatal(err)
		}
		x := newExtractor(top, "out", true, nil)
		for rest := stream; len(rest) > 0 && err == nil; rest = rest[min(len(rest), 1<<20):] {
			err = x.write(rest[:min(len(rest), 1<<20)])
		}
		if err == nil {
			err = x.finish()
		}
		x.close()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(dir + "/out"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkPlace puts it in place, over the one of the time before. TMPDIR says where.
func BenchmarkPlace(b *testing.B) {
	stream := benchStream(b)
	dir := b.TempDir()
	for b.Loop() {
		target, err := NewTarget(TargetOptions{Place: raw.TargetOptions{Dir: dir, Name: "out", Overwrite: true}, Special: true, Records: records{}})
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(send(b.Context(), target, stream), target.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
