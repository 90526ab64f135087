package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// Devices is what a node's policy means on its machine.
type Devices struct {
	// Policy is the path of the policy file. Found is false if there is none.
	Policy string
	Found  bool
	// Rules has an entry for each rule, in the order of the file.
	Rules []RuleDevice
	// Others are the devices that no rule picks.
	Others []OtherDevice
}

// RuleDevice is what one rule means.
type RuleDevice struct {
	disk.Choice
	// Facts is what the device holds, and nil if there is none or it cannot be read.
	Facts *disk.Facts
	// Twice names other rules that pick the same device.
	Twice []string
}

// Usable reports whether a transfer could write the device now.
func (r RuleDevice) Usable() bool { return r.Device != nil && r.Err == nil }

// OtherDevice is a device that no rule picks. Never says why none may ever, and is "" if one could.
type OtherDevice struct {
	*disk.Device
	Never string
}

// FindDevices finds the devices that the policy beside the keys in dir means; "" is the usual directory.
func FindDevices(dir string) (*Devices, error) {
	dir, err := nodeKeys(dir)
	if err != nil {
		return nil, err
	}
	policy, err := identity.LoadPolicy(dir)
	if err != nil {
		return nil, err
	}
	m, err := devices().Scan()
	if err != nil {
		return nil, err
	}
	return devicesOf(policy, m), nil
}

func devicesOf(policy *identity.Policy, m *disk.Machine) *Devices {
	var d Devices
	d.Policy, d.Found = policy.File()
	picked := map[*disk.Device][]string{}
	for _, rule := range policy.Devices {
		r := RuleDevice{Choice: m.Choose(rule)}
		if r.Device != nil {
			picked[r.Device] = append(picked[r.Device], rule.Called())
			var err error
			if r.Facts, err = m.Look(rule, r.Device); err != nil && r.Err == nil {
				r.Err = err
			}
		}
		d.Rules = append(d.Rules, r)
	}
	for i := range d.Rules {
		for _, name := range picked[d.Rules[i].Device] {
			if name != d.Rules[i].Rule.Called() {
				d.Rules[i].Twice = append(d.Rules[i].Twice, name)
			}
		}
	}
	for _, other := range m.Devices {
		empty := other.Size == 0 && (other.Kind == disk.Loop || other.Kind == disk.Memory)
		if picked[other] == nil && !empty {
			d.Others = append(d.Others, OtherDevice{other, m.Never(other)})
		}
	}
	return &d
}

// devices returns what the log says about each device that a policy names and that is there.
func (s *Node) devices(p *identity.Policy) (lines [][]any) {
	m, err := scanFor(p)
	if err != nil {
		return nil
	}
	for _, rule := range p.Devices {
		if c := m.Choose(rule); c.Device != nil {
			lines = append(lines, []any{"rule", rule.Called(), "is", c.Device.Path, "model", c.Device.Model, "serial", c.Device.Serial, "size", c.Device.Size})
		}
	}
	return lines
}

// scanFor looks at the devices if a policy names any.
func scanFor(p *identity.Policy) (*disk.Machine, error) {
	if len(p.Devices) == 0 {
		return &disk.Machine{}, nil
	}
	return devices().Scan()
}

// unusableDevices returns a line for each device that a policy names and that is not there, cannot be used, or may be another one
// after a boot, and what this process lacks.
func unusableDevices(p *identity.Policy) (warnings []string) {
	m, err := scanFor(p)
	if err != nil {
		return []string{err.Error()}
	}
	opened := false
	for _, rule := range p.Devices {
		c := m.Choose(rule)
		if c.Warning != "" {
			warnings = append(warnings, rule.Called()+": "+c.Warning)
		}
		if c.Device != nil && c.Err == nil {
			_, c.Err = m.Look(rule, c.Device)
			opened = opened || c.Err == nil
		}
		if c.Err != nil {
			warnings = append(warnings, named(rule.Called(), c.Err).Error())
		}
	}
	if opened && !maySysAdmin() {
		warnings = append(warnings, "devices: without CAP_SYS_ADMIN the kernel reads a new partition table once udev asks it to; in the unit: CapabilityBoundingSet=CAP_SYS_ADMIN")
	}
	return warnings
}

// named returns an error with the name of an output in front, unless it begins with it.
func named(output string, err error) error {
	if strings.HasPrefix(err.Error(), output) {
		return err
	}
	return fmt.Errorf("%s: %w", output, err)
}

// maySysAdmin reports whether this process has CAP_SYS_ADMIN (proc_pid_status(5), CapEff).
func maySysAdmin() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true // nobody knows
	}
	for line := range strings.Lines(string(text)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err != nil || set&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	return true
}
