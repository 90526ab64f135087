package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// cloneReadBack writes the image to a device, and reads back and compares the leaves as the ring does.
func cloneReadBack(target *Target, image []byte) error {
	ctx := context.Background()
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(image))}
	if _, _, err := target.Offer(ctx, []v1.Descriptor{blob}); err != nil {
		return err
	}
	w, err := target.Begin(ctx, blob, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(feed(w.(ring.Placer), image, 0, blob.Size), w.Commit(ctx, blob)); err != nil {
		return err
	}
	if _, err := target.Prepare(ctx, nil); err != nil {
		return err
	}
	r, err := target.Open(ctx, blob, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	got := make([]byte, len(image))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	} else if !bytes.Equal(got, image) {
		return errReadBack
	}
	return target.Publish(ctx)
}

var errReadBack = errors.New("read back: other bytes")

func TestLiar(t *testing.T) {
	const size = 12 << 20
	image := random(9<<20 + 1234)
	at := func(where int64, then func(b []byte) ([]byte, syscall.Errno)) func([]byte, int64) ([]byte, syscall.Errno) {
		return func(b []byte, off int64) ([]byte, syscall.Errno) {
			if off <= where && where < off+int64(len(b)) && len(bytes.Trim(b, "\x00")) > 0 {
				return then(b)
			}
			return b, 0
		}
	}
	drop := func([]byte) ([]byte, syscall.Errno) { return nil, 0 }
	damage := func(b []byte) ([]byte, syscall.Errno) { b = bytes.Clone(b); b[len(b)/2] ^= 4; return b, 0 }
	broken := func([]byte) ([]byte, syscall.Errno) { return nil, syscall.EIO }
	unplugged := false
	for name, tt := range map[string]struct {
		write   func([]byte, int64) ([]byte, syscall.Errno)
		outcome Outcome
	}{
		"honest":                  {at(-1, drop), Complete},
		"drops a write":           {at(5<<20, drop), Overwritten},
		"damages a write":         {at(6<<20, damage), Overwritten},
		"drops the last leaf":     {at(9<<20, drop), Overwritten},
		"damages the first leaf":  {at(700<<10, damage), Overwritten},
		"drops the first sector":  {at(0, drop), Unknown},
		"fails in the middle":     {at(5<<20, broken), Overwritten},
		"fails at the first mark": {at(0, broken), Overwritten},
		"is unplugged in the middle": {func(b []byte, off int64) ([]byte, syscall.Errno) {
			if unplugged = unplugged || off >= 5<<20 && off < 8<<20; unplugged {
				return nil, syscall.EIO
			}
			return b, 0
		}, Overwritten},
	} {
		t.Run(name, func(t *testing.T) {
			d := loopdev.NewLiar(t, t.TempDir(), size, tt.write)
			block := openLoop(t, d, unix.O_EXCL)
			target := New(block, Options{})
			err := cloneReadBack(target, image)
			if (err == nil) != (tt.outcome == Complete) || target.Outcome() != tt.outcome {
				t.Errorf("%v, and it says %s", err, target.Outcome())
			}
			if tt.outcome == Complete && !block.WritesZeros() {
				t.Error("a disk that cannot make holes does not say that it wrote zeros")
			}
			if err := target.Close(); err != nil && tt.outcome == Complete {
				t.Error(err)
			}
			if got := readDevice(t, openLoop(t, d, 0), int64(len(image))); bytes.Equal(got, image) != (tt.outcome == Complete) {
				t.Errorf("the image is there: %v", !(tt.outcome == Complete))
			}
		})
	}
}

// Zeros are holes in the file below, where there were bytes before, too.
func TestHoles(t *testing.T) {
	const size, length = 24 << 20, 20 << 20
	for sector, dir := range map[int]func(testing.TB) string{512: tmpfs, 4096: onDisk} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			d := loopdev.New(t, dir(t), size, loopdev.Options{Sector: sector})
			blocks := func() int64 {
				f, err := os.Open(d.File)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var st unix.Stat_t
				if err := errors.Join(f.Sync(), unix.Fstat(int(f.Fd()), &st)); err != nil {
					t.Fatal(err)
				}
				return st.Blocks * 512
			}
			full := openLoop(t, d, 0)
			for at := int64(0); at < full.Size(); at += chunkSize {
				b := aligned(chunkSize)
				b[5] = 1
				if _, err := full.WriteAt(b, at); err != nil {
					t.Fatal(err)
				}
			}
			full.Close()
			before := blocks()
			image := make([]byte, length)
			copy(image[10<<20:], random(edge))
			block := openLoop(t, d, unix.O_EXCL)
			target := New(block, Options{})
			if err := errors.Join(cloneReadBack(target, image), target.Close()); err != nil {
				t.Fatal(err)
			}
			// What stays are the first and the last leaf, the MiB of bytes, and what lies behind the image.
			if after := blocks(); after > size-length+10<<20 || before < size {
				t.Errorf("%d bytes are allocated, before %d", after, before)
			}
			if block.WritesZeros() {
				t.Error("it wrote zeros")
			}
			if got := readDevice(t, openLoop(t, d, 0), int64(len(image))); !bytes.Equal(got, image) {
				t.Error("not the image")
			}
		})
	}
}
