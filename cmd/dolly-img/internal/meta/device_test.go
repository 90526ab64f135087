package meta

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
)

func TestDeviceSuits(t *testing.T) {
	need := []gpt.Need{
		{What: "a GPT for sectors of 512 bytes", Min: 512, Max: 512}, {What: "xfs in partition 1", Min: 1, Max: 512}, {What: "xfs in partition 2", Min: 1, Max: 512},
	}
	for _, tt := range []struct {
		kind   gpt.Kind
		any    bool
		needs  []gpt.Need
		on     disk.Kind
		sector int64
		want   string
	}{
		{gpt.Disk, false, need, disk.Disk, 512, ""},
		{gpt.Disk, false, need, disk.Partition, 512, "is a partition"},
		{gpt.Disk, true, need, disk.Partition, 512, ""},
		{gpt.Disk, true, need, disk.Partition, 4096, "sectors of 4096 bytes, with which what comes does not work: a GPT for sectors of 512"},
		{gpt.FileSystem, false, need[1:], disk.Partition, 512, ""},
		{gpt.FileSystem, false, need[1:], disk.Partition, 4096, "xfs in partition 1"},
		{gpt.FileSystem, false, nil, disk.Partition, 4096, ""},
		{gpt.FileSystem, false, nil, disk.Disk, 512, "is a disk"},
		{gpt.Unknown, false, nil, disk.Disk, 512, ""},
		{gpt.Unknown, false, nil, disk.Partition, 512, ""},
		{gpt.FileSystem, false, nil, disk.Mapped, 512, ""},
		{gpt.Disk, false, nil, disk.Raid, 512, ""},
		{gpt.FileSystem, false, nil, disk.Multipath, 512, "is a disk"},
	} {
		d := &Device{AnyKind: tt.any}
		d.Brings(tt.kind, tt.needs)
		if len(d.Sectors) > 2 {
			t.Errorf("%+v: %v says the same twice", tt, d.Sectors)
		}
		err := d.Suits("/dev/sda", tt.on, tt.sector)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestDeviceTravels(t *testing.T) {
	whole := Transfer{Kind: KindRaw, Output: "device:system", Device: &Device{
		Holds: HoldsDisk, Sectors: []Sectors{{"a GPT for sectors of 512 bytes", 512, 512}}, AnyKind: true, KeepTable: true,
	}}
	b, err := whole.Encode()
	if err != nil || whole.Version != 3 {
		t.Fatalf("version %d, %v", whole.Version, err)
	}
	if again, err := Decode(b); err != nil || !reflect.DeepEqual(*again, whole) {
		t.Errorf("%s is read as %+v, %v", b, again, err)
	}
	unread := whole
	unread.Device = &Device{Unread: true}
	if b, err = unread.Encode(); err != nil || unread.Version != 4 {
		t.Fatalf("version %d, %v", unread.Version, err)
	}
	if again, err := Decode(b); err != nil || !again.Device.Unread {
		t.Errorf("%s is read as %+v, %v", b, again, err)
	}
	for want, spoil := range map[string]func(m *Transfer){
		"without a device":           func(m *Transfer) { m.Output = "/data/disk.img" },
		"without a device ":          func(m *Transfer) { m.Kind, m.Ref = KindImage, "a:1" },
		"no mode, owner or time":     func(m *Transfer) { m.Mode = 0o600 },
		"no mode, owner or time ":    func(m *Transfer) { m.Mtime = time.Unix(1, 0) },
		"unknown kind of image":      func(m *Transfer) { m.Device.Holds = "tape" },
		"sectors of 512 to 1 bytes":  func(m *Transfer) { m.Device.Sectors = []Sectors{{"xfs", 512, 1}} },
		"at most 8":                  func(m *Transfer) { m.Device.Sectors = make([]Sectors, 9) },
		"sectors of 1 to 2 bytes":    func(m *Transfer) { m.Device.Sectors = []Sectors{{strings.Repeat("x", 201), 1, 2}} },
		"version 2 with what versio": func(m *Transfer) { m.Version = 2 },
		"version 3 with what versio": func(m *Transfer) { m.Device.Unread = true },
	} {
		m, d := whole, *whole.Device
		m.Device = &d
		spoil(&m)
		if err := m.check(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: %v, want %s", m, err, want)
		}
	}
}
