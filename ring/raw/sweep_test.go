package raw

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// slowFS removes what is in directories only once released is closed.
type slowFS struct {
	durable.FS
	released chan struct{}
}

func (f slowFS) Sub(name string) (durable.FS, error) {
	sub, err := f.FS.Sub(name)
	return slowFS{sub, f.released}, err
}

func (f slowFS) RemoveAll(name string) error {
	<-f.released
	return f.FS.RemoveAll(name)
}

// A large directory that a killed transfer left holds up no answer. It goes behind that, also after the end of this transfer,
// and what needs its room waits for that.
func TestLeftBehindAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		size int64
		wait time.Duration
		err  error
	}{"room": {1, sweepWait, nil}, "no room": {1 << 60, sweepWait + sweepLimit, syscall.ENOSPC}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				if err := os.MkdirAll(filepath.Join(dir, asideName(), "a"), 0o755); err != nil {
					t.Fatal(err)
				}
				target := newFile(t, TargetOptions{Dir: dir, Name: "out"})
				slow := slowFS{target.fs, make(chan struct{})}
				target.top, target.fs = slow, slow
				start := time.Now()
				for range 2 { // as for a sender that asks again
					_, _, err := target.Offer(ctx, []v1.Descriptor{{Size: tt.size, Digest: digest.FromString("x")}})
					if !errors.Is(err, tt.err) {
						t.Errorf("%v, want %v", err, tt.err)
					}
					if took := time.Since(start); took != tt.wait {
						t.Errorf("answered after %v, want %v", took, tt.wait)
					}
					start, tt.wait = time.Now(), tt.wait-sweepWait
				}
				if err := target.Close(); err != nil {
					t.Error(err)
				}
				close(slow.released)
				synctest.Wait()
				if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
					t.Errorf("left %v, %v", names, err)
				}
			})
		})
	}
}
