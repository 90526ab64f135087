package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// makeSIF makes a SIF as the tools of others make it: Debian's busybox in a squashfs
// of mksquashfs, with so many bytes of ballast beside it, wrapped by sylabs' siftool.
func makeSIF(t *testing.T, name string, ballast int64) string {
	t.Helper()
	needPrograms(t, "mksquashfs", busybox)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if ballast > 0 {
		makeFile(t, filepath.Join(root, "ballast"), ballast)
	}
	squashfs := filepath.Join(dir, "root.squashfs")
	image := filepath.Join(dir, name)
	command(t, "mksquashfs", root, squashfs, "-noappend", "-no-progress", "-quiet", "-all-root", "-noD", "-noF")
	command(t, siftool, "new", image)
	command(t, siftool, "add", image, squashfs,
		"--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2", "--groupid", "1")
	os.RemoveAll(root)
	os.Remove(squashfs)
	return image
}

// makeFile makes a file of random bytes.
func makeFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func command(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// partitionOffset finds where the squashfs of a SIF lies: siftool shows the position
// of the first descriptor's data in the line "Fileoff".
func partitionOffset(t *testing.T, image string) int64 {
	t.Helper()
	for line := range strings.Lines(command(t, siftool, "info", "1", image)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.Contains(name, "Offset") {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("siftool shows no offset")
	return 0
}

// runsBusybox mounts the SIF and runs what is in it.
func runsBusybox(t *testing.T, ctx context.Context, image string) {
	t.Helper()
	at := t.TempDir()
	command(t, "squashfuse", "-o", "offset="+strconv.FormatInt(partitionOffset(t, image), 10), image, at)
	defer command(t, "fusermount3", "-u", at)
	out, err := exec.CommandContext(ctx, filepath.Join(at, "bin/busybox"), "echo", "from", "the", "image").CombinedOutput()
	if err != nil || string(out) != "from the image\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// events reads what --json prints.
func events(t *testing.T, output string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(output) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("not JSON: %s", line)
			continue
		}
		all = append(all, e)
	}
	return all
}
