package identity

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/tomlkeys"
)

// Device permits one block device: the one at Path, or without a Path the only disk that fits all the rest. With a Path the
// rest has to fit, too.
type Device struct {
	// Name is what a sender calls the device. It is "" of one that is called by its path.
	Name string
	// Path is below /dev, absolute and clean, in the sense of filepath.Clean.
	Path string
	// Model and Serial are those of the disk. In Model a * stands for any characters, and a ? for one.
	Model, Serial string
	// WWN is the world wide name.
	WWN string
	// Bus is one of Buses.
	Bus string
	// Size is how large the disk is.
	Size Sizes
}

// Sizes are the bytes that something may have. The zero Sizes are any.
type Sizes struct{ Least, Most int64 }

// Has reports whether n is one of these sizes.
func (s Sizes) Has(n int64) bool { return s == Sizes{} || n >= s.Least && n <= s.Most }

func (s Sizes) String() string {
	if s == (Sizes{}) {
		return "any"
	}
	most := ""
	if s.Most < math.MaxInt64 {
		most = bytesize.Text(s.Most)
	}
	return bytesize.Text(s.Least) + ".." + most
}

// Buses are the ways in which a disk is connected, as a rule may name them.
var Buses = []string{"fc", "hyperv", "iscsi", "mmc", "nvme", "sas", "sata", "scsi", "usb", "virtio", "xen"}

// deviceName matches the names that a rule may have. A sender writes them behind "device:".
var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Called returns what a sender names the device with.
func (d Device) Called() string {
	if d.Name == "" {
		return d.Path
	}
	return "device:" + d.Name
}

// device reads one of the tables [[device]].
func (r *policyReader) device(at string, item map[string]any) {
	var d Device
	var size string
	set := map[string]func(v any) error{
		"name": func(v any) error {
			return errors.Join(tomlkeys.Text(v, &d.Name), r.checkName(v))
		},
		"path": func(v any) error {
			if err := tomlkeys.Text(v, &d.Path); err != nil {
				return err
			}
			return r.checkDevice(d.Path)
		},
		"model":  func(v any) error { return filled(v, &d.Model) },
		"serial": func(v any) error { return filled(v, &d.Serial) },
		"wwn":    func(v any) error { return filled(v, &d.WWN) },
		"bus": func(v any) error {
			if err := tomlkeys.Text(v, &d.Bus); err != nil || slices.Contains(Buses, d.Bus) {
				return err
			}
			return fmt.Errorf("want one of %s", strings.Join(Buses, ", "))
		},
		"size": func(v any) (err error) {
			if err = tomlkeys.Text(v, &size); err == nil {
				d.Size, err = parseSizes(size)
			}
			return err
		},
	}
	before := len(r.errs)
	for _, key := range slices.Sorted(maps.Keys(item)) {
		if set[key] == nil {
			r.unknown(at+"."+key, "device."+key, slices.Sorted(maps.Keys(set)))
		} else if err := set[key](item[key]); err != nil {
			r.fail(at+"."+key, fmt.Errorf("%s = %s: %w", key, tomlkeys.Shown(item[key]), err))
		}
	}
	rest := d
	rest.Name = ""
	switch {
	case len(r.errs) > before:
	case rest == Device{}:
		r.fail(at, errors.New("[[device]] needs a path, or what the disk has: model, serial, wwn, size, bus"))
	case d.Path == "" && d.Name == "":
		r.fail(at, errors.New("[[device]] needs a name where it has no path, as in name = \"scratch\""))
	}
	r.policy.Devices = append(r.policy.Devices, d)
}

// filled reads a text that must not be empty, because an empty one would mean any.
func filled(v any, to *string) error {
	if err := tomlkeys.Text(v, to); err != nil {
		return err
	}
	if strings.TrimSpace(*to) != *to || *to == "" {
		return errors.New("want a text without blanks around it")
	}
	return nil
}

func (r *policyReader) checkName(v any) error {
	name, ok := v.(string)
	switch {
	case !ok:
		return nil
	case !deviceName.MatchString(name):
		return errors.New("want letters, digits, dots, dashes and underscores, and a letter or digit first")
	case r.seen["device:"+name]:
		return errors.New("given twice")
	}
	r.seen["device:"+name] = true
	return nil
}

func (r *policyReader) checkDevice(path string) error {
	if err := r.checkPath(path); err != nil {
		return err
	}
	if !strings.HasPrefix(path, "/dev/") {
		return errors.New("want a path below /dev")
	}
	return nil
}

// parseSizes reads "900G..1T". Either end may be missing.
func parseSizes(s string) (Sizes, error) {
	least, most, ok := strings.Cut(s, "..")
	if !ok || least == "" && most == "" {
		return Sizes{}, errors.New("want a range, as in \"900G..1T\": disks of one model may differ in size")
	}
	sizes := Sizes{Most: math.MaxInt64}
	var err error
	if least != "" {
		if sizes.Least, err = bytesize.Parse(least); err != nil {
			return Sizes{}, err
		}
	}
	if most != "" {
		if sizes.Most, err = bytesize.Parse(most); err != nil {
			return Sizes{}, err
		}
	}
	if sizes.Least > sizes.Most || sizes.Most == 0 {
		return Sizes{}, errors.New("no size is in this range")
	}
	return sizes, nil
}

// Device returns the rule that permits what a sender calls output: "device:" and a name, or a path below /dev that the policy
// lists. If there is none the error is a *DeviceDeniedError. A nil Policy permits nothing.
func (p *Policy) Device(output string) (Device, error) {
	denied := &DeviceDeniedError{Output: output, File: policyFile}
	if p != nil {
		for _, d := range p.Devices {
			if d.Called() == output || d.Path != "" && d.Path == output {
				return d, nil
			}
			denied.permitted = append(denied.permitted, d.Called())
		}
		if p.path != "" {
			denied.File = p.path
		}
	}
	return Device{}, denied
}

// IsDeviceName reports whether a rule of a policy may have this name.
func IsDeviceName(name string) bool { return deviceName.MatchString(name) }

// IsDevice reports whether a sender who names an output means a block device. Below /dev/shm there are files.
func IsDevice(output string) bool {
	clean := filepath.Clean(output) + "/"
	return strings.HasPrefix(output, "device:") || strings.HasPrefix(clean, "/dev/") && clean != "/dev/" && !strings.HasPrefix(clean, "/dev/shm/")
}

// A DeviceDeniedError says that a node's policy does not name a device.
type DeviceDeniedError struct {
	// Output is what was asked for, File the path of the policy.
	Output, File string

	permitted []string // what the policy does name
}

func (e *DeviceDeniedError) Error() string {
	text := fmt.Sprintf("%s: the policy of this node names no such device", e.Output)
	if len(e.permitted) > 0 {
		text += ", but " + strings.Join(e.permitted, ", ")
	}
	return text
}

// Kind returns a kind that says what would permit the device. It is about the output and the file of the policy.
func (e *DeviceDeniedError) Kind() (errkind.Kind, []string) {
	return "device-denied", []string{e.Output, e.File}
}
