package cache

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// modes are what is below dir.
func modes(t *testing.T, dir string) map[string]fs.FileInfo {
	t.Helper()
	found := map[string]fs.FileInfo{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		found[name], err = d.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What is there and what comes is readable by those who may, and nobody else comes in; no
// blob is hashed again for it.
func TestAccess(t *testing.T) {
	c := mustOpen(t)
	before, after := newImage(mediaTypeSIFLayer, "before"), newImage(mediaTypeSIFLayer, "after")
	mustPush(t, c, "example.org/before:1", before)
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 4242
	}
	blob := func(d digest.Digest) string { name, _ := blobName(d); return name }
	touched := filepath.Join(c.Dir(), blob(before.blobs[1].Digest))
	if err := os.Chtimes(touched, time.Unix(1, 0), time.Unix(1, 0)); err != nil { // no longer trusted
		t.Fatal(err)
	}
	for _, tt := range []struct{ mode, file, blob, dir fs.FileMode }{
		{0o640, 0o640, 0o440, 0o750}, {0o600, 0o600, 0o400, 0o700}, {0o644, 0o644, 0o444, 0o755},
	} {
		if err := c.SetAccess(Access{Mode: tt.mode, GID: gid}); err != nil {
			t.Fatal(err)
		}
		mustPush(t, c, "example.org/after:1", after)
		found := modes(t, c.Dir())
		for name, want := range map[string]fs.FileMode{
			".": tt.dir, "blobs": tt.dir, "blobs/sha256": tt.dir, "index.json": tt.file, "oci-layout": tt.file,
			blob(before.root().Digest): tt.blob, blob(after.root().Digest): tt.blob, blob(after.blobs[0].Digest): tt.blob,
		} {
			info := found[name]
			if info == nil || info.Mode().Perm() != want || int(info.Sys().(*syscall.Stat_t).Gid) != gid {
				t.Errorf("mode %o: %s is %v, want %o of group %d", tt.mode, name, info, want, gid)
			}
		}
		if info := found["lock"]; info == nil || info.Mode().Perm() != 0o600 {
			t.Errorf("others could hold the lock: %v", info)
		}
		for i, d := range before.blobs {
			if _, ok := c.trusted(d.Digest); ok != (i != 1) {
				t.Errorf("mode %o: blob %d is trusted: %v", tt.mode, i, ok)
			}
		}
		if _, err := c.Remove(t.Context(), "example.org/after:1"); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing said: what is there stays, what comes can be read by all.
	if err := c.SetAccess(Access{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.Dir(), 0o711); err != nil {
		t.Fatal(err)
	}
	mustPush(t, c, "example.org/after:1", after)
	found := modes(t, c.Dir())
	if found["."].Mode().Perm() != 0o711 || found["index.json"].Mode().Perm() != 0o644 || found[blob(after.root().Digest)].Mode().Perm() != 0o444 {
		t.Errorf("%v", found)
	}
}

// A lock that everybody could open, of a cache made before, is made anew, also while somebody holds it.
func TestLockMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t)
		lock := filepath.Join(c.Dir(), "lock")
		if err := os.WriteFile(lock, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		held, err := os.Open(lock) // for reading, as any user can
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := range 3 {
			mustPush(t, c, fmt.Sprintf("example.org/a:%d", i), newImage(mediaTypeSIFLayer, "a"))
		}
		if took := time.Since(start); took > 2*lockPatience {
			t.Errorf("held up for %v", took)
		}
		if info, err := os.Stat(lock); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	})
}

// A lease that everybody can open, of a version that made such, counts for an hour: its maker may live, and later
// whoever holds its lock is somebody who wants to keep the room from others.
func TestLeaseHeldByReader(t *testing.T) {
	c := mustOpen(t)
	lease := filepath.Join(c.Dir(), "leases", "OLD")
	blob := digest.FromString("a")
	part := filepath.Join(c.Dir(), "ingest", "OLD."+flat(blob))
	for _, name := range []string{lease, part} {
		if err := os.WriteFile(name, []byte(blob+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	held, err := os.Open(lease) // for reading, as any user can
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		age   time.Duration
		lives bool
	}{{leaseExposed / 2, true}, {2 * leaseExposed, false}} {
		if err := os.Chtimes(lease, time.Now(), time.Now().Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		if set, err := c.leased(); err != nil || set[blob] != tt.lives {
			t.Errorf("after %v: leased: %v, %v", tt.age, set, err)
		}
		if _, err := Open(c.Dir()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{lease, part} {
			if _, err := os.Lstat(name); (err == nil) != tt.lives {
				t.Errorf("after %v: %v", tt.age, err)
			}
		}
	}
}

// Nobody else can open a new lease, or a hold.
func TestLeaseMode(t *testing.T) {
	c := mustOpen(t)
	hold, err := c.Hold(t.Context(), newImage(mediaTypeSIFLayer, "a").root())
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	tr := c.Transfer("example.org/a:1", TransferOptions{})
	defer tr.Close()
	if _, _, err := tr.Offer(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	leases, err := filepath.Glob(filepath.Join(c.Dir(), "*s", "??????????????????????????"))
	if err != nil || len(leases) != 2 {
		t.Fatalf("leases: %v, %v", leases, err)
	}
	for _, name := range leases {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
}
