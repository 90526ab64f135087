package disk

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// Bounds of what is looked at to find out who keeps a device.
const (
	maxProcesses  = 1 << 16
	maxNamespaces = 1 << 10
	maxMountinfo  = 4 << 20 // bytes of each
	maxOpenFiles  = 1 << 18 // of all processes
)

// elsewhere says what uses a device that this process sees nobody use: what keptElsewhere says; or a program that has it open. It returns
// "" where nothing is found, or may be looked at.
func (m *Machine) elsewhere(d *Device) string {
	return cmp.Or(m.keptElsewhere(d), m.openElsewhere(m.sharers(d), m.processes()))
}

// keptElsewhere says what surely keeps a device from being opened by somebody for his own: a file system that is mounted in another mount
// namespace, such as that of a container, or a loop device over it.
func (m *Machine) keptElsewhere(d *Device) string {
	on := m.sharers(d)
	if text := m.mountedElsewhere(on, m.processes()); text != "" {
		return text
	}
	for _, loop := range m.Devices {
		if !strings.HasPrefix(loop.Backing, "/dev/") { // looking at a file may take for ever, as over a network that is gone
			continue
		}
		if number, err := m.roots.Number(m.roots.dev(loop.Backing)); err == nil && slices.ContainsFunc(on, func(o *Device) bool { return o.Number == number }) {
			return loop.Name + ", a loop device over it"
		}
	}
	return ""
}

// sharers are the devices of which one in use keeps d from being opened for its own: itself, its partitions, and the disk that it is on.
func (m *Machine) sharers(d *Device) (on []*Device) {
	for _, o := range m.Devices {
		if o == d || o.Parent == d.Name && o.MapName == "" || d.Parent == o.Name && d.MapName == "" {
			on = append(on, o)
		}
	}
	return on
}

// processes are the directories of processes in /proc.
func (m *Machine) processes() []string {
	all, _ := filepath.Glob(filepath.Join(m.roots.Proc, "[0-9]*")) // the pattern is good
	return all[:min(len(all), maxProcesses)]
}

// mountedElsewhere looks for a mount in each mount namespace once.
func (m *Machine) mountedElsewhere(on []*Device, processes []string) string {
	seen := map[string]bool{}
	for _, p := range processes {
		space, err := os.Readlink(filepath.Join(p, "ns/mnt"))
		if err != nil || seen[space] || len(seen) >= maxNamespaces {
			continue
		}
		seen[space] = true
		f, err := os.Open(filepath.Join(p, "mountinfo"))
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(f, maxMountinfo))
		f.Close()
		for _, at := range mountsIn(string(text)) {
			for _, d := range m.under(at) {
				if slices.Contains(on, d) {
					return fmt.Sprintf("%s is mounted at %s in the mount namespace of %s", d.Path, at.at, processName(p))
				}
			}
		}
	}
	return ""
}

// openElsewhere looks for a process that has one of the devices open.
func (m *Machine) openElsewhere(on []*Device, processes []string) string {
	looked := 0
	for _, p := range processes {
		dir, err := os.Open(filepath.Join(p, "fd"))
		if err != nil {
			continue
		}
		names, _ := dir.Readdirnames(maxOpenFiles - looked)
		dir.Close()
		if looked += len(names); looked >= maxOpenFiles {
			return ""
		}
		for _, name := range names {
			to, err := os.Readlink(filepath.Join(p, "fd", name))
			if err != nil {
				continue
			}
			for _, d := range on {
				if to == d.Path {
					return fmt.Sprintf("%s is open in %s", d.Path, processName(p))
				}
			}
		}
	}
	return ""
}

// processName names the process of a directory in /proc, as in "process 12 (qemu)".
func processName(dir string) string {
	number := filepath.Base(dir)
	if number == strconv.Itoa(os.Getpid()) {
		return "this process"
	}
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "process " + number
	}
	return fmt.Sprintf("process %s (%s)", number, printable.Line(strings.TrimSpace(strings.ToValidUTF8(string(name), "\uFFFD"))))
}
