package disk

import (
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

// elsewhere says what uses a device that this process sees nobody use: a file system that is mounted in another mount namespace, such as
// that of a container; a loop device over it; or a program that has it open. It returns "" where nothing is found, or may be looked at.
func (m *Machine) elsewhere(d *Device) string {
	var on []*Device // of which one in use keeps d from being opened for its own
	for _, o := range m.Devices {
		if o == d || o.Parent == d.Name && o.MapName == "" || d.Parent == o.Name && d.MapName == "" {
			on = append(on, o)
		}
	}
	processes, _ := filepath.Glob(filepath.Join(m.roots.Proc, "[0-9]*"))
	processes = processes[:min(len(processes), maxProcesses)]
	if text := m.mountedElsewhere(on, processes); text != "" {
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
	return m.openElsewhere(on, processes)
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
