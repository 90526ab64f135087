package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/device"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
	"github.com/dolly-img/dolly-img/ring/raw/gpt/reread"
)

// testLoops is the variable by which a test names the directory over whose files loop devices may be written. Nobody sets it
// otherwise.
const testLoops = "DOLLY_IMG_TEST_LOOPS_BELOW"

// devices returns where this node looks for devices.
func devices() disk.Roots {
	roots := disk.Host()
	roots.Loops = os.Getenv(testLoops)
	return roots
}

// deviceTarget is embedded under this name, because Target is the name of a method.
type deviceTarget = device.Target

// deviceSink is a block device that is overwritten. The kernel's view of its partitions follows.
type deviceSink struct {
	*deviceTarget
	ctx     context.Context // of nothing but the wait for udev, which goes on when the transfer is over
	roots   disk.Roots
	opened  *disk.Opened // which block closes
	block   *device.Block
	meta    *meta.Device
	log     *slog.Logger
	refusal func(error) error // what the sender reads of an error
	unknown []gpt.Partition   // partitions that the kernel learns of through udev only; nil: none
	whole   reread.Disk
	waits   bool
	release func() // has others not told any more that this transfer has the device
}

// deviceUsers has, by its path, what a device of this node is used for: a transfer, in words.
type deviceUsers struct{ by sync.Map }

// note keeps who uses a device until the function that it returns is called.
func (u *deviceUsers) note(path string, r ring.Request) (release func()) {
	u.by.Store(path, fmt.Sprintf("transfer %s of %s", r.Transfer, printable.Line(r.Sender)))
	return func() { u.by.Delete(path) }
}

// busy returns the error of a device that somebody has for himself, with the transfer where it is one of this node.
func (u *deviceUsers) busy(err error, path string) error {
	if who, ok := u.by.Load(path); ok {
		return errkind.About("device-transfer", path, "%s is busy: %s overwrites it", path, who)
	}
	return err
}

// device opens the device that m names, for this transfer alone. Nothing is written.
func (a *acceptor) device(ctx context.Context, r ring.Request, m *meta.Transfer) (_ ring.Sink, err error) {
	rule, err := a.policy.Device(m.Output)
	if err != nil {
		return nil, err
	}
	opened, err := a.disks.Open(rule)
	if err != nil {
		if kind, about := errkind.Of(err); kind == "device-busy" { // another transfer may have it, and end
			err = &waitsFor{a.users.busy(err, about[0])}
		}
		return nil, named(m.Output, err)
	}
	release := a.users.note(opened.Device().Path, r)
	defer func() {
		if err != nil {
			release()
		}
	}()
	d := &deviceSink{release: release, ctx: context.WithoutCancel(ctx), roots: a.disks, opened: opened, meta: m.Device, log: a.log, refusal: a.refusal}
	found := opened.Device()
	if d.block, err = device.Open(opened.File, found.Path); err != nil {
		return nil, errors.Join(err, opened.File.Close())
	}
	var facts *disk.Facts
	if err = m.Device.Suits(found.Path, found.Kind, d.block.Sector()); err == nil {
		facts, err = d.facts()
	}
	if err != nil {
		return nil, errors.Join(named(m.Output, err), d.block.Close())
	}
	d.deviceTarget = device.New(d.block, device.Options{Identity: facts.Identity(), Transfer: r.Transfer, Trust: m.Device.Unread, Patch: d.patch})
	return d, nil
}

// waitsFor is the error of a device that another transfer may give back.
type waitsFor struct{ error }

func (e *waitsFor) Unwrap() []error { return []error{e.error, raw.ErrBusy} }

func (d *deviceSink) facts() (*disk.Facts, error) { return d.opened.Facts(device.ReaderAt(d.block)) }

// Offer refuses in the words of the node, as accept does.
func (d *deviceSink) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	held, free, err = d.deviceTarget.Offer(ctx, blobs)
	if err != nil {
		err = d.refusal(err)
	}
	return held, free, err
}

// Target describes the device as it is now; see ring.Targeter.
func (d *deviceSink) Target(context.Context) (json.RawMessage, error) {
	facts, err := d.facts()
	if err != nil {
		return nil, err
	}
	return json.Marshal(facts)
}

// patch moves the backup of a GPT to the end of the device, unless the sender wants it left alone.
func (d *deviceSink) patch(image io.ReaderAt, size int64, on device.Device) (list []device.Patch, err error) {
	if d.meta.KeepTable || d.opened.Device().Kind == disk.Partition {
		return nil, nil
	}
	patches, notes, err := gpt.Patches(image, size, on.Size(), on.Sector())
	for _, p := range patches {
		list = append(list, device.Patch(p))
	}
	for _, n := range notes {
		d.log.Warn("partition table", "device", on.String(), "note", n)
	}
	return list, err
}

// Publish makes the device complete, and has the kernel read its partition table. That this fails changes nothing about
// what is on the device.
func (d *deviceSink) Publish(ctx context.Context) error {
	if err := d.deviceTarget.Publish(ctx); err != nil {
		return err
	}
	if d.block.WritesZeros() {
		d.log.Info("this disk cannot make holes, and had every zero written to it", "device", d.String())
	}
	way, err := d.reread()
	switch {
	case errors.Is(err, reread.ErrPrivilege):
		d.waits = true
	case err != nil:
		d.log.Warn("the kernel does not know the new partitions: partprobe or a reboot makes it read the table", "device", d.String(), "error", err)
	case way != "":
		d.log.Info("the partition table was "+string(way), "device", d.String())
	}
	return nil
}

func (d *deviceSink) reread() (reread.Way, error) {
	whole, ok, err := reread.Find(d.roots.Sys, d.opened.File)
	if err != nil || !ok {
		return "", err
	}
	d.whole = whole
	table, err := gpt.Read(device.ReaderAt(d.block), d.block.Size(), d.block.Sector())
	switch {
	case err == nil:
		d.unknown = table.Partitions
	case !errors.Is(err, gpt.ErrNone) && !errors.Is(err, gpt.ErrDamaged):
		return "", err
	}
	return whole.Again(d.opened.File, d.unknown)
}

// Close closes the device, and then waits in the background for udev, where only udev may have the partition table read.
func (d *deviceSink) Close() error {
	err := d.deviceTarget.Close()
	d.release()
	if d.waits {
		d.waits = false
		go func() {
			begun := time.Now()
			way, err := d.whole.Wait(d.ctx, d.unknown)
			if err != nil {
				d.log.Warn("the kernel does not know the new partitions", "device", d.String(), "error", err)
				return
			}
			d.log.Info("the partition table was "+string(way), "device", d.String(), "after", time.Since(begun))
		}()
	}
	return err
}
