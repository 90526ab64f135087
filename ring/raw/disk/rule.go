package disk

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// A Choice is what a rule of the policy means on a machine.
type Choice struct {
	Rule identity.Device
	// Device is the one that the rule picks, and nil if it picks none.
	Device *Device
	// Others says of each other disk that the rule could have meant why it does not.
	Others []Reason
	// Err says why no device is picked, or why the one that is picked cannot be written now.
	Err error
	// Warning says that the path of the rule may lead elsewhere after the next boot, and which one does not. "" is none.
	Warning string
}

// A Reason is why a rule does not mean a device.
type Reason struct {
	Device *Device
	Why    string
}

// Choose finds the device that a rule means. A rule without a path means disks only, and exactly one has to fit. A path may
// also lead to a partition, or to what is made of disks.
func (m *Machine) Choose(rule identity.Device) Choice {
	c := Choice{Rule: rule}
	if rule.Path != "" {
		m.choosePath(&c)
	} else {
		m.chooseFacts(&c)
	}
	if c.Device != nil {
		c.Err = c.Device.Unusable()
	}
	return c
}

func (m *Machine) choosePath(c *Choice) {
	d, err := m.At(c.Rule.Path)
	if err != nil {
		c.Err = err
		return
	}
	named := d.Path == c.Rule.Path
	if over := m.over(d); over != nil {
		d = over
	}
	c.Warning = wanders(c.Rule, d, named)
	why := m.Never(d)
	if why == "" {
		why = differs(c.Rule, d)
	}
	if why != "" {
		c.Err = errkind.Errorf("device-other", "%s: %s", d.Path, why)
		c.Others = append(c.Others, Reason{d, why})
		return
	}
	c.Device = d
}

// lasting are the directories of udev's links in the order in which a rule should name a device: the place of a disk is the same
// on all nodes of a kind, and what it is called by is not.
var lasting = map[Kind][]string{
	Disk: {"disk/by-path/", "disk/by-id/"}, Partition: {"disk/by-path/", "disk/by-id/"}, Multipath: {"disk/by-id/", "mapper/"},
	Mapped: {"mapper/", "disk/by-id/"}, Raid: {"md/", "disk/by-id/"},
}

// wanders warns of a rule that means a device by the name that the kernel gave it in the order in which it found the devices.
// named says that its path is such a name. With a serial number or WWN the rule cannot mean another one.
func wanders(rule identity.Device, d *Device, named bool) string {
	if !named || rule.Serial != "" || rule.WWN != "" || d.Kind == Loop {
		return ""
	}
	text := fmt.Sprintf("path = %q may lead to another device after the next boot", rule.Path)
	for _, dir := range lasting[d.Kind] {
		for _, l := range d.Links {
			if strings.HasPrefix(l, "/dev/"+dir) {
				return fmt.Sprintf("%s; %q leads to this one", text, l)
			}
		}
	}
	return text + "; a serial or wwn beside it keeps that from being written"
}

func (m *Machine) chooseFacts(c *Choice) {
	var fit []*Device
	for _, d := range m.Devices {
		if d.Kind != Disk && d.Kind != Multipath && !m.testLoop(d) {
			continue
		}
		why := m.Never(d)
		if why == "" {
			why = differs(c.Rule, d)
		}
		if why != "" {
			c.Others = append(c.Others, Reason{d, why})
			continue
		}
		fit = append(fit, d)
	}
	switch len(fit) {
	case 1:
		c.Device = fit[0]
	case 0:
		c.Err = errkind.Errorf("device-none", "no disk fits: %s", list(c.Others))
	default:
		var names []string
		for _, d := range fit {
			names = append(names, d.Path)
			c.Others = append(c.Others, Reason{d, "fits, and is not the only one"})
		}
		c.Err = errkind.Errorf("device-several", "%d disks fit: %s", len(fit), strings.Join(names, ", "))
	}
}

// list says of the first few devices why they are not meant.
func list(reasons []Reason) string {
	const most = 6
	var texts []string
	for i, r := range reasons {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(reasons)-most))
			break
		}
		texts = append(texts, r.Device.Path+" "+r.Why)
	}
	if texts == nil {
		return "there is no disk"
	}
	return strings.Join(texts, "; ")
}

// multipath returns the device that a path of a disk, or a partition of that path, belongs to; nil is none.
func (m *Machine) multipath(d *Device) *Device {
	if d.Kind == Partition && d.MapName == "" {
		if d = m.Named(d.Parent); d == nil {
			return nil
		}
	}
	for _, holder := range d.held {
		if h := m.Named(holder); h != nil && h.Kind == Multipath {
			return h
		}
	}
	return nil
}

