package raw

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// existingCase is a file that is there, and what becomes of the attempt to place the same bytes.
type existingCase struct {
	there func(path string)
	claim int64  // where the ring begins
	from  int64  // where it begins again, when that is before
	fail  string // where it is found out
}

// A file that is there is what decides, never its name and size: whatever bytes the sender brings,
// nothing is written, and only the same ones are committed.
func TestExisting(t *testing.T) {
	want := random(100000)
	for name, c := range map[string]existingCase{
		"the same":                       {claim: 65536},
		"the same, nothing claimed":      {},
		"other bytes in the claim":       {there: poke(t, 10), claim: 65536, from: 1, fail: "begin"},
		"other bytes behind the claim":   {there: poke(t, 70000), claim: 65536, fail: "commit"},
		"other bytes, nothing claimed":   {there: poke(t, 10), fail: "commit"},
		"longer":                         {there: func(p string) { os.WriteFile(p, append(bytes.Clone(want), 1), 0o600) }, fail: "offer"},
		"shorter":                        {there: func(p string) { os.WriteFile(p, want[1:], 0o600) }, fail: "offer"},
		"a link to the same":             {there: func(p string) { os.Rename(p, p+"2"); os.Symlink(filepath.Base(p)+"2", p) }, fail: "offer"},
		"a directory":                    {there: func(p string) { os.Remove(p); os.Mkdir(p, 0o700) }, fail: "offer"},
		"written to while it is read":    {claim: 65536, fail: "changed"},
		"replaced after it was compared": {fail: "replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			if c.there != nil {
				c.there(path)
			}
			before, _ := os.ReadFile(path)
			target, err := NewTarget(TargetOptions{Dir: dir, Name: "out"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := target.Close(); err != nil {
					t.Error(err)
				}
				if now, _ := os.ReadFile(path); !bytes.Equal(now, before) && c.fail != "changed" && c.fail != "replaced" {
					t.Error("the file was written to")
				}
				if names := list(t, dir); len(names) > 2 || len(names) == 2 && names[1] != "out2" {
					t.Errorf("left %q", names)
				}
			}()
			c.place(t, target, path, want)
		})
	}
}

// failed judges how a step ended, and says whether it failed.
func (c existingCase) failed(t *testing.T, step string, err error) bool {
	t.Helper()
	differs := step == "begin" || step == "commit"
	switch {
	case c.fail == step && err == nil:
		t.Fatalf("%s worked", step)
	case c.fail == step && differs && !errors.Is(err, fs.ErrExist):
		t.Errorf("%s: %v", step, err)
	case c.fail != step && err != nil:
		t.Fatalf("%s: %v", step, err)
	}
	return err != nil
}

// place brings want, as the ring does, up to the step that fails.
func (c existingCase) place(t *testing.T, target *Target, path string, want []byte) {
	before, _ := os.ReadFile(path)
	d := v1.Descriptor{Size: int64(len(want))} // raw files have no digest before they were read
	held, _, err := target.Offer(ctx, []v1.Descriptor{d})
	if c.failed(t, "offer", err) {
		return
	}
	if held[0] != d.Size {
		t.Errorf("claims %d of %d", held[0], d.Size)
	}
	w, err := target.Begin(ctx, d, c.claim)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := target.Open(ctx, d, 0); err != nil { // what a successor is fed with
		t.Fatal(err)
	} else if got, _ := io.ReadAll(r); !bytes.Equal(got, before[:c.claim]) {
		t.Errorf("replayed %d bytes", len(got))
	}
	if c.from > 0 {
		if err := w.Abort(c.from); err != nil {
			t.Fatal(err)
		}
		_, err := target.Begin(ctx, d, c.from)
		c.failed(t, "begin", err)
		return
	}
	if _, err := w.Write(want[c.claim:]); err != nil {
		t.Fatal(err)
	}
	// A mark behind all of it would be good by now, and still no other byte may go to a successor.
	if r, err := target.Open(ctx, d, 0); err != nil {
		t.Fatal(err)
	} else if got, err := io.ReadAll(r); !bytes.HasPrefix(want, got) && c.fail != "begin" || err == nil && len(got) < len(want) {
		t.Errorf("replayed %d bytes that differ, %v", len(got), err)
	}
	if c.fail == "changed" {
		poke(t, 10)(path)
	}
	if err := w.Commit(ctx, v1.Descriptor{Digest: blob(want).Digest, Size: d.Size}); c.fail == "changed" {
		c.failed(t, "changed", err)
		return
	} else if c.failed(t, "commit", err) {
		return
	}
	if inPlace, err := target.Prepare(ctx, nil); err != nil || !inPlace {
		t.Errorf("in place: %v, %v", inPlace, err)
	}
	if c.fail == "replaced" {
		os.Rename(path, path+"2")
		os.WriteFile(path, want, 0o644)
	}
	c.failed(t, "replaced", target.Publish(ctx))
}

// poke changes a byte, and the time by which a change is noticed.
func poke(t *testing.T, at int64) func(path string) {
	return func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0]++
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, day, day); err != nil {
			t.Fatal(err)
		}
	}
}

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A difference below a mark that was good is not forgotten when the node goes back to that mark, as it
// does when the bytes behind it were changed on the way.
func TestExistingFallBack(t *testing.T) {
	want := random(100000)
	damaged := bytes.Clone(want)
	damaged[80000]++
	for name, c := range map[string]struct {
		there func(path string)
		fail  bool
	}{
		"the same":                   {},
		"differs below the mark":     {there: poke(t, 50000), fail: true},
		"differs as the damage does": {there: poke(t, 80000), fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			if c.there != nil {
				c.there(path)
			}
			target, err := NewTarget(TargetOptions{Dir: dir, Name: "out"})
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			d := v1.Descriptor{Size: int64(len(want))}
			if _, _, err := target.Offer(ctx, []v1.Descriptor{d}); err != nil {
				t.Fatal(err)
			}
			w, err := target.Begin(ctx, d, 40000)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(damaged[40000:]); err != nil {
				t.Fatal(err)
			}
			if err := w.Abort(75000); err != nil { // what is in front of it has a good mark
				t.Fatal(err)
			}
			if w, err = target.Begin(ctx, d, 75000); err == nil {
				if _, err := w.Write(want[75000:]); err != nil {
					t.Fatal(err)
				}
				err = w.Commit(ctx, v1.Descriptor{Digest: blob(want).Digest, Size: d.Size})
			}
			if c.fail != errors.Is(err, fs.ErrExist) || !c.fail && err != nil {
				t.Error(err)
			}
		})
	}
}
