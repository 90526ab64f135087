package relay

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

func TestRunDelay(t *testing.T) {
	tasks := t.TempDir()
	for name, text := range map[string]string{"1": "5 700 3\n", "2": "0 50 1\n", "3": "", "4": "x\n"} {
		dir := filepath.Join(tasks, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "schedstat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := allDelay(tasks); got != 750 {
		t.Errorf("%d", got)
	}
	if got := allDelay(filepath.Join(tasks, "none")); got != 0 {
		t.Errorf("%d", got)
	}
	var d runDelay
	now := time.Now()
	if _, ok := d.since(now, 0); ok {
		t.Error("the first call knows")
	}
	if _, ok := d.since(now.Add(time.Second), 0); !ok {
		t.Error("the second does not")
	}
	if _, ok := d.since(now.Add(time.Minute), 0); ok {
		t.Error("one after a long time does")
	}
}

// Whether a slow write is the disk's fault is not known before the delay was measured twice.
func TestSlowWritesAreNotTheDisksUntilKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		for k, want := range []int64{0, 10e6} {
			m.write.is(waitDisk)
			time.Sleep(time.Second)
			m.written.Add(10e6)
			var r wire.Report
			if m.fill(&r, false, delayNow); r.Disk != want {
				t.Errorf("report %d: %+v, want %d", k, r, want)
			}
		}
	})
}
