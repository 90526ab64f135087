package disk

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// Opened is a device that nobody else may open for themselves. Closing File gives it back.
type Opened struct {
	File *os.File
	// Rule is the rule of the policy that means it.
	Rule identity.Device

	machine *Machine
	device  *Device
}

// Open opens the device that a rule means, for reading and writing, and so that neither a mount nor another program that
// wants it for itself gets it meanwhile (O_EXCL). A lock (flock(2), LOCK_EX) keeps udev from reading a half-written partition table
// (systemd's "Locking Block Device Access").
func (r Roots) Open(rule identity.Device) (*Opened, error) {
	m, err := r.Scan()
	if err != nil {
		return nil, err
	}
	c := m.Choose(rule)
	if c.Err != nil {
		return nil, c.Err
	}
	o := &Opened{Rule: rule, machine: m, device: c.Device}
	path := r.dev(c.Device.Path)
	var by string
	o.File, by, err = exclusively(func() (*os.File, error) {
		return os.OpenFile(path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}, func() string { return m.elsewhere(c.Device) })
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, busy(c.Device, cmp.Or(by, "neither sysfs nor /proc says by what"))
	case err != nil:
		return nil, notOpened(c.Device, err)
	}
	if err := o.lock(); err != nil {
		o.File.Close()
		return nil, err
	}
	if err := o.same(); err != nil {
		o.File.Close()
		return nil, err
	}
	return o, nil
}

// How often a device is tried that nobody can be seen to use, and how long after the last time.
const (
	triesUnseen = 10
	afterUnseen = 50 * time.Millisecond
)

// exclusively opens what may be busy, and says then who uses it. Where nobody is seen who does, it was in use for a moment only, and is tried again: a
// process that begins has what the one had open that began it, until it runs its program.
func exclusively(open func() (*os.File, error), user func() string) (f *os.File, by string, err error) {
	for range triesUnseen {
		if f, err = open(); !errors.Is(err, unix.EBUSY) {
			return f, "", err
		}
		if by = user(); by != "" {
			break
		}
		time.Sleep(afterUnseen)
	}
	return nil, by, err
}

func busy(d *Device, by string) error {
	return errkind.About("device-busy", d.Path, "%s is busy: %s", d.Path, by)
}

// Look reads what a device holds, also of one that is in use where only /proc shows it, which is an error. It is opened for reading only,
// and not for its own use: nothing is kept from using it.
func (m *Machine) Look(rule identity.Device, d *Device) (*Facts, error) {
	f, err := os.OpenFile(m.roots.dev(d.Path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, notOpened(d, err)
	}
	defer f.Close()
	o := Opened{File: f, Rule: rule, machine: m, device: d}
	facts, err := o.Facts(f)
	if by := m.keptElsewhere(d); err == nil && by != "" {
		err = busy(d, by)
	}
	return facts, err
}

// notOpened returns the error of a device that cannot be opened. A unit with PrivateDevices= sees none.
func notOpened(d *Device, err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
		return errkind.Errorf("device-permission", "%s: %w", d.Path, bare(err))
	}
	return fmt.Errorf("%s: %w", d.Path, bare(err))
}

// Device is what was known of the device when it was opened.
func (o *Opened) Device() *Device { return o.device }

func (o *Opened) lock() error {
	err := Control(o.File, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errkind.About("device-busy", o.device.Path, "%s is locked by another program", o.device.Path)
	}
	return err
}

