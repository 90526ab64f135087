package device

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// BenchmarkBesideDD writes a file to a loop device over a tmpfs, in turn with dd and with a Target, which begins at Offer and
// ends when Publish has read back what it wrote. Both read the same file from memory. "ratio" is the rate of the Target to
// that of dd.
func BenchmarkBesideDD(b *testing.B) {
	if _, err := exec.LookPath("dd"); err != nil {
		b.Skip(err)
	}
	const size = 1 << 30
	dir := tmpfs(b)
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, random(size), 0o600); err != nil {
		b.Fatal(err)
	}
	d := loopdev.New(b, dir, size+8<<20, loopdev.Options{})
	dd := func() time.Duration {
		d.Check(b)
		begun := time.Now()
		if out, err := exec.Command("dd", "if="+image, "of="+d.Path, "oflag=direct", "bs=4M", "conv=fsync,notrunc").CombinedOutput(); err != nil {
			b.Fatalf("dd: %v\n%s", err, out)
		}
		return time.Since(begun)
	}
	sink := func() time.Duration {
		d.Check(b)
		f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
		if err != nil {
			b.Fatal(err)
		}
		block, err := Open(f, d.Path)
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		if err := copyTo(New(block, Options{}), image, size); err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	dd() // so that the file below has its blocks
	var theirs, ours time.Duration
	for b.Loop() {
		theirs += dd()
		ours += sink()
	}
	rate := func(t time.Duration) float64 { return float64(size) * float64(b.N) / 1e6 / t.Seconds() }
	b.ReportMetric(rate(theirs), "dd-MB/s")
	b.ReportMetric(rate(ours), "sink-MB/s")
	b.ReportMetric(rate(ours)/rate(theirs), "ratio")
}

// copyTo writes a file to a target, in pieces as frames are.
func copyTo(target *Target, image string, size int64) (err error) {
	defer func() { err = errors.Join(err, target.Close()) }()
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx := context.Background()
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: size}
	if _, _, err := target.Offer(ctx, []v1.Descriptor{blob}); err != nil {
		return err
	}
	w, err := target.Begin(ctx, blob, 0)
	if err != nil {
		return err
	}
	frame := make([]byte, 256<<10)
	for off := int64(0); off < size; off += int64(len(frame)) {
		if _, err := io.ReadFull(f, frame); err != nil {
			return err
		}
		if _, err := w.(ring.Placer).WriteAt(frame, off); err != nil {
			return err
		}
		w.(ring.Cautious).Good(off)
	}
	if err := w.Commit(ctx, blob); err != nil {
		return err
	}
	if _, err := target.Prepare(ctx, nil); err != nil {
		return err
	}
	return target.Publish(ctx)
}
