package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// devicesNode is a node that permits these devices, by their names.
func devicesNode(loops string, devices map[string]string) *acceptor {
	roots := disk.Host()
	roots.Loops = loops
	a := &acceptor{policy: &identity.Policy{}, disks: roots, users: &deviceUsers{}, hint: kindTold, log: slog.New(slog.DiscardHandler)}
	for name, path := range devices {
		a.policy.Devices = append(a.policy.Devices, identity.Device{Name: name, Path: path})
	}
	return a
}

// offer asks a node for a device, as the ring does.
func offer(t *testing.T, a *acceptor, name string, size int64, what meta.Device) (ring.Sink, error) {
	t.Helper()
	m := meta.Transfer{Kind: meta.KindRaw, Output: name, Device: &what}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	blobs := []v1.Descriptor{{MediaType: leaf.MediaType, Size: size}}
	sink, err := a.accept(t.Context(), ring.Request{Transfer: "0", Sender: "login1", Meta: b, Blobs: blobs})
	if err != nil {
		return nil, err
	}
	if _, _, err := sink.Offer(t.Context(), blobs); err != nil {
		return nil, errors.Join(err, sink.(io.Closer).Close())
	}
	return sink, nil
}

// A device that a transfer of this node has is refused with the name of that, and free once that has ended.
func TestDeviceOfTransfer(t *testing.T) {
	dir := t.TempDir()
	d := loopdev.New(t, dir, 16<<20, loopdev.Options{})
	a := devicesNode(dir, map[string]string{"a": d.Path})
	first, err := offer(t, a, "device:a", 8<<20, meta.Device{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = offer(t, a, "device:a", 8<<20, meta.Device{})
	want := "device:a: " + d.Path + " is busy: transfer 0 of login1 overwrites it (device-transfer " + d.Path + ")"
	if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, ring.ErrBusy) {
		t.Errorf("%v, want %s", err, want)
	}
	if err := first.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	again, err := offer(t, a, "device:a", 8<<20, meta.Device{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}

// What a node refuses before anything is written, and that it gives the device back.
func TestRefuseDevice(t *testing.T) {
	dir := t.TempDir()
	const size = 16 << 20
	d := loopdev.New(t, dir, size, loopdev.Options{})
	large := loopdev.New(t, dir, size, loopdev.Options{Sector: 4096})
	readonly := loopdev.Over(t, loopdev.New(t, dir, size, loopdev.Options{}).File, loopdev.Options{ReadOnly: true})
	whole := loopdev.New(t, dir, size, loopdev.Options{})
	whole.AddPartition(t, 1, 1<<20, 8<<20)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := sum(t, d.File)
	a := devicesNode(dir, map[string]string{
		"d": d.Path, "large": large.Path, "readonly": readonly.Path, "part": whole.Partition(1), "whole": whole.Path, "none": "/dev/none-of-that-name",
	})
	small := []meta.Sectors{{What: "a GPT for sectors of 512 bytes", Least: 512, Most: 512}}
	for _, tt := range []struct {
		name, device string
		size         int64
		what         meta.Device
		want         string       // "" is accepted
		why          ring.Refusal // "" is policy
	}{
		{"fits", "device:d", size, meta.Device{Holds: meta.HoldsDisk, Sectors: small}, "", ""},
		{"by its path", d.Path, size, meta.Device{}, "", ""},
		{"not in the policy", "device:other", size, meta.Device{}, "device-denied", ""},
		{"a path that is not in the policy", "/dev/loop-control", size, meta.Device{}, "device-denied", ""},
		{"not there", "device:none", size, meta.Device{}, "device-path", ring.RefusesNotFound},
		{"too small", "device:d", size + 1, meta.Device{}, "is too small: 16777216 bytes, the source has 16777217 (device-small)", ring.RefusesTooSmall},
		{"much too small", "device:d", 100663296, meta.Device{}, "is too small: 16.8 MB, the source has 101 MB", ring.RefusesTooSmall},
		{"read-only", "device:readonly", size, meta.Device{}, "device-readonly", ring.RefusesReadOnly},
		{"other sectors", "device:large", size, meta.Device{Sectors: small}, "device-sectors", ring.RefusesSectorSize},
		{"a disk for a partition", "device:part", 1 << 20, meta.Device{Holds: meta.HoldsDisk}, "device-kind", ring.RefusesKind},
		{"a disk for a partition, all the same", "device:part", 1 << 20, meta.Device{Holds: meta.HoldsDisk, AnyKind: true}, "", ""},
		{"a file system for a partition", "device:part", 1 << 20, meta.Device{Holds: meta.HoldsFileSystem}, "", ""},
		{"a file system for a disk", "device:d", 1 << 20, meta.Device{Holds: meta.HoldsFileSystem}, "device-kind", ring.RefusesKind},
		{"a file system for a disk, all the same", "device:d", 1 << 20, meta.Device{Holds: meta.HoldsFileSystem, AnyKind: true}, "", ""},
	} {
		sink, err := offer(t, a, tt.device, tt.size, tt.what)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		refused := new(ring.RefusedError)
		if errors.As(err, &refused); refused.Why != tt.why {
			t.Errorf("%s: refused as %q, want %q", tt.name, refused.Why, tt.why)
		}
		if sink != nil {
			if err := sink.(io.Closer).Close(); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		// It was given back.
		for _, path := range []string{d.Path, large.Path, whole.Path} {
			if err := exclusively(path, func() {}); err != nil {
				t.Errorf("%s: %s: %v", tt.name, path, err)
			}
		}
	}
	if sum(t, d.File) != before {
		t.Error("a device was written before its transfer began")
	}
}

// Whoever uses a device keeps it.
func TestRefuseBusyDevice(t *testing.T) {
	dir := t.TempDir()
	const size = 16 << 20
	d := loopdev.New(t, dir, size, loopdev.Options{})
	whole := loopdev.New(t, dir, size, loopdev.Options{})
	whole.AddPartition(t, 1, 1<<20, 8<<20)
	a := devicesNode(dir, map[string]string{"d": d.Path, "whole": whole.Path})
	busy := func(name, device, want string) {
		t.Helper()
		if _, err := offer(t, a, device, 1<<20, meta.Device{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := exclusively(d.Path, func() { busy("open", "device:d", "device-busy") }); err != nil {
		t.Error(err)
	}
	sink, err := offer(t, a, "device:d", 1<<20, meta.Device{})
	if err != nil {
		t.Fatal(err)
	}
	busy("another transfer", "device:d", "device-transfer")
	if err := sink.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	f := d.Open(t, os.O_RDWR)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if _, err := offer(t, a, "device:d", 1<<20, meta.Device{}); !errors.Is(err, ring.ErrBusy) {
		t.Errorf("locked: %v", err)
	}
	f.Close()
	// A mount that this process does not see, as one of a container, is found out by O_EXCL.
	loopdev.Run(t, "mkfs.ext4", "-q", whole.Partition(1))
	if err := whole.Mount(t, whole.Partition(1), "ext4", 0, func(string) { busy("mounted", "device:whole", "device-busy") }); err != nil {
		t.Error(err)
	}
	// A loop device that is not the test's own, as far as the node is told.
	if _, err := offer(t, devicesNode("", map[string]string{"d": d.Path}), "device:d", size, meta.Device{}); err == nil || !strings.Contains(err.Error(), "is a loop device") {
		t.Errorf("a loop device: %v", err)
	}
}

func exclusively(path string, do func()) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	do()
	return nil
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// What a node says that it would overwrite, and that it notices when that has changed.
func TestTarget(t *testing.T) {
	dir := t.TempDir()
	const size = 16 << 20
	d := loopdev.New(t, dir, size, loopdev.Options{Sector: 4096})
	loopdev.Run(t, "mkfs.ext4", "-q", "-L", "precious", d.Path)
	sink, err := offer(t, devicesNode(dir, map[string]string{"d": d.Path}), "device:d", size, meta.Device{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.(io.Closer).Close()
	said, err := sink.(*deviceSink).Target(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"path":"` + d.Path + `"`, `"size":16777216`, `"sector":4096`, `"holds":[{"type":"ext4","label":"precious"}]`, `"kind":"loop"`} {
		if !bytes.Contains(said, []byte(want)) {
			t.Errorf("%s lacks %s", said, want)
		}
	}
	f := d.Open(t, os.O_RDWR)
	if _, err := f.WriteAt(make([]byte, 8192), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if now, err := sink.(*deviceSink).Target(t.Context()); err != nil || bytes.Equal(now, said) {
		t.Errorf("after a change: %s, %v", now, err)
	}
}

// A GPT that shall be left alone is, and a small disk that travels without leaves is cloned, too.
func TestCloneKeepsTable(t *testing.T) {
	dir := t.TempDir()
	const size = 24 << 20
	source := loopdev.New(t, dir, size, loopdev.Options{})
	loopdev.Run(t, "sgdisk", "-n", "1:1M:0", source.Path)
	target := loopdev.New(t, dir, 2*size, loopdev.Options{})
	cfg := ringOfNodes(t, dir, []map[string]*loopdev.Device{{"d": target}})
	image, err := os.ReadFile(source.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{true, false} {
		if r := clone(t, cfg, source.File, "d", meta.Device{KeepTable: keep}); r == nil || r.Count() != 1 {
			t.Fatalf("%+v", r)
		}
		got, err := os.ReadFile(target.File)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got[:size], image) != keep || bytes.Equal(got[size:], make([]byte, size)) != keep {
			t.Errorf("keep %v: that is not so", keep)
		}
		out := loopdev.Run(t, "sgdisk", "-v", target.Path)
		if strings.Contains(out, "No problems found") == keep {
			t.Errorf("keep %v: sgdisk -v says:\n%s", keep, out)
		}
	}
}
