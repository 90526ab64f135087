package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/hinted"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/sif"
)

const supported = "push takes SIF files, OCI and Docker archives, oci:DIR, docker:// and oras://; any file can be sent as it is with: dolly-img raw"

// What a path may be, beside the transports of package oci.
const (
	kindSIF = "sif"
	kindTar = "tar" // or something compressed, that may be one
)

// sniff says what is at a path: kindSIF, kindTar or "oci", a layout. A path is told by its
// content, not by its name; what the content says a SIF is, package sif checks.
func sniff(image string) (kind string, err error) {
	info, err := os.Stat(image)
	if err != nil {
		switch transport, _, _ := strings.Cut(image, ":"); {
		case transport == "library" || transport == "shub":
			return "", hinted.Errorf("apptainer pull it, and push the file", "%s: %s images are not supported", image, transport)
		case transport == "containers-storage" || transport == "docker-daemon":
			return "", hinted.Errorf("podman save or docker save it into a file, and push that", "%s: %s images are not supported", image, transport)
		case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(image, ":@") && !strings.Contains(image, "://") && cache.CheckRef(image) == nil:
			// Perhaps a file or a layout with a REF behind it, which needs its transport.
			switch kind, _ := sniff(image[:strings.LastIndexAny(image, ":@")]); kind {
			case "":
			case kindSIF:
				return "", hinted.Errorf("a SIF has no REF; --name says what it is kept as", "image: %w", err)
			case kindTar:
				return "", hinted.Errorf("say oci-archive:"+image+" or docker-archive:"+image, "image: %w", err)
			default:
				return "", hinted.Errorf("say "+kind+":"+image, "image: %w", err)
			}
			return "", hinted.Errorf("docker://"+image+" is an image in a registry", "image: %w", err)
		}
		return "", hinted.Errorf(supported, "image: %w", err)
	}
	switch {
	case info.IsDir():
		if _, err := os.Stat(filepath.Join(image, "oci-layout")); err == nil {
			return "oci", nil
		}
		return "", hinted.Errorf(supported, "image %s is a directory, not an image", image)
	case !info.Mode().IsRegular():
		return "", hinted.Errorf(supported, "image %s is not a regular file", image)
	case info.Size() == 0:
		return "", hinted.Errorf("copy or build it again", "image %s is empty", image)
	}
	head, err := readHead(image)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	if sif.Is(head) {
		return kindSIF, nil
	}
	switch what := describe(head); what {
	case describedTar, describedGzip, describedZstd, describedXz, describedBzip2:
		return kindTar, nil
	default:
		return "", hinted.Errorf(supported, "image %s is %s, not an image", image, what)
	}
}

// What describe calls files that package oci may be able to read, or knows what to do with.
const (
	describedTar   = "a tar archive"
	describedGzip  = "compressed with gzip"
	describedZstd  = "compressed with zstd"
	describedXz    = "compressed with xz"
	describedBzip2 = "compressed with bzip2"
)

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
		{"ustar", 257, describedTar},
		{"\x1f\x8b", 0, describedGzip},
		{"\x28\xb5\x2f\xfd", 0, describedZstd},
		{"\xfd7zXZ\x00", 0, describedXz},
		{"BZh", 0, describedBzip2},
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

// checkSIF is for commands that take nothing else.
func CheckSIF(image string) error {
	const advice = "name the path of a SIF file"
	if t, _ := oci.Split(image); t != "" {
		return hinted.Errorf(advice, "%s is not a SIF file", image)
	}
	kind, err := sniff(image)
	switch {
	case err != nil:
		return hinted.Errorf(advice, "%s", err)
	case kind != kindSIF:
		return hinted.Errorf(advice, "image %s is not a SIF file", image)
	}
	return nil
}
