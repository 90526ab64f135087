package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// platform is what an image has to run on; variant "" takes any.
type platform struct{ os, arch, variant string }

func (p platform) String() string {
	if p.variant == "" {
		return p.os + "/" + p.arch
	}
	return p.os + "/" + p.arch + "/" + p.variant
}

// parsePlatform reads OS/ARCH[/VARIANT], or ARCH alone, which means linux; "" is
// linux and the architecture of this program.
func parsePlatform(s string) (platform, error) {
	if s == "" {
		return platform{"linux", runtime.GOARCH, ""}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 || slices.Contains(parts, "") {
		return platform{}, fmt.Errorf("platform %q: want OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64", s)
	}
	p := platform{os: strings.ToLower(parts[0]), arch: strings.ToLower(parts[1])}
	if len(parts) == 3 {
		p.variant = strings.ToLower(parts[2])
	}
	switch p.arch { // what uname says
	case "x86_64":
		p.arch = "amd64"
	case "aarch64":
		p.arch = "arm64"
	}
	return p, nil
}

func (p platform) matches(os, arch, variant string) bool {
	return p.os == os && p.arch == arch && (p.variant == "" || p.variant == variant || p.arch == "arm64" && p.variant == "v8" && variant == "")
}

// choose finds the entry of an index for a platform. An index with one entry that
// says no platform is that entry: what artifacts are kept as.
func choose(entries []v1.Descriptor, want platform) (v1.Descriptor, error) {
	var has []string
	for _, d := range entries {
		if d.Platform == nil {
			continue
		}
		if want.matches(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant) {
			return d, nil
		}
		if p := (platform{d.Platform.OS, d.Platform.Architecture, d.Platform.Variant}); p.os != "unknown" { // attestations
			has = append(has, p.String())
		}
	}
	if len(entries) == 1 && entries[0].Platform == nil {
		return entries[0], nil
	}
	if len(entries) == 0 {
		return v1.Descriptor{}, errors.New("the index is empty")
	}
	if len(has) == 0 {
		return v1.Descriptor{}, hint("--all-platforms takes the whole index", "no entry of the index says its platform")
	}
	return v1.Descriptor{}, hint("choose with --platform, or take all with --all-platforms",
		"none for %s, only for %s", want, strings.Join(has, ", "))
}

// OtherPlatform is the platform of an image that has one, where it is another than that of this
// machine, else "". Its config is read from where it is cheapest: from the Image itself, or what
// keeps its blobs.
func (i *Image) OtherPlatform(ctx context.Context, from interface {
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}) (string, error) {
	here, _ := parsePlatform("")
	is, err := i.platform(ctx, i.opener(from))
	if err != nil || is.os == "" || here.matches(is.os, is.arch, is.variant) {
		return "", err
	}
	return is.String(), nil
}

// Differs compares linux on an architecture, as Go names it, with a platform that was asked for, or
// with "" this machine's: it is the one that it is where that is another, else "".
func Differs(arch, asked string) (string, error) {
	want, err := parsePlatform(asked)
	if err != nil || want.matches("linux", arch, "") {
		return "", err
	}
	return platform{"linux", arch, ""}.String(), nil
}

// platform is what the image's config says, if it is no artifact and of one platform that was
// not chosen from an index.
func (i *Image) platform(ctx context.Context, open func(context.Context, v1.Descriptor, int64) (io.ReadCloser, error)) (p platform, err error) {
	if i.root.Platform != nil || i.config == nil || i.config.Size > MaxManifest {
		return p, nil
	}
	raw, err := readAll(open(ctx, *i.config, 0))
	if err != nil {
		return p, err
	}
	var config v1.Image
	if json.Unmarshal(raw, &config) != nil || config.OS == "" {
		return p, nil
	}
	return platform{config.OS, config.Architecture, config.Variant}, nil
}

// checkPlatform says whether an image that has one platform has the one asked for.
func (i *Image) checkPlatform(ctx context.Context, want platform) error {
	is, err := i.platform(ctx, i.keep)
	if err != nil || is.os == "" || want.matches(is.os, is.arch, is.variant) {
		return err
	}
	return hint("if that is what the nodes are, say --platform "+is.String(), "is for %s, not for %s", is, want)
}

// opener reads what is read from now and again later: from from, and of the image itself so that
// it is kept.
func (i *Image) opener(from interface {
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}) opener {
	if self, is := from.(*Image); is && self == i {
		return i.keep
	}
	return from.Open
}

// keep is Open of a config that is kept, so that a registry is asked for it once.
func (i *Image) keep(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	raw, err := readAll(i.Open(ctx, d, off))
	if err != nil {
		return nil, err
	}
	i.raw[d.Digest] = raw
	return fromBytes(raw, off)
}

// readAll reads what was opened, if it was, and closes it.
func readAll(rc io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