// Control calls do with the descriptor of f, which stays open meanwhile.
func Control(f syscall.Conn, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := c.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// same returns an error unless the opened device is the one that was chosen, as it was then.
func (o *Opened) same() error {
	var st unix.Stat_t
	var size int64
	var seq uint64
	err := Control(o.File, func(fd int) error {
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		var err error
		if seq, err = diskSeq(fd); err != nil {
			seq = o.device.DiskSeq // a kernel before 5.15 does not tell
		}
		return nil
	})
	if err == nil {
		size, err = o.File.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.device.Path, bare(err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)) != o.device.Number ||
		size != o.device.Size || o.device.DiskSeq != 0 && seq != o.device.DiskSeq {
		return errkind.Errorf("device-other", "%s became another device while it was opened", o.device.Path)
	}
	return nil
}

// Facts are what somebody sees of a device before it is overwritten. They travel as JSON of at most 4 KiB.
type Facts struct {
	// Output is what the sender calls the device.
	Output string `json:"output"`
	Path   string `json:"path"`
	Kind   Kind   `json:"kind"`
	Number string `json:"number"`
	// DiskSeq is 0 where the kernel does not tell.
	DiskSeq uint64 `json:"diskSeq,omitempty"`
	// Size and Sector are in bytes.
	Size   int64  `json:"size"`
	Sector int    `json:"sector"`
	Model  string `json:"model,omitempty"`
	Serial string `json:"serial,omitempty"`
	WWN    string `json:"wwn,omitempty"`
	// MapName and UUID are those of the device mapper, UUID also that of MD.
	MapName string `json:"mapName,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	// Holds is what was found on it and in its partitions; it may be cut short, which More says.
	Holds []Signature `json:"holds"`
	More  bool        `json:"more,omitempty"`
}

// Bounds of Facts in bytes. Each byte of a text may be six in JSON.
const (
	maxFacts = 4 << 10
	maxFact  = 48
	maxPath  = 128
)

// describe returns what is known of a device that a rule means, but for what it holds.
func describe(rule identity.Device, d *Device) *Facts {
	return &Facts{
		Output: cut(rule.Called(), maxPath), Path: cut(d.Path, maxPath), Kind: d.Kind, Number: d.Number, DiskSeq: d.DiskSeq, Size: d.Size, Sector: d.LogicalSector,
		Model: cut(d.Model, maxFact), Serial: cut(d.Serial, maxFact), WWN: cut(d.WWN, maxFact),
		MapName: cut(d.MapName, maxPath), UUID: cut(d.UUID, maxPath), Holds: []Signature{},
	}
}

// Facts reads what the device holds now. read reads from the opened device, at any offset. Looked at are both ends of the
// device and of its partitions.
func (o *Opened) Facts(read io.ReaderAt) (*Facts, error) {
	if err := o.same(); err != nil {
		return nil, err
	}
	d := o.device
	f := describe(o.Rule, d)
	found, err := Signatures(read, d.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, bare(err))
	}
	for _, p := range o.machine.Devices {
		if p.Parent != d.Name || p.MapName != "" || p.Start <= 0 || p.Start+p.Size > d.Size {
			continue
		}
		inside, err := Signatures(io.NewSectionReader(read, p.Start, p.Size), p.Size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Path, bare(err))
		}
		found = append(found, inside...)
	}
	for _, s := range found {
		f.Holds = append(f.Holds, Signature{s.Type, cut(s.Label, maxFact)})
	}
	return f, f.shorten()
}

// shorten leaves out what the device holds last until the facts can travel.
func (f *Facts) shorten() error {
	for {
		b, err := json.Marshal(f)
		if err != nil || len(b) <= maxFacts || len(f.Holds) == 0 {
			return err
		}
		f.Holds, f.More = f.Holds[:len(f.Holds)-1], true
	}
}

// cut returns at most n bytes of a text, and whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "…"
}

// Held says what the device holds, as in `gpt, ext4 "root"`, or "nothing".
func (f *Facts) Held() string {
	if len(f.Holds) == 0 {
		return "nothing"
	}
	var texts []string
	for _, s := range f.Holds {
		texts = append(texts, s.String())
	}
	if f.More {
		texts = append(texts, "and more")
	}
	return strings.Join(texts, ", ")
}

// Same reports whether two facts are of one device, whatever it holds. A device without a serial number or a name has to be in the
// same place.
func (f *Facts) Same(g *Facts) bool { return f.Sector == g.Sector && f.identity() == g.identity() }

// identity has all that tells the device from others. What the device mapper or MD made has an identity of its own, or none; a
// number that it had may be another one's by now.
func (f *Facts) identity() string {
	id := fmt.Sprintf("%s %q %q %q %q %q %d", f.Kind, f.Model, f.Serial, f.WWN, f.MapName, f.UUID, f.Size)
	if f.UUID == "" && (f.Kind == Partition || f.Serial+f.WWN == "") { // a partition has the serial number of its disk
		id += " " + f.Path
	}
	return id
}

// Identity tells the device from others of the machine, as far as it is known what it is, in at most 126 bytes, which a journal has
// room for.
func (f *Facts) Identity() string {
	const most = 126
	id := f.identity()
	if len(id) > most {
		id = fmt.Sprintf("%s %x", id[:60], sha256.Sum256([]byte(id)))
	}
	return id
}
