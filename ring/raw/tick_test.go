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

// secondsFS knows no fractions of seconds. Its seconds begin at first, and the next one is behind whatever the test does without
// waiting.
type secondsFS struct {
	durable.FS
	first time.Time
}

type secondsFile struct {
	durable.File
	first time.Time
}

type secondsInfo struct {
	fs.FileInfo
	first time.Time
}

func (s secondsInfo) Sys() any {
	st := *stat(s.FileInfo)
	passed := time.Unix(st.Ctim.Unix()).Sub(s.first).Truncate(time.Second)
	st.Ctim.Sec, st.Ctim.Nsec = s.first.Add(passed).Unix(), 0
	st.Mtim.Nsec = 0
	return &st
}

func (s secondsFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := s.FS.Lstat(name)
	return secondsInfo{info, s.first}, err
}

func (s secondsFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return secondsFile{f, s.first}, err
}

func (s secondsFile) Stat() (fs.FileInfo, error) {
	info, err := s.File.Stat()
	return secondsInfo{info, s.first}, err
}

// A file that is written to as soon as an update has begun to compare it is seen to be another, also in the step of time in which it was
// written before.
func TestUpdateTick(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
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
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	target.top = secondsFS{target.top, time.Unix(stat(info).Ctim.Unix())}
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
