package raw

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

func readAll(f *crashfs.FS, name string) ([]byte, error) {
	h, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(h, 0, 1<<30))
}

// withoutNoReplace is a file system that, like NFS, cannot look and rename in one step.
type withoutNoReplace struct{ *crashfs.FS }

func (withoutNoReplace) RenameNew(from, to string) error {
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.EINVAL}
}

func (f withoutNoReplace) Sub(name string) (durable.FS, error) {
	sub, err := f.FS.Sub(name)
	if err != nil {
		return nil, err
	}
	return withoutNoReplace{sub.(*crashfs.FS)}, nil
}

// sweepTarget places a file for every operation that may fail or be the last.
func sweepTarget(o TargetOptions, old []byte, like func(*crashfs.FS) durable.FS, prepare func(*crashfs.FS)) error {
	fresh := random(3000)
	work := func(f *crashfs.FS) error {
		t, err := newTarget(func() (durable.FS, error) { return like(f), nil }, o)
		if err != nil {
			return err
		}
		err = place(t, fresh)
		return errors.Join(err, t.Close())
	}
	return crashfs.Sweep(func() (*crashfs.FS, error) {
		f := crashfs.New()
		if old != nil {
			h, err := f.OpenFile(o.Name, os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				return nil, err
			}
			h.WriteAt(old, 0)
			h.Sync()
			f.SyncDir(".")
		}
		prepare(f)
		return f, nil
	}, work, func(f *crashfs.FS, worked error) error {
		got, err := readAll(f, o.Name)
		isNew := err == nil && bytes.Equal(got, fresh)
		isOld := err == nil && old != nil && bytes.Equal(got, old) || errors.Is(err, fs.ErrNotExist) && old == nil
		if !isNew && !isOld {
			return fmt.Errorf("neither the old file nor the new one: %d bytes, %v", len(got), err)
		}
		if worked == nil && !isNew {
			return errors.New("work succeeded, the file is the old one")
		}
		// What is left over is no obstacle.
		if err := work(f); err != nil && !(isNew && !o.Overwrite && errors.Is(err, fs.ErrExist)) {
			return fmt.Errorf("again: %w", err)
		}
		if got, err := readAll(f, o.Name); !bytes.Equal(got, fresh) {
			return fmt.Errorf("after it was done again: %d bytes, %v", len(got), err)
		}
		return nil
	})
}

func TestCrashSweep(t *testing.T) {
	local := func(f *crashfs.FS) durable.FS { return f }
	for _, tt := range []struct {
		name string
		o    TargetOptions
		old  []byte
		like func(*crashfs.FS) durable.FS
	}{
		{"new", TargetOptions{Name: "out"}, nil, local},
		{"over", TargetOptions{Name: "out", Overwrite: true, Mode: 0o600, ModTime: time.Unix(9, 0)}, []byte("old bytes"), local},
		{"mkdir", TargetOptions{Name: "a/b/out", Mkdir: true}, nil, local},
		{"new on NFS", TargetOptions{Name: "out"}, nil, func(f *crashfs.FS) durable.FS { return withoutNoReplace{f} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := sweepTarget(tt.o, tt.old, tt.like, func(*crashfs.FS) {}); err != nil {
				t.Error(err)
			}
			for _, m := range []struct {
				name        string
				files, dirs bool
			}{{"no fsync of the file", true, false}, {"no fsync of the directory", false, true}} {
				err := sweepTarget(tt.o, tt.old, tt.like, func(f *crashfs.FS) { f.IgnoreSync(m.files, m.dirs) })
				if err == nil {
					t.Errorf("the sweep does not notice: %s", m.name)
				}
			}
		})
	}
}
