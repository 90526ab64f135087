package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// platform is what an image runs on, or what a machine is, in the form that normal returns.
type platform struct{ os, arch, variant string }

func (p platform) String() string {
	if p.variant == "" {
		return p.os + "/" + p.arch
	}
	return p.os + "/" + p.arch + "/" + p.variant
}

// parsePlatform reads OS/ARCH[/VARIANT], or ARCH alone for linux. "" is
// linux and the architecture of this program.
func parsePlatform(s string) (platform, error) {
	if s == "" {
		return normal("linux", runtime.GOARCH, ""), nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 || slices.Contains(parts, "") {
		return platform{}, fmt.Errorf("platform %q: want OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64", s)
	}
	return normal(parts[0], parts[1], strings.Join(parts[2:], "")), nil
}

func platformOf(p *v1.Platform) platform { return normal(p.OS, p.Architecture, p.Variant) }

// normal returns the platform in the words of image indexes. It renames architectures from the names of uname, and
// leaves the variant out if it is the lowest of the architecture, or v7 of arm.
// https://github.com/containerd/platforms/blob/main/database.go
func normal(os, arch, variant string) platform {
	p := platform{strings.ToLower(os), strings.ToLower(arch), strings.ToLower(variant)}
	switch p.arch {
	case "x86_64", "x86-64":
		p.arch = "amd64"
	case "aarch64":
		p.arch = "arm64"
	case "i386":
		p.arch, p.variant = "386", ""
	case "armhf":
		p.arch, p.variant = "arm", "v7"
	case "armel":
		p.arch, p.variant = "arm", "v6"
	}
	if p.variant != "" && strings.Trim(p.variant, "0123456789.") == "" && (p.arch == "arm" || p.arch == "arm64") {
		p.variant = "v" + p.variant
	}
	switch p.arch + "/" + p.variant {
	case "amd64/v1", "arm64/v8", "arm64/v8.0":
		p.variant = ""
	case "arm64/v9.0":
		p.variant = "v9"
	case "arm/":
		p.variant = "v7"
	}
	return p
}

// sameArch reports whether p and o differ at most in the variant.
func (p platform) sameArch(o platform) bool { return p.os == o.os && p.arch == o.arch }

// runs lists the platforms of images that run on p, the best first, in the order of containerd. Unlike containerd it
// does not list other architectures, 386 or 32-bit arm, because not all machines run them.
// https://github.com/containerd/platforms/blob/main/compare.go
func (p platform) runs() []platform {
	list := []platform{p}
	add := func(variant string) { list = append(list, normal(p.os, p.arch, variant)) }
	major, minor, ok := p.version()
	switch {
	case !ok:
	case p.arch == "amd64":
		for v := major - 1; v >= 1; v-- {
			add(fmt.Sprintf("v%d", v))
		}
	case p.arch == "arm":
		for v := major - 1; v >= 5; v-- {
			add(fmt.Sprintf("v%d", v))
		}
	case p.arch == "arm64":
		if major == 9 { // v9 has all features of v8.5
			for v := minor - 1; v >= 0; v-- {
				add(fmt.Sprintf("v9.%d", v))
			}
			major, minor = 8, minor+6
		}
		for v := minor - 1; v >= 0; v-- {
			add(fmt.Sprintf("v%d.%d", major, v))
		}
	}
	return list
}

const maxVersion = 99 // the highest version of a variant, far above those that exist

// version reads a variant like v3 or v8.2.
func (p platform) version() (major, minor int, ok bool) {
	first, second, hasMinor := strings.Cut(strings.TrimPrefix(p.variant, "v"), ".")
	major, err := strconv.Atoi(first)
	if err == nil && hasMinor {
		minor, err = strconv.Atoi(second)
	}
	return major, minor, err == nil && major >= 0 && major <= maxVersion && minor >= 0 && minor <= maxVersion
}

// common lists what all of these machines can run, the best first. It returns nil if one of them does not say what it
// is, or has another architecture than want.
func common(machines []string, want platform) (list []platform) {
	for i, s := range machines {
		p, err := parsePlatform(s)
		if s == "" || err != nil || !p.sameArch(want) {
			return nil
		}
		if runs := p.runs(); i == 0 {
			list = runs
		} else {
			list = slices.DeleteFunc(list, func(p platform) bool { return !slices.Contains(runs, p) })
		}
	}
	return list
}

// variants lists the platforms of the entries that have the wanted architecture, each once.
func variants(entries []v1.Descriptor, want platform) (list []platform) {
	for _, d := range entries {
		if d.Platform == nil {
			continue
		}
		if p := platformOf(d.Platform); p.sameArch(want) && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// choose returns the entry of an index for the first of the platforms that has one. If an index has one entry only, and
// that says no platform, choose returns it, because artifacts are kept so.
func choose(entries []v1.Descriptor, wants []platform) (v1.Descriptor, error) {
	for _, want := range wants {
		for _, d := range entries {
			if d.Platform != nil && platformOf(d.Platform) == want {
				return d, nil
			}
		}
	}
	var has []string
	for _, d := range entries {
		if d.Platform == nil {
			continue
		}
		p := platformOf(d.Platform)
		if s := p.String(); p.os != "unknown" && !slices.Contains(has, s) { // attestations have the OS unknown
			has = append(has, s)
		}
	}
	if len(entries) == 1 && entries[0].Platform == nil {
		return entries[0], nil
	}
	if len(entries) == 0 {
		return v1.Descriptor{}, errors.New("the index is empty")
	}
	if len(has) == 0 {
		return v1.Descriptor{}, errkind.Errorf("platform-unsaid", "no entry of the index says its platform")
	}
	return v1.Descriptor{}, errkind.Errorf("platform-none",
		"none for %s, only for %s", wants[0], strings.Join(has, ", "))
}

// entries returns the entries of an index, and those of the indexes in it that are for no platform.
func (i *Image) entries(ctx context.Context, index *manifest, depth int) (list []v1.Descriptor, err error) {
	if depth == maxDepth {
		return nil, errors.New("indexes are nested too deeply")
	}
	for _, d := range index.Manifests {
		if !isIndex(d.MediaType) || d.Platform != nil {
			list = append(list, d)
			continue
		}
		m, err := i.child(ctx, d)
		if err != nil {
			return nil, err
		}
		if !m.isIndex() {
			return nil, fmt.Errorf("manifest %s: is %q, and its index calls it %q", d.Digest, m.mediaType, d.MediaType)
		}
		more, err := i.entries(ctx, m, depth+1)
		if err != nil {
			return nil, err
		}
		if list = append(list, more...); len(list) > MaxIndex {
			return nil, fmt.Errorf("indexes of more than %d entries together", MaxIndex)
		}
	}
	return list, nil
}

// fromIndex chooses the best image from an index. Of several variants it takes the one that was asked for, or the best
// that all nodes can run.
func (i *Image) fromIndex(ctx context.Context, index *manifest, want platform, o Options) (v1.Descriptor, error) {
	entries, err := i.entries(ctx, index, 0)
	if err != nil {
		return v1.Descriptor{}, err
	}
	wants := want.runs()
	several := variants(entries, want)
	if len(several) > 1 && o.Platform == "" && o.Nodes != nil {
		if all := common(o.Nodes(ctx), want); len(all) > 0 {
			wants = all
		}
	}
	d, err := choose(entries, wants)
	if err == nil && len(several) > 1 && d.Platform != nil {
		i.variant, i.variants = platformOf(d.Platform).String(), nil
		for _, p := range several {
			i.variants = append(i.variants, p.String())
		}
	}
	return d, err
}

// Variant returns which variant of an architecture was chosen, and which ones there were. It returns "" if there was no
// choice.
func (i *Image) Variant() (chosen string, of []string) { return i.variant, i.variants }

// OtherPlatform returns the platform of the image if a machine of this architecture may not run it, because it is another
// one or more than the lowest variant. Else it returns "". It reads the config from the source from, which is the Image
// itself or something that keeps its blobs.
func (i *Image) OtherPlatform(ctx context.Context, from interface {
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}) (string, error) {
	here, _ := parsePlatform("")
	is, err := i.platform(ctx, i.opener(from))
	if err != nil || is.os == "" || slices.Contains(here.runs(), is) {
		return "", err
	}
	return is.String(), nil
}

// Differs compares linux on an architecture, as Go names it, with the platform that was asked for, or with that of this
// machine if platform is "". If they differ, it returns linux with that architecture, and else "".
func Differs(arch, asked string) (string, error) {
	want, err := parsePlatform(asked)
	is := normal("linux", arch, "")
	if err != nil || is.sameArch(want) {
		return "", err
	}
	return is.os + "/" + is.arch, nil // nobody knows the variant of a SIF
}

// platform returns the platform in the config of the image, if the image is no artifact, and for one platform that was not
// chosen from an index.
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
	return platformOf(&config.Platform), nil
}

// checkPlatform returns an error if the image is for another platform than was asked for.
func (i *Image) checkPlatform(ctx context.Context, want platform) error {
	is, err := i.platform(ctx, i.keep)
	if err != nil || is.os == "" || slices.Contains(want.runs(), is) {
		return err
	}
	return errkind.About("platform-other", is.String(), "is for %s, not for %s", is, want)
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

// keep is Open that keeps a config, so that a registry is asked for it once.
func (i *Image) keep(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	raw, err := readAll(i.Open(ctx, d, off))
	if err != nil {
		return nil, err
	}
	i.raw[d.Digest] = raw
	return fromBytes(raw, off)
}

// readAll reads all of rc and closes it, if opening it gave no error.
func readAll(rc io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
