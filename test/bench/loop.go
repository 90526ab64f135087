package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// loops are loop devices over files of this program, and file systems on them.
type loops struct {
	mounts, devices []string
}

// attach makes a loop device of a file that lies in place.
func (l *loops) attach(ctx context.Context, file string, in place) (device string, err error) {
	args := []string{"-f", "--show", file}
	if !in.memory {
		args = append(args, "--direct-io=on") // as a disk has it: without, what is read stays in memory, and so does what is written
	}
	out, err := exec.CommandContext(ctx, "losetup", args...).Output()
	if err != nil {
		return "", fmt.Errorf("losetup: %w", err)
	}
	device = strings.TrimSpace(string(out))
	l.devices = append(l.devices, device)
	return device, nil
}

// mount makes a file system on a loop device, and mounts it on the new directory at.
func (l *loops) mount(ctx context.Context, device, at string, mkfs ...string) error {
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	for _, words := range [][]string{append(mkfs, device), {"mount", device, at}} {
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
		}
	}
	l.mounts = append(l.mounts, at)
	return nil
}

// close undoes all of it, when nobody uses it any more.
func (l *loops) close() (err error) {
	for _, at := range l.mounts {
		err = errors.Join(err, unix.Unmount(at, 0))
	}
	for _, device := range l.devices {
		err = errors.Join(err, exec.Command("losetup", "-d", device).Run())
	}
	return err
}

// writtenTo returns how many bytes were written to a loop device or discarded on it since it is there
// (Documentation/block/stat.rst).
func writtenTo(device string) (n int64, err error) {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	for _, i := range []int{6, 13} {
		sectors, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		n += 512 * sectors
	}
	return n, nil
}
