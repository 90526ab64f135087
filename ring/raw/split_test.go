package raw

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

// titled returns the blobs of a file in parts.
func titled(parts [][]byte) (blobs []v1.Descriptor) {
	for i, b := range parts {
		d := blob(b)
		d.Annotations = map[string]string{v1.AnnotationTitle: fmt.Sprint("part ", i)}
		blobs = append(blobs, d)
	}
	return blobs
}

// joined is what somebody reads who reads the parts until one is not there.
func joined(read func(name string) ([]byte, error), name string) (all []byte, n int) {
	for ; ; n++ {
		b, err := read(PartName(name, n))
		if err != nil {
			return all, n
		}
		all = append(all, b...)
	}
}

func TestSplitSink(t *testing.T) {
	parts := [][]byte{random(300_000), random(300_001), random(7)}
	want := bytes.Join(parts, nil)
	for _, overwrite := range []bool{false, true} {
		t.Run(fmt.Sprint("overwrite ", overwrite), func(t *testing.T) {
			ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
				o := TargetOptions{Dir: t.TempDir(), Name: "out", Overwrite: overwrite}
				path := filepath.Join(o.Dir, o.Name)
				old := [][]byte{random(400_000), random(10), random(11), random(12), random(13)}
				if !overwrite {
					old = nil
				}
				for n, b := range old {
					os.WriteFile(PartName(path, n), b, 0o644)
				}
				return ringtest.Sink{
					Compares: true, Renews: overwrite, Blobs: titled(parts), Bytes: parts,
					New: func() ring.Sink {
						s, err := NewSplit(o)
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
					Published: func(t *testing.T) bool {
						got, n := joined(os.ReadFile, path)
						if !bytes.Equal(got, want) && !bytes.Equal(got, bytes.Join(old, nil)) {
							t.Errorf("%d parts that are neither the old ones nor the new ones", n)
						}
						return bytes.Equal(got, want)
					},
					Left: func(t *testing.T) (left []string) {
						for _, name := range list(t, o.Dir) {
							if strings.Contains(name, partSuffix) {
								left = append(left, name)
							}
						}
						return left
					},
				}
			})
		})
	}
}

