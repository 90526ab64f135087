package raw

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A file with the right bytes gets the mode and the owner that were asked for, and not before COMMIT.
func TestExistingMode(t *testing.T) {
	want := random(1000)
	d := v1.Descriptor{Size: int64(len(want))}
	for name, c := range map[string]struct {
		mode    fs.FileMode
		o       TargetOptions
		there   func(path string)
		inPlace bool
		fail    bool
	}{
		"as asked":                {mode: 0o640, o: TargetOptions{Mode: 0o640}, inPlace: true},
		"another mode":            {mode: 0o600, o: TargetOptions{Mode: 0o640}},
		"another right":           {mode: 0o640 | fs.ModeSetuid, o: TargetOptions{Mode: 0o640}},
		"another owner":           {mode: 0o640, o: TargetOptions{Mode: 0o640, Owner: &Owner{12345, -1}}},
		"the owner":               {mode: 0o640, o: TargetOptions{Mode: 0o640, Owner: &Owner{os.Getuid(), -1}}, inPlace: true},
		"other names":             {mode: 0o640, o: TargetOptions{Mode: 0o640}, there: link, inPlace: true},
		"other names, other mode": {mode: 0o600, o: TargetOptions{Mode: 0o640}, there: link, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.o.Owner != nil && os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			c.o.Dir, c.o.Name = t.TempDir(), "out"
			path := filepath.Join(c.o.Dir, "out")
			os.WriteFile(path, want, 0o600)
			os.Chmod(path, c.mode)
			os.Chtimes(path, day, day)
			if c.there != nil {
				c.there(path)
			}
			target, err := NewTarget(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			_, _, err = target.Offer(ctx, []v1.Descriptor{d})
			if c.fail {
				if !errors.Is(err, fs.ErrExist) {
					t.Errorf("offer: %v", err)
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			w, err := target.Begin(ctx, d, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(want); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(ctx, blob(want)); err != nil {
				t.Fatal(err)
			}
			if inPlace, err := target.Prepare(ctx, nil); err != nil || inPlace != c.inPlace {
				t.Errorf("in place: %v, %v", inPlace, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != c.mode {
				t.Errorf("before COMMIT: %v, %v", info, err)
			}
			if err := target.Publish(ctx); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			uid := int(info.Sys().(*syscall.Stat_t).Uid)
			if info.Mode() != 0o640 || !info.ModTime().Equal(day) || c.o.Owner != nil && uid != c.o.Owner.UID {
				t.Errorf("published %v, user %d, of %v", info.Mode(), uid, info.ModTime())
			}
		})
	}
}

func link(path string) { os.Link(path, path+"2") }