// over returns what counts in the place of a path of a disk, or of a partition of that path; nil is nothing. A partition never
// stands for a whole disk.
func (m *Machine) over(d *Device) *Device {
	whole := m.multipath(d)
	if whole == nil || d.Kind != Partition {
		return whole
	}
	for _, part := range m.Devices {
		if part.Kind == Partition && part.Parent == whole.Name && part.Partition == d.Partition {
			return part
		}
	}
	return nil
}

// Never says why no rule may ever mean a device, and returns "" if one may.
func (m *Machine) Never(d *Device) string {
	whole := d
	for whole.Kind == Partition && m.Named(whole.Parent) != nil {
		whole = m.Named(whole.Parent)
	}
	over := m.multipath(d)
	switch {
	case over != nil:
		return fmt.Sprintf("is a path of %s %s, which counts in its place", over.Name, over.MapName)
	case whole.Kind == Loop && !m.testLoop(whole):
		return "is a loop device"
	case whole.Kind == Memory:
		return "is in memory"
	case whole.Kind == Firmware:
		return "is for firmware"
	case whole.Kind == Optical || whole.Kind == Floppy:
		return "is a drive for media"
	case d.Removable:
		return "is removable"
	case len(d.System) > 0:
		return "has " + strings.Join(d.System, " and ") + " of this system on it"
	case d.Size == 0:
		return "has no medium"
	}
	return ""
}

// testLoop reports whether a loop device belongs to a test.
func (m *Machine) testLoop(d *Device) bool {
	dir := m.roots.Loops
	return dir != "" && d.Kind == Loop && strings.HasPrefix(d.Backing, filepath.Clean(dir)+"/")
}

// differs says in what a device is not as the rule says, and returns "" if it is.
func differs(rule identity.Device, d *Device) string {
	is := func(what, got, want string) string {
		if got == "" {
			return fmt.Sprintf("has no known %s, wanted is %q", what, want)
		}
		return fmt.Sprintf("has %s %q, wanted is %q", what, got, want)
	}
	switch {
	case rule.Bus != "" && rule.Bus != d.Bus:
		return is("bus", d.Bus, rule.Bus)
	case rule.Path == "" && rule.Bus == "" && d.Bus == "usb":
		return "is on USB, which the rule does not say"
	case rule.Model != "" && !like(d.Model, rule.Model):
		return is("model", d.Model, rule.Model)
	case rule.Serial != "" && rule.Serial != d.Serial:
		return is("serial", d.Serial, rule.Serial)
	case rule.WWN != "" && bareName(rule.WWN) != bareName(d.WWN):
		return is("wwn", d.WWN, rule.WWN)
	case !rule.Size.Has(d.Size):
		return fmt.Sprintf("has %s, wanted is %v", bytesize.Text(d.Size), rule.Size)
	}
	return ""
}

// like reports whether text is as a pattern says, in which a * stands for any characters and a ? for one.
func like(text, pattern string) bool {
	expr := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^(?s:" + expr + ")$").MatchString(text)
}

// bareName returns a world wide name without what tools write in front of it.
func bareName(wwn string) string {
	wwn = strings.ToLower(wwn)
	for _, prefix := range []string{"0x", "naa.", "eui.", "uuid.", "nvme."} {
		wwn = strings.TrimPrefix(wwn, prefix)
	}
	return wwn
}

// A BusyError says that a device is in use.
type BusyError struct{ Device *Device }

func (e *BusyError) Error() string { return e.Device.Path + " is busy: " + e.Device.Busy() }

// Kind returns a kind for each way in which a device can be in use. It is about the device and its first user.
func (e *BusyError) Kind() (errkind.Kind, []string) {
	if len(e.Device.Users) == 0 {
		return "device-busy", []string{e.Device.Path}
	}
	u := e.Device.Users[0]
	about := []string{"/dev/" + u.On, u.What}
	switch {
	case strings.HasPrefix(u.What, "mounted at "):
		return "device-mounted", about
	case strings.HasPrefix(u.What, "swap"):
		return "device-swap", about
	case strings.HasPrefix(u.What, "md"):
		return "device-md", []string{"/dev/" + u.What}
	}
	return "device-held", about
}

// Unusable returns an error if a device cannot be written now.
func (d *Device) Unusable() error {
	switch {
	case len(d.Users) > 0:
		return &BusyError{d}
	case d.ReadOnly:
		return errkind.About("device-readonly", d.Path, "%s is read-only", d.Path)
	}
	return nil
}
