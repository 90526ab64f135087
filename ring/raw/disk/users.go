package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// mount is a line of mountinfo.
type mount struct {
	number, at, source string
	// readOnly is said of the file system, which may be mounted elsewhere, too, and not of the place.
	readOnly bool
}

// use notes what uses each device: mounts, swap, and the devices that are made of it.
func (m *Machine) use() error {
	mounts, err := m.mounts()
	if err != nil {
		return err
	}
	direct := map[*Device][]User{}
	system := map[*Device][]string{}
	add := func(d *Device, what, part string, readOnly bool) {
		direct[d] = append(direct[d], User{what, d.Name, readOnly})
		if part != "" {
			system[d] = append(system[d], part)
		}
	}
	seen := map[string]bool{} // a file system that is mounted at one place twice
	for _, at := range mounts {
		for _, d := range m.under(at) {
			if key := d.Name + " " + at.at; !seen[key] {
				seen[key] = true
				add(d, "mounted at "+at.at, partOf(at.at), at.readOnly)
			}
		}
	}
	for _, at := range m.swaps() {
		if number, err := m.roots.Number(m.roots.dev(at)); err == nil && strings.HasPrefix(at, "/dev/") {
			if d := m.Numbered(number); d != nil {
				add(d, "swap", "swap", false)
			}
			continue
		}
		if fs, ok := mountOf(mounts, at); ok {
			for _, d := range m.under(fs) {
				add(d, "swap in "+at, "swap", false)
			}
		}
	}
	for _, d := range m.Devices {
		for _, holder := range d.held {
			text := holder
			if h := m.Named(holder); h != nil && h.MapName != "" {
				text += " " + h.MapName
			}
			add(d, text, "", false)
		}
	}
	for _, d := range m.Devices {
		for _, part := range m.Devices {
			if part == d || part.Parent == d.Name && part.MapName == "" || d.Parent == part.Name && d.MapName == "" {
				d.Users = append(d.Users, direct[part]...)
			}
		}
		above := m.above(d)
		for _, part := range []string{"root", "boot", "swap"} {
			if slices.ContainsFunc(above, func(on *Device) bool { return slices.Contains(system[on], part) }) {
				d.System = append(d.System, part)
			}
		}
	}
	return nil
}

// partOf says which part of the system is mounted at a path.
func partOf(at string) string {
	switch at {
	case "/", "/usr":
		return "root"
	case "/boot", "/efi", "/boot/efi", "/boot/firmware":
		return "boot"
	}
	return ""
}

// above returns the device and everything that is made of it or of a part of it.
func (m *Machine) above(d *Device) []*Device {
	all := []*Device{d}
	for i := 0; i < len(all); i++ {
		for _, next := range m.Devices {
			if (next.Parent == all[i].Name || slices.Contains(all[i].held, next.Name)) && !slices.Contains(all, next) {
				all = append(all, next)
			}
		}
	}
	return all
}

// under returns the devices on which a file system is. Btrfs has a number that is no device's, and may be on several devices.
func (m *Machine) under(at mount) []*Device {
	d := m.Numbered(at.number)
	if d == nil && strings.HasPrefix(at.source, "/dev/") {
		d, _ = m.At(at.source)
	}
	if d == nil {
		return nil
	}
	pools := node(filepath.Join(m.roots.Sys, "fs/btrfs"))
	for _, pool := range pools.list("") {
		names := pools.list(filepath.Join(pool, "devices"))
		if !slices.Contains(names, d.Name) {
			continue
		}
		var all []*Device
		for _, name := range names {
			if member := m.Named(name); member != nil {
				all = append(all, member)
			}
		}
		return all
	}
	return []*Device{d}
}

// mounts reads the mounts of this process (proc_pid_mountinfo(5)).
func (m *Machine) mounts() ([]mount, error) {
	text, err := os.ReadFile(filepath.Join(m.roots.Proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	return mountsIn(string(text)), nil
}

// mountsIn reads the text of a mountinfo.
func mountsIn(text string) (list []mount) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		readOnly := len(right) > 2 && slices.Contains(strings.Split(right[2], ","), "ro")
		list = append(list, mount{left[2], unescape(left[4]), unescape(right[1]), readOnly})
	}
	return list
}

// mountOf returns the mount in which a file is.
func mountOf(mounts []mount, file string) (found mount, ok bool) {
	for _, at := range mounts {
		dir := strings.TrimSuffix(at.at, "/") + "/"
		if strings.HasPrefix(file, dir) && len(at.at) >= len(found.at) {
			found, ok = at, true
		}
	}
	return found, ok
}

// swaps returns the devices and files that are swapped to (proc_swaps(5)).
func (m *Machine) swaps() (list []string) {
	text, _ := os.ReadFile(filepath.Join(m.roots.Proc, "swaps")) // a kernel without swap has no such file
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "/") {
			list = append(list, unescape(strings.Fields(line)[0]))
		}
	}
	return list
}

// unescape reads the escapes of both files, a backslash with three octal digits, and makes the rest printable.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return printable.Escape(strings.ToValidUTF8(b.String(), "\uFFFD"))
}