// Whatever fails or is the last that happens, nobody reads a mixture of old and new parts; and where the disk only fails, the
// old ones or the new ones are there.
func TestSplitCrash(t *testing.T) {
	parts := [][]byte{random(3000), random(2000)}
	want := bytes.Join(parts, nil)
	blobs := titled(parts)
	for _, count := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(count, " old parts"), func(t *testing.T) {
			var old [][]byte
			for range count {
				old = append(old, random(1000))
			}
			was := bytes.Join(old, nil)
			work := func(f *crashfs.FS) error {
				s := &Split{o: TargetOptions{Name: "out", Overwrite: true}, open: func() (durable.FS, error) { return f, nil }}
				err := splitAll(s, blobs, parts)
				return errors.Join(err, s.Close())
			}
			err := crashfs.Sweep(func() (*crashfs.FS, error) {
				f := crashfs.New()
				for n, b := range old {
					h, err := f.OpenFile(PartName("out", n), os.O_RDWR|os.O_CREATE, 0o644)
					if err != nil {
						return nil, err
					}
					h.WriteAt(b, 0)
					h.Sync()
				}
				return f, f.SyncDir(".")
			}, work, func(f *crashfs.FS, err error) error {
				got, n := joined(func(name string) ([]byte, error) { return readAll(f, name) }, "out")
				switch {
				case bytes.Equal(got, want):
					return nil
				case err == nil:
					return fmt.Errorf("success, and %d parts of %d bytes", n, len(got))
				case n > 0 && !bytes.Equal(got, was):
					return fmt.Errorf("%d parts of %d bytes are neither the old ones nor the new ones", n, len(got))
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// splitAll offers all parts, brings them and publishes them.
func splitAll(s *Split, blobs []v1.Descriptor, parts [][]byte) error {
	if _, _, err := s.Offer(ctx, blobs); err != nil {
		return err
	}
	return bringAll(s, blobs, parts)
}

// bringAll brings all parts and publishes them.
func bringAll(s *Split, blobs []v1.Descriptor, parts [][]byte) error {
	for i, d := range blobs {
		w, err := s.Begin(ctx, d, 0)
		if err != nil {
			return err
		}
		if _, err := w.Write(parts[i]); err != nil {
			return errors.Join(err, w.Abort(0))
		}
		if err := w.Commit(ctx, d); err != nil {
			return err
		}
	}
	if _, err := s.Prepare(ctx, blobs); err != nil {
		return err
	}
	return s.Publish(ctx)
}

// A part that cannot be switched brings all others back, and what is there and cannot be replaced refuses the offer.
func TestSplitRestores(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	parts := [][]byte{[]byte("new 0 "), []byte("new 1 "), []byte("new 2 ")}
	old := []string{"old 0 ", "old 1 ", "old 2 ", "old 3 "}
	for n, text := range old {
		if err := os.WriteFile(PartName(path, n), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blobs := titled(parts)
	s, err := NewSplit(TargetOptions{Dir: dir, Name: "out", Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := s.Offer(ctx, blobs); err != nil {
		t.Fatal(err)
	}
	for i, d := range blobs {
		w, err := s.Begin(ctx, d, 0)
		if err == nil {
			_, err = w.Write(parts[i])
		}
		if err == nil {
			err = w.Commit(ctx, d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// The first part, which is switched last, is taken away.
	if err := os.Remove(filepath.Join(dir, partName(filepath.Base(PartName(path, 0))))); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(ctx); err == nil {
		t.Error("published without its first part")
	}
	if got, n := joined(os.ReadFile, path); string(got) != strings.Join(old, "") {
		t.Errorf("%d parts are left: %q", n, got)
	}
	keep, err := NewSplit(TargetOptions{Dir: dir, Name: "more"})
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	if err := os.WriteFile(filepath.Join(dir, "more_3"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keep.Offer(ctx, blobs); err == nil || !strings.Contains(err.Error(), "more_3 is there, and would be taken for one more part") {
		t.Errorf("a file behind the last part: %v", err)
	}
	if _, _, err := keep.Offer(ctx, blobs[:1]); err == nil {
		t.Error("fewer parts than were offered before")
	}
	var untitled []v1.Descriptor
	for range 2 {
		untitled = append(untitled, blob(nil))
	}
	if _, _, err := s.Offer(ctx, untitled); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("parts without titles: %v", err)
	}
}

// Two transfers to the parts of one file, which need not have as many, never write at once; and the later one leaves nothing of
// the earlier one, also where it was offered before that was published.
func TestSplitLock(t *testing.T) {
	dir := t.TempDir()
	sink := func() *Split {
		s, err := NewSplit(TargetOptions{Dir: dir, Name: "sub/out", Overwrite: true, Mkdir: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	many := [][]byte{[]byte("a0 "), []byte("a1 "), []byte("a2 "), []byte("a3 "), []byte("a4 ")}
	few := [][]byte{[]byte("b0 "), []byte("b1 ")}
	first, second := sink(), sink()
	for s, parts := range map[*Split][][]byte{first: many, second: few} {
		if _, _, err := s.Offer(ctx, titled(parts)); err != nil {
			t.Fatal(err)
		}
	}
	w, err := first.Begin(ctx, titled(many)[4], 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Begin(ctx, titled(few)[0], 0); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "/sub/out_0 and so on") {
		t.Errorf("the second one begins beside the first: %v", err)
	}
	if _, _, err := sink().Offer(ctx, titled(few)); !errors.Is(err, ErrBusy) {
		t.Errorf("a third one is offered beside the first: %v", err)
	}
	if err := w.Abort(0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bringAll(first, titled(many), many), first.Close()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bringAll(second, titled(few), few), second.Close()); err != nil {
		t.Fatal(err)
	}
	if got, n := joined(os.ReadFile, filepath.Join(dir, "sub", "out")); string(got) != "b0 b1 " {
		t.Errorf("%d parts: %q", n, got)
	}
	if got := list(t, filepath.Join(dir, "sub")); len(got) != 2 {
		t.Errorf("left are %q", got)
	}
}
