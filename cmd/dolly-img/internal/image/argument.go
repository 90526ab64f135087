package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

// What a path may be, beside the transports of package oci.
const (
	kindSIF = "sif"
	kindTar = "tar" // a tar, or something compressed that may be one
)

// imageName returns IMAGE as package oci wants it, or "" if it is a SIF. The content of a file decides what it is, not its
// name.
func imageName(ctx context.Context, image string, o *Options) (string, error) {
	if t, _ := oci.Split(image); t != "" {
		return image, nil
	}
	kind, err := sniff(image)
	if err != nil || kind == kindSIF {
		return "", err
	}
	if kind == kindTar {
		transport, note, err := oci.Kind(ctx, image, o.OCI)
		if note != "" && o.Warn != nil {
			o.Warn(fmt.Errorf("image %s: %s", image, printable.Line(note)))
		}
		switch {
		case errors.Is(err, context.Canceled):
			return "", err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", cutShort(fmt.Errorf("image %s: %w", image, err))
		case errkind.Has(err):
			return "", fmt.Errorf("image %s: %w", image, err)
		case err != nil:
			return "", errkind.Errorf("image-unknown", "image %s is no container image: %w", image, err)
		case transport == "":
			return "", errkind.Errorf("image-unknown", "image %s is a tar archive, but of no container image", image)
		}
		kind = transport
	}
	if strings.ContainsRune(image, ':') {
		return "", errkind.Errorf("image-colon", "image %s: a colon in the path of an image that may be followed by :REF", image)
	}
	return kind + ":" + image, nil
}

// cutShort says what it means if an archive ends too early.
func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errkind.Errorf("image-cut", "%w: it is damaged or cut short", err)
	}
	return err
}

// sniff says what is at a path: kindSIF, kindTar, or "oci" for a layout. It looks at the content and not at the name. If
// the content looks like a SIF, package sif checks it later.
func sniff(image string) (kind string, err error) {
	info, err := os.Stat(image)
	if err != nil {
		switch transport, _, _ := strings.Cut(image, ":"); {
		case transport == "library" || transport == "shub":
			return "", errkind.Errorf("transport-apptainer", "%s: %s images are not supported", image, transport)
		case transport == "containers-storage" || transport == "docker-daemon":
			return "", errkind.Errorf("transport-engine", "%s: %s images are not supported", image, transport)
		case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(image, ":@") && !strings.Contains(image, "://") && cache.CheckRef(image) == nil:
			// This may be a file or a layout with a REF behind it, which needs its transport in front.
			switch kind, _ := sniff(image[:strings.LastIndexAny(image, ":@")]); kind {
			case "":
			case kindSIF:
				return "", errkind.Errorf("sif-ref", "image: %w", err)
			case kindTar:
				return "", errkind.About("transport-archive", image, "image: %w", err)
			default:
				return "", errkind.About("transport-layout", kind+":"+image, "image: %w", err)
			}
			return "", errkind.About("transport-registry", image, "image: %w", err)
		}
		return "", notThere(image, err)
	}
	switch {
	case info.IsDir():
		if _, err := os.Stat(filepath.Join(image, "oci-layout")); err == nil {
			return "oci", nil
		}
		return "", errkind.Errorf("image-unknown", "image %s is a directory, not an image", image)
	case !info.Mode().IsRegular():
		return "", errkind.Errorf("image-unknown", "image %s is not a regular file", image)
	case info.Size() == 0:
		return "", errkind.Errorf("image-empty", "image %s is empty", image)
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
		return "", errkind.Errorf("image-unknown", "image %s is %s, not an image", image, what)
	}
}

// notThere says of an image that there is no such file, or that it cannot be looked at. What can be no path of an image may be its name in
// a registry.
func notThere(image string, err error) error {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return errkind.Errorf("image-unknown", "image: %w", err)
	case cache.CheckRef(image) != nil, slices.Contains([]string{".sif", ".simg", ".img", ".tar", ".tgz", ".gz", ".zst"}, strings.ToLower(filepath.Ext(image))):
		return errkind.Errorf("input-missing", "image: %w", err)
	}
	return errkind.About("image-which", image, "image: %w", err)
}

// What describe calls files that package oci may be able to read, or has a hint for.
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

// describe says what a file is that begins with head.
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

// CheckSIF returns an error if IMAGE is no SIF file. It is for commands that take nothing else.
func CheckSIF(image string) error {
	if t, _ := oci.Split(image); t != "" {
		return errkind.Errorf("sif-wanted", "%s is not a SIF file", image)
	}
	kind, err := sniff(image)
	switch {
	case err != nil:
		return errkind.Errorf("sif-wanted", "%s", err)
	case kind != kindSIF:
		return errkind.Errorf("sif-wanted", "image %s is not a SIF file", image)
	}
	return nil
}
