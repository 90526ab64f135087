package device

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// random returns n bytes, of which every third MiB is zeros.
func random(n int64) []byte {
	b := make([]byte, n)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(b)
	for at := int64(edge); at < n; at += 3 * edge {
		clear(b[at:min(at+edge, n)])
	}
	return b
}

// openLoop opens a loop device that the test has made, as a node does.
func openLoop(t *testing.T, d *loopdev.Device, flags int) *Block {
	t.Helper()
	f := d.Open(t, os.O_RDWR|flags)
	b, err := Open(f, d.Path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readDevice reads the first n bytes of a device and closes it.
func readDevice(t *testing.T, d Device, n int64) []byte {
	t.Helper()
	defer d.Close()
	b := aligned(int(up(n, d.Sector())))
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// place makes a device of a test, which can be opened more than once.
type place func(t *testing.T) (open func(flags int) Device)

func memory(size, sector int64) place {
	return func(*testing.T) func(int) Device {
		d := crashdisk.New(size, sector)
		return func(int) Device { return d }
	}
}

// loop makes a loop device over a file in a new directory.
func loop(dir func(testing.TB) string, size, sector int64) place {
	return func(t *testing.T) func(int) Device {
		d := loopdev.New(t, dir(t), size, loopdev.Options{Sector: int(sector)})
		return func(flags int) Device { return openLoop(t, d, flags) }
	}
}

func onDisk(t testing.TB) string { return t.TempDir() }

func tmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dolly-img-device-")
	if err != nil {
		loopdev.Cannot(t, "no tmpfs: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSink(t *testing.T) {
	const size = 12 << 20 // three leaves
	for name, tt := range map[string]struct {
		image int64
		place place
	}{
		"one leaf":               {3<<20 + 5, memory(size, 512)},
		"loop over tmpfs, 512":   {size, loop(tmpfs, size, 512)},
		"loop over a disk, 4096": {5<<20 + 1234, loop(onDisk, size, 4096)},
	} {
		image := random(tt.image)
		t.Run(name, func(t *testing.T) {
			ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
				open := tt.place(t)
				return ringtest.Sink{
					New:      func() ring.Sink { return New(open(unix.O_EXCL), Options{}) },
					Blobs:    []v1.Descriptor{{MediaType: leaf.MediaType, Size: tt.image, Digest: digest.FromBytes(image)}},
					Bytes:    [][]byte{image},
					InLeaves: true, Renews: true,
					Published: func(t *testing.T) bool { return bytes.Equal(readDevice(t, open(0), tt.image), image) },
				}
			})
		})
	}
}
