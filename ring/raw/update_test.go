package raw

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
)

// A file that an update found to be all right stays: it gets what it lacks of mode and time, and is made anew only where that could
// reach other names of it, or where somebody has written to it since.
func TestUpdateHolds(t *testing.T) {
	want := random(200000)
	at := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for name, c := range map[string]struct {
		mode    os.FileMode
		at      time.Time
		before  func(path string) // Begin
		after   func(path string) // Begin
		inPlace bool
		same    bool // the file is the one that was there
		fails   bool
	}{
		"nothing differs":          {mode: 0o600, at: at, inPlace: true, same: true},
		"its mode":                 {mode: 0o640, at: at, same: true},
		"its time":                 {mode: 0o600, at: at.Add(1), same: true},
		"its mode, and two names":  {mode: 0o640, at: at},
		"it was written to":        {mode: 0o600, at: at, before: poke(t, 5)},
		"it was written to later":  {mode: 0o600, at: at, after: poke(t, 5), fails: true},
		"it was replaced later":    {mode: 0o600, at: at, after: func(p string) { os.WriteFile(p+"3", want, 0o600); os.Rename(p+"3", p) }, fails: true},
		"it got longer, with time": {mode: 0o600, at: at, before: func(p string) { grow(p, at) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			os.WriteFile(path, want, 0o600)
			os.Chtimes(path, at, at)
			if name == "its mode, and two names" {
				os.Link(path, path+"2")
			}
			was, _ := os.Stat(path)
			target, err := NewTarget(TargetOptions{Dir: dir, Name: "out", Overwrite: true, Mode: c.mode, ModTime: c.at})
			if err != nil {
				t.Fatal(err)
			}
			d := v1.Descriptor{Size: int64(len(want))}
			if held, _, err := target.Offer(ctx, []v1.Descriptor{d}); err != nil || held[0] != 0 {
				t.Fatal(held, err)
			}
			if n, err := target.Compare(ctx, d); n != d.Size || err != nil {
				t.Fatal(n, err)
			}
			if c.before != nil {
				c.before(path)
			}
			w, err := target.Begin(ctx, d, d.Size)
			if err != nil {
				t.Fatal(err)
			}
			if same := target.Same(d); !same && (c.same || c.fails) || same && c.before != nil {
				t.Errorf("is sure to be the same: %v", same)
			}
			if c.before != nil {
				w = fillAgain(t, target, w, want, name == "it was written to")
			}
			if c.after != nil {
				c.after(path)
			}
			err = w.Commit(ctx, d)
			if (err != nil) != c.fails {
				t.Fatalf("commit: %v", err)
			}
			if c.fails {
				target.Close()
				return
			}
			if in, err := target.Prepare(ctx, nil); in != c.inPlace || err != nil {
				t.Errorf("in place: %v, %v", in, err)
			}
			if err := target.Publish(ctx); err != nil {
				t.Fatal(err)
			}
			_, perr := target.Placed()
			if err := errors.Join(perr, target.Close()); err != nil {
				t.Error(err)
			}
			now, _ := os.Stat(path)
			if os.SameFile(was, now) != c.same || now.Mode() != c.mode || !now.ModTime().Equal(c.at) {
				t.Errorf("the same file: %v, %v, %v", os.SameFile(was, now), now.Mode(), now.ModTime())
			}
			if x, y := was.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t); c.inPlace && x.Ctim != y.Ctim {
				t.Error("it was touched")
			}
			if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
				t.Error("other bytes")
			}
		})
	}
}

// fillAgain does what the ring does with a target whose file may have changed: it hashes what was copied, which either differs
// or does not, and writes it again.
func fillAgain(t *testing.T, target *Target, w ring.Writer, want []byte, differs bool) ring.Writer {
	t.Helper()
	d := v1.Descriptor{Size: int64(len(want))}
	r, err := target.Open(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(r)
	if !bytes.Equal(got, want) != differs {
		t.Errorf("what was copied differs: %v", !differs)
	}
	if err := w.Abort(0); err != nil {
		t.Fatal(err)
	}
	if w, err = target.Begin(ctx, d, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.(io.WriterAt).WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

// grow makes a file longer, and gives it its time back.
func grow(path string, at time.Time) {
	f, _ := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	f.WriteString("x")
	f.Close()
	os.Chtimes(path, at, at)
}
