package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/sif"
)

const supported = "this version pushes SIF files; any file can be sent as it is with: dolly-img raw"

// checkImage says what IMAGE is if it is no SIF. A path is told by its content, not
// by its name; what the content says a SIF is, package sif checks.
func checkImage(image string) error {
	info, err := os.Stat(image)
	if err != nil {
		if transport, _, ok := strings.Cut(image, ":"); ok && isTransport(transport) {
			return hintf(supported, "%s: %s images are not supported", image, transport)
		}
		return hintf("IMAGE is the path of a SIF file", "image: %w", err)
	}
	switch {
	case info.IsDir():
		if _, err := os.Stat(filepath.Join(image, "oci-layout")); err == nil {
			return hintf(supported, "image %s is an OCI layout, not a SIF file", image)
		}
		return hintf(supported, "image %s is a directory, not a SIF file", image)
	case !info.Mode().IsRegular():
		return hintf(supported, "image %s is not a regular file", image)
	case info.Size() == 0:
		return hintf("copy or build it again", "image %s is empty", image)
	}
	head, err := readHead(image)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if !sif.Is(head) {
		return hintf(supported, "image %s is %s, not a SIF file", image, describe(head))
	}
	return nil
}

func isTransport(s string) bool {
	switch s {
	case "docker", "oras", "oci", "oci-archive", "docker-archive", "library", "shub":
		return true
	}
	return false
}

const headSize = 512 // the first block of a tar

func readHead(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return nil, err
	}
	return head[:n], nil
}

// describe names what a file is that starts with head.
func describe(head []byte) string {
	for _, kind := range []struct {
		magic string
		at    int
		what  string
	}{
		{"ustar", 257, "a tar archive, perhaps of an OCI or Docker image"},
		{"\x1f\x8b", 0, "compressed with gzip"},
		{"\x28\xb5\x2f\xfd", 0, "compressed with zstd"},
		{"\xfd7zXZ\x00", 0, "compressed with xz"},
		{"hsqs", 0, "a bare squashfs"},
		{"\x7fELF", 0, "a program"},
		{"QFI\xfb", 0, "a qcow2 disk image"},
		{"#!", 0, "a script"},
	} {
		if len(head) >= kind.at && bytes.HasPrefix(head[kind.at:], []byte(kind.magic)) {
			return kind.what
		}
	}
	if !bytes.ContainsFunc(head, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\r' }) {
		return "text"
	}
	return "of an unknown kind"
}
