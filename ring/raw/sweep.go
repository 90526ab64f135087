package raw

import (
	"context"
	"os"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// How long an offer waits until what killed transfers left aside is removed, which for a large directory takes long. A sender
// waits for 5 s until nodes answer, and for 25 s before it gives one up.
const (
	sweepWait  = time.Second      // in each case; what is left then is removed behind the answer
	sweepLimit = 15 * time.Second // where that takes the room which the output needs
)

// sweep removes what was left aside. What cannot be removed is in nobody's way, but takes room. It goes on behind the
// answer with a directory of its own, also after Close.
func (t *Target) sweep() {
	if t.sweeping != nil {
		return
	}
	beside, err := t.fs.Sub(".")
	if err != nil {
		return
	}
	ended := make(chan struct{})
	t.sweeping = ended
	own := &Target{o: t.o, fs: beside, uid: t.uid, title: t.title}
	go func() {
		defer close(ended)
		defer beside.Close()
		_ = own.dropAside(durable.TryLock)
	}()
	t.swept(context.Background(), sweepWait)
}

// swept waits until the sweep has ended, so long at most.
func (t *Target) swept(ctx context.Context, most time.Duration) {
	if t.sweeping == nil {
		return
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-t.sweeping:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// room is Tree.Room of a file.
func (t *Target) room(ctx context.Context, need, free int64) (int64, error) {
	if free < 0 || need <= free || t.sweeping == nil {
		return free, nil
	}
	before, err := t.space()
	if err != nil {
		return 0, err
	}
	t.swept(ctx, sweepLimit)
	now, err := t.space()
	return free + max(0, now-before), err
}

// space returns the free bytes where the output goes; -1 is unknown.
func (t *Target) space() (int64, error) {
	d, err := t.fs.OpenFile(".", os.O_RDONLY, 0)
	if err != nil {
		return 0, t.fail("read directory", err)
	}
	defer d.Close()
	free, _, err := durable.Space(d)
	if err != nil {
		return 0, t.fail("free space", err)
	}
	return free, nil
}

// Room returns how many bytes are free where Check has found so many. If they are fewer than need, it waits for some time
// until what killed transfers left is removed.
func (t *Tree) Room(ctx context.Context, need, free int64) (int64, error) {
	return t.t.room(ctx, need, free)
}
