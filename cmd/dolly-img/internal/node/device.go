package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
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
	block   *device.Block
	file    *os.File // the device's, which block closes
	found   *disk.Device
	meta    *meta.Device
	log     *slog.Logger
	unknown []gpt.Partition // partitions that the kernel learns of through udev only; nil: none
	whole   reread.Disk
	waits   bool
}

// device opens the device that m names, for this transfer alone. Nothing is written.
func (a *acceptor) device(ctx context.Context, transfer string, m *meta.Transfer) (ring.Sink, error) {
	rule, err := a.policy.Device(m.Output)
	if err != nil {
		return nil, err
	}
	machine, err := a.disks.Scan()
	if err != nil {
		return nil, err
	}
	choice := machine.Choose(rule)
	if choice.Err != nil {
		return nil, fmt.Errorf("%s: %w", m.Output, choice.Err)
	}
	d := &deviceSink{ctx: context.WithoutCancel(ctx), roots: a.disks, found: choice.Device, meta: m.Device, log: a.log}
	if err := d.open(); err != nil {
		return nil, err
	}
	if err := m.Device.Suits(d.found.Path, d.found.Kind == disk.Partition, d.block.Sector()); err != nil {
		return nil, errors.Join(err, d.block.Close())
	}
	d.deviceTarget = device.New(d.block, device.Options{Identity: d.identity(), Transfer: transfer, Patch: d.patch})
	return d, nil
}

// open opens the device exclusively and locks it, which udev and partitioning programs respect.
func (d *deviceSink) open() (err error) {
	path := d.found.Path
	d.file, err = os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return errkind.About("device-busy", path, "%s is busy: the kernel gives it to one user only, and it has one", path)
	} else if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.file.Close())
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return fmt.Errorf("device %s: %w", path, err)
	}
	if now := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)); now != d.found.Number {
		return fmt.Errorf("device %s: leads to the device %s, and led to %s a moment before", path, now, d.found.Number)
	}
	if err := unix.Flock(int(d.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("device %s: another program has locked it: %w", path, raw.ErrBusy)
	} else if err != nil {
		return fmt.Errorf("device %s: lock: %w", path, err)
	}
	d.block, err = device.Open(d.file, path)
	return err
}

// identity tells this disk, or this partition of it, from others, also after the next boot where that is known.
func (d *deviceSink) identity() string {
	f := d.found
	return fmt.Sprintf("%s %s %s %s %d %d", f.Model, f.Serial, f.WWN, f.MapName, f.Partition, f.Start)
}

// Target describes the device as it is now; see ring.Targeter.
func (d *deviceSink) Target(context.Context) (json.RawMessage, error) {
	machine, err := d.roots.Scan()
	if err != nil {
		return nil, err
	}
	f := machine.Numbered(d.found.Number)
	if f == nil || f.DiskSeq != d.found.DiskSeq {
		return nil, fmt.Errorf("device %s: it was taken away", d.found.Path)
	}
	if err := f.Unusable(); err != nil {
		return nil, err
	}
	holds, err := disk.Signatures(device.ReaderAt(d.block), d.block.Size())
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", f.Path, err)
	}
	t := meta.Target{
		Path: f.Path, Number: f.Number, DiskSeq: f.DiskSeq, Kind: string(f.Kind), Model: f.Model, Serial: f.Serial, WWN: f.WWN,
		Size: d.block.Size(), Sector: d.block.Sector(),
	}
	for _, s := range holds {
		t.Holds = append(t.Holds, s.String())
	}
	return json.Marshal(t)
}

// patch moves the backup of a GPT to the end of the device, unless the sender wants it left alone.
func (d *deviceSink) patch(image io.ReaderAt, size int64, on device.Device) (list []device.Patch, err error) {
	if d.meta.KeepTable || d.found.Kind == disk.Partition {
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
	whole, ok, err := reread.Find(d.roots.Sys, d.file)
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
	return whole.Again(d.file, d.unknown)
}

// Close closes the device, and then waits in the background for udev, where only udev may have the partition table read.
func (d *deviceSink) Close() error {
	err := d.deviceTarget.Close()
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
