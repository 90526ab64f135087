package warm

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

// Whatever write of the state is the last one, a controller that starts then reads the old state or the new one, leaves nothing
// behind, and can save again.
func TestCrashSweepState(t *testing.T) {
	before, after := someState(), someState()
	after.Images[0].List = digest.FromString("moved")
	after.Images[0].Next = after.Images[0].Next.Add(time.Hour)
	for name, lie := range map[string]func(*crashfs.FS){"honest": func(*crashfs.FS) {}, "syncs of files lie": func(f *crashfs.FS) { f.IgnoreSync(true, false) },
		"syncs of directories lie": func(f *crashfs.FS) { f.IgnoreSync(false, true) }} {
		err := crashfs.Sweep(func() (*crashfs.FS, error) {
			f := crashfs.New()
			err := before.save(f)
			lie(f)
			return f, err
		}, func(f *crashfs.FS) error { return after.save(f) }, func(f *crashfs.FS, worked error) error {
			c := NewController(Config{State: f})
			got := c.load()
			if !reflect.DeepEqual(got, after) && (worked == nil || !reflect.DeepEqual(got, before)) {
				return fmt.Errorf("reads %+v", got)
			}
			names, err := f.Names(temps)
			if err != nil || len(names) > 0 {
				return fmt.Errorf("leaves %q, %w", names, err)
			}
			if err := after.save(f); err != nil {
				return fmt.Errorf("again: %w", err)
			}
			if f.SyncLies() {
				return nil
			}
			if got, err := loadState(f.Reboot(crashfs.Oldest, crashfs.Oldest)); err != nil || !reflect.DeepEqual(got, after) {
				return fmt.Errorf("after it was saved again: %+v, %w", got, err)
			}
			return nil
		})
		if found := err != nil; found != (name != "honest") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A state that cannot be read is as none: the controller starts, and asks for everything again.
	f := crashfs.New()
	if err := errors.Join(before.save(f), f.Remove(stateFile), f.Mkdir(stateFile, 0o700)); err != nil {
		t.Fatal(err)
	}
	if s := NewController(Config{State: f}).load(); s != nil {
		t.Errorf("%+v", s)
	}
}
