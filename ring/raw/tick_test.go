package raw

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// Whoever looks at a file that was changed just now waits until another change would show, and does not wait for others.
func TestWaitTick(t *testing.T) {
	const fraction = 300*time.Millisecond + 1
	for ago, want := range map[time.Duration]time.Duration{
		0:                         20 * time.Millisecond,
		5 * time.Millisecond:      15 * time.Millisecond,
		20 * time.Millisecond:     0,
		-10 * time.Millisecond:    30 * time.Millisecond,
		-time.Hour:                0,
		fraction:                  2020*time.Millisecond - fraction, // a whole second
		fraction + 2*time.Second:  0,
		fraction - 10*time.Second: 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(fraction)
			now := time.Now()
			WaitTick(now.Add(-ago))
			if waited := time.Since(now); waited != want {
				t.Errorf("waits %v after %v, want %v", waited, ago, want)
			}
		})
	}
}

// secondsFS knows no fractions of seconds.
type secondsFS struct{ durable.FS }

type secondsFile struct{ durable.File }

type secondsInfo struct{ fs.FileInfo }

func (s secondsInfo) Sys() any {
	st := *stat(s.FileInfo)
	st.Mtim.Nsec, st.Ctim.Nsec = 0, 0
	return &st
}

func (s secondsFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := s.FS.Lstat(name)
	return secondsInfo{info}, err
}

func (s secondsFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return secondsFile{f}, err
}

func (s secondsFile) Stat() (fs.FileInfo, error) {
	info, err := s.File.Stat()
	return secondsInfo{info}, err
}

// A file that is written to as soon as an update has begun to compare it is seen to be another, also in the step of time in which it was
// written before.
func TestUpdateTick(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // the whole second is in front of the file
	if err := os.WriteFile(path, random(5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, day, day); err != nil {
		t.Fatal(err)
	}
	target, err := NewTarget(TargetOptions{Dir: dir, Name: "out", Overwrite: true, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	target.top = secondsFS{target.top}
	target.fs = target.top
	d := v1.Descriptor{Size: 5000}
	if _, _, err := target.Offer(ctx, []v1.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	if n, err := target.Compare(ctx, d); n != d.Size || err != nil {
		t.Fatal(n, err)
	}
	poke(t, 7)(path)
	if _, err := target.Begin(ctx, d, d.Size); err != nil {
		t.Fatal(err)
	}
	if target.Same(d) {
		t.Error("it is sure to be what was compared")
	}
}
