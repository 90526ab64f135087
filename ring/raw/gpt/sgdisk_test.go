//go:build linux

package gpt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func demand(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// output runs a program that changes or reads a file of the test, and returns what it printed.
func output(stdin, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", program, args, err, out)
	}
	return string(out), err
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := output("", program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sgdisk runs sgdisk on a file, through a loop device where the sectors are not those that it takes a file to have.
// It leaves args as they are: several call it with the same.
func sgdisk(t *testing.T, file string, sector int64, args ...string) (string, error) {
	t.Helper()
	if sector == 512 {
		return output("", "sgdisk", slices.Concat(args, []string{file})...)
	}
	d := loopdev.Over(t, file, loopdev.Options{Sector: int(sector)})
	out, err := output("", "sgdisk", slices.Concat(args, []string{d.Path})...)
	return out, errors.Join(err, d.Detach())
}

// sparse makes a file of so many bytes.
func sparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copyOnto makes a sparse file of so many bytes that begins with an image.
func copyOnto(t *testing.T, image, file string, size int64) string {
	t.Helper()
	_, err := output("", "cp", "--sparse=always", image, file)
	if err := errors.Join(err, os.Truncate(file, size)); err != nil {
		t.Error(err)
	}
	return file
}

// same compares two sparse files of the same size, without reading their holes, and returns the first byte that differs, or -1.
func same(t *testing.T, a, b string) int64 {
	t.Helper()
	files := [2]*os.File{}
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	const step = 1 << 20
	var bufs [2][step]byte
	for off := int64(0); ; off += step {
		next := int64(-1)
		for _, f := range files {
			at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
			if err == unix.ENXIO {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if next < 0 || at < next {
				next = at
			}
		}
		if next < 0 {
			return -1
		}
		off = next / step * step
		var n [2]int
		for i, f := range files {
			var err error
			if n[i], err = f.ReadAt(bufs[i][:], off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		for k := range max(n[0], n[1]) {
			if k >= min(n[0], n[1]) || bufs[0][k] != bufs[1][k] {
				return off + int64(k)
			}
		}
	}
}

// A made image is one that sgdisk or sfdisk has made.
type made struct {
	name   string
	sector int64
	size   int64
	args   []string // of sgdisk
	sfdisk string   // what it reads, instead
	parts  int
	hybrid bool
}

func madeImages() []made {
	const mib = 1 << 20
	many := []string{"-a", "1"}
	for i := range 128 {
		many = append(many, "-n", fmt.Sprintf("%d:%d:+63", i+1, 64+i*100), "-c", fmt.Sprintf("%d:part %d", i+1, i+1))
	}
	two := []string{"-n", "1:2048:+8M", "-t", "1:ef00", "-n", "2:0:+20M", "-c", "2:root"}
	return []made{
		{name: "none", sector: 512, size: 16 * mib, args: []string{"-o"}},
		{name: "one", sector: 512, size: 64 * mib, args: []string{"-n", "1:0:0"}, parts: 1},
		{name: "four", sector: 512, size: 64 * mib, args: append(two[:len(two):len(two)], "-n", "7:0:+1M", "-n", "3:0:+1M"), parts: 4},
		{name: "many", sector: 512, size: 64 * mib, args: many, parts: 128},
		{name: "hybrid", sector: 512, size: 64 * mib, args: append(two[:len(two):len(two)], "-h", "1:2"), parts: 2, hybrid: true},
		{name: "odd", sector: 512, size: 64*mib + 7*512, args: append(two[:len(two):len(two)], "-a", "1", "-n", "3:40:77"), parts: 3},
		{name: "small-table", sector: 512, size: 64 * mib, args: append([]string{"-S", "4"}, two...), parts: 2},
		{name: "large-table", sector: 512, size: 64 * mib, args: append([]string{"-S", "1024"}, two...), parts: 2},
		{name: "moved-table", sector: 512, size: 64 * mib, args: append([]string{"-j", "500"}, two...), parts: 2},
		{name: "gap", sector: 512, size: 64 * mib, sfdisk: "label: gpt\n2048,16384,L\n,8192\n", parts: 2},
		{name: "4k", sector: 4096, size: 64 * mib, args: []string{"-n", "1:256:+8M", "-n", "2:0:+20M"}, parts: 2},
		{name: "4k-many", sector: 4096, size: 64 * mib, args: many, parts: 128},
	}
}

// make makes the image, and what sgdisk makes of it on disks of these sizes, by their names. sgdisk sleeps for a second
// whenever it has written, so all of it is done at once.
func (m made) make(t *testing.T, dir string, sizes map[string]int64) (image string, err error) {
	image = filepath.Join(dir, "image")
	if err := sparse(image, m.size); err != nil {
		return "", err
	}
	if m.sfdisk != "" {
		_, err := output(m.sfdisk, "sfdisk", "-q", image)
		return image, err
	}
	if _, err := sgdisk(t, image, m.sector, m.args...); err != nil {
		return "", err
	}
	var work errgroup.Group
	for name, size := range sizes {
		work.Go(func() error {
			_, err := sgdisk(t, copyOnto(t, image, filepath.Join(dir, name+"-e"), size), m.sector, "-e")
			return err
		})
	}
	return image, work.Wait()
}

// printed are the partitions that sgdisk finds.
func printed(t *testing.T, file string, sector int64) (list []Partition) {
	t.Helper()
	out, err := sgdisk(t, file, sector, "-p")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		first, err1 := strconv.ParseInt(f[1], 10, 64)
		last, err2 := strconv.ParseInt(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, Partition{Number: n, Start: first * sector, Size: (last - first + 1) * sector, Name: strings.Join(f[6:], " ")})
	}
	return list
}

func readFile(t *testing.T, file string, sector int64) (*Table, error) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Read(f, info.Size(), sector)
}

// Every image that sgdisk and sfdisk make is valid on every larger disk: in the eyes of sgdisk, and of Read. Where sgdisk
// made it, the disk is byte for byte what "sgdisk -e" makes of it; otherwise nothing but the patches has changed.
func TestPatchesLikeSgdisk(t *testing.T) {
	for _, program := range []string{"sgdisk", "sfdisk"} {
		_, err := exec.LookPath(program)
		demand(t, err)
	}
	images := madeImages()
	files := make([]string, len(images))
	sizes := make([]map[string]int64, len(images))
	dir := t.TempDir()
	var work errgroup.Group
	for i, m := range images {
		sizes[i] = map[string]int64{
			"same": m.size, "sector": m.size + m.sector, "MiB": m.size + 1<<20 - m.sector, "twice": 2 * m.size, "3TiB": 3 << 40,
		}
		work.Go(func() (err error) {
			own := filepath.Join(dir, m.name)
			if err := os.Mkdir(own, 0o755); err != nil {
				return err
			}
			files[i], err = m.make(t, own, sizes[i])
			return err
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, m := range images {
		t.Run(m.name, func(t *testing.T) {
			for name, size := range sizes[i] {
				m.check(t, files[i], name, size)
			}
		})
	}
}

// check compares an image on one disk.
func (m made) check(t *testing.T, image, name string, size int64) {
	dir := filepath.Dir(image)
	disk := copyOnto(t, image, filepath.Join(dir, name), size)
	patches, notes := patchesOf(t, image, size, m.sector)
	write(t, disk, patches)
	if (m.hybrid && size > m.size) != (len(notes) > 0) || (size > m.size) != (len(patches) > 0) {
		t.Errorf("%s: %d patches, notes %q", name, len(patches), notes)
	}
	if out, err := sgdisk(t, disk, m.sector, "-v"); err != nil || !strings.Contains(out, "No problems found") {
		t.Errorf("%s: sgdisk -v says:\n%s%v", name, out, err)
	}
	table, err := readFile(t, disk, m.sector)
	if err != nil || table.Scheme != GPT || table.Hybrid != m.hybrid || len(table.Partitions) != m.parts {
		t.Fatalf("%s: %v", name, err)
	}
	if want := printed(t, disk, m.sector); !slices.Equal(table.Partitions, want) {
		t.Errorf("%s: partitions %v, sgdisk finds %v", name, table.Partitions, want)
	}
	// Where sectors are free before the first usable one, sgdisk keeps as many at the end.
	if m.sfdisk == "" && m.name != "moved-table" {
		if at := same(t, disk, filepath.Join(dir, name+"-e")); at >= 0 {
			t.Errorf("%s: byte %d is not what sgdisk -e makes it", name, at)
		}
	}
	// The patches taken back, it is the image and zeros.
	restore(t, image, patches)
	write(t, disk, patches)
	if at := same(t, disk, copyOnto(t, image, filepath.Join(dir, "clone"), size)); at >= 0 {
		t.Errorf("%s: byte %d changed without a patch", name, at)
	}
}

// patchesOf returns the patches for the image in a file.
func patchesOf(t *testing.T, image string, target, sector int64) (patches []Patch, notes []string) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	patches, notes, err = Patches(f, info.Size(), target, sector)
	if err != nil {
		t.Fatal(err)
	}
	return patches, notes
}

func write(t *testing.T, disk string, patches []Patch) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range patches {
		if _, err := f.WriteAt(p.Bytes, p.Off); err != nil {
			t.Fatal(err)
		}
	}
}

// restore puts into patches what the image has there, and zeros behind it.
func restore(t *testing.T, image string, patches []Patch) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, p := range patches {
		patches[i].Bytes = make([]byte, len(p.Bytes))
		if _, err := f.ReadAt(patches[i].Bytes, p.Off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
}

// An MBR with logical partitions is read as sfdisk reads it.
func TestReadLikeSfdisk(t *testing.T) {
	_, err := exec.LookPath("sfdisk")
	demand(t, err)
	file := filepath.Join(t.TempDir(), "mbr")
	err1 := sparse(file, 64<<20)
	_, err2 := output("label: dos\n2048,8192,L\n,16384,S\n,,E\n,4096,L\n,8192,L\n,,L\n", "sfdisk", "-q", file)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	table, err := readFile(t, file, 512)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, p := range table.Partitions {
		fmt.Fprintf(&got, "%s%d : start= %d, size= %d\n", file, p.Number, p.Start/512, p.Size/512)
	}
	var want strings.Builder
	for line := range strings.Lines(run(t, "sfdisk", "-d", file)) {
		if fields, _, ok := strings.Cut(line, ", type="); ok {
			want.WriteString(strings.Join(strings.Fields(fields), " ") + "\n")
		}
	}
	if len(table.Partitions) != 6 || got.String() != want.String() {
		t.Errorf("got\n%swant\n%s", &got, &want)
	}
}
