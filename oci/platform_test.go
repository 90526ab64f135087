package oci

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]string{
		"": normal("linux", runtime.GOARCH, "").String(), "amd64": "linux/amd64", "linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64",
		"Linux/ARM/V7": "linux/arm/v7", "x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "windows/amd64": "windows/amd64",
		"linux/amd64/v1": "linux/amd64", "linux/x86-64/v2": "linux/amd64/v2", "linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6",
		"armel": "linux/arm/v6", "armhf": "linux/arm/v7", "i386": "linux/386", "aarch64/v9": "", "linux/arm64/9": "linux/arm64/v9", "linux/arm64/v9.0": "linux/arm64/v9",
		"linux/ppc64le/power9": "linux/ppc64le/power9",
		"/":                    "", "linux/": "", "/amd64": "", "linux//v7": "", "linux/arm/v7/x": "", "a/b/": "",
	} {
		p, err := parsePlatform(s)
		switch {
		case s == "aarch64/v9": // read as a system
		case want == "":
			fails(t, err, "want OS/ARCH or OS/ARCH/VARIANT")
		case err != nil || p.String() != want:
			t.Errorf("%q is %s, %v, want %s", s, p, err, want)
		}
		if again, err := parsePlatform(p.String()); want != "" && (err != nil || again != p) {
			t.Errorf("%s is %s, %v", p, again, err)
		}
	}
	openFails(t, "oci:nowhere", Options{Platform: "a/b/c/d"}, `platform "a/b/c/d"`)
}

func platforms(t *testing.T, names string) (list []platform) {
	t.Helper()
	for _, s := range strings.Fields(names) {
		p, err := parsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// What a machine runs, the best first; containerd has the same order.
func TestRuns(t *testing.T) {
	for machine, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3 linux/amd64/v2 linux/amd64",
		"linux/arm": "linux/arm/v7 linux/arm/v6 linux/arm/v5", "linux/arm/v8": "linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5", "linux/arm/v5": "linux/arm/v5",
		"linux/arm64": "linux/arm64", "linux/arm64/v8.2": "linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64",
		"linux/arm64/v9":   "linux/arm64/v9 linux/arm64/v8.5 linux/arm64/v8.4 linux/arm64/v8.3 linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64",
		"linux/arm64/v9.1": "linux/arm64/v9.1 linux/arm64/v9 linux/arm64/v8.6 linux/arm64/v8.5 linux/arm64/v8.4 linux/arm64/v8.3 linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64",
		"linux/riscv64":    "linux/riscv64", "linux/ppc64le/power9": "linux/ppc64le/power9", "linux/amd64/v999999999": "linux/amd64/v999999999", "linux/amd64/v-3": "linux/amd64/v-3",
	} {
		if got := platforms(t, machine)[0].runs(); !slices.Equal(got, platforms(t, want)) {
			t.Errorf("%s runs %v, want %v", machine, got, want)
		}
	}
}

// What all nodes run; nothing where one does not say, or is of another architecture.
func TestCommon(t *testing.T) {
	for nodes, want := range map[string]string{
		"": "", "linux/amd64/v3": "linux/amd64/v3 linux/amd64/v2 linux/amd64", "linux/amd64/v3 linux/amd64/v2": "linux/amd64/v2 linux/amd64",
		"linux/amd64/v2 linux/amd64/v4": "linux/amd64/v2 linux/amd64", "linux/amd64/v3 -": "", "- linux/amd64/v3": "", "linux/amd64/v3 linux/arm64": "",
		"linux/amd64/v3 linux/amd64": "linux/amd64", "linux/amd64/v3 x/y/z/w": "", "linux/x86_64/v2": "linux/amd64/v2 linux/amd64",
	} {
		list := strings.Fields(nodes)
		for i, s := range list {
			if s == "-" {
				list[i] = ""
			}
		}
		if got := common(list, normal("linux", "amd64", "")); !slices.Equal(got, platforms(t, want)) {
			t.Errorf("%s: %v, want %v", nodes, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	entry := func(os, arch, variant string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	amd, arm64, arm64v8 := entry("linux", "amd64", ""), entry("linux", "arm64", ""), entry("linux", "arm64", "v8")
	v5, v6, v7, attestation := entry("linux", "arm", "v5"), entry("linux", "arm", "v6"), entry("linux", "arm", "v7"), entry("unknown", "unknown", "")
	x3, x2, x1 := entry("linux", "amd64", "v3"), entry("linux", "amd64", "v2"), entry("linux", "amd64", "v1")
	plain := entry("linux", "arm", "")
	artifact := v1.Descriptor{MediaType: "an artifact"}
	all := []v1.Descriptor{attestation, artifact, amd, v6, v7, arm64v8}
	for _, c := range []struct {
		name    string
		entries []v1.Descriptor
		want    string
		index   int
		err     string
	}{
		{"plain", all, "linux/amd64", 2, ""},
		{"arm is v7", all, "linux/arm", 4, ""},
		{"variant", all, "linux/arm/v7", 4, ""},
		{"lower variant", []v1.Descriptor{v5, v6}, "linux/arm/v7", 1, ""},
		{"arm without variant is v7", []v1.Descriptor{v5, plain}, "linux/arm/v7", 1, ""},
		{"arm without variant is not v6", []v1.Descriptor{plain}, "linux/arm/v6", 0, "none for linux/arm/v6, only for linux/arm/v7"},
		{"no such variant", all, "linux/arm/v5", 0, "none for linux/arm/v5, only for linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64"},
		{"baseline", []v1.Descriptor{x3, x2, amd}, "linux/amd64", 2, ""},
		{"baseline called v1", []v1.Descriptor{x3, x2, x1}, "linux/amd64", 2, ""},
		{"v1 asked", []v1.Descriptor{x3, x2, amd}, "linux/amd64/v1", 2, ""},
		{"v2 asked", []v1.Descriptor{x3, amd, x2}, "linux/amd64/v2", 2, ""},
		{"v3 runs v2", []v1.Descriptor{amd, x2}, "linux/amd64/v3", 1, ""},
		{"v4 runs the baseline", []v1.Descriptor{amd}, "linux/amd64/v4", 0, ""},
		{"no guess", []v1.Descriptor{x3, x2, x3}, "linux/amd64", 0, "none for linux/amd64, only for linux/amd64/v3, linux/amd64/v2"},
		{"as uname says", []v1.Descriptor{entry("linux", "x86_64", ""), entry("linux", "aarch64", "")}, "linux/arm64", 1, ""},
		{"as uname says, with a variant", []v1.Descriptor{entry("linux", "aarch64", ""), entry("linux", "x86_64", "v2")}, "linux/amd64/v3", 1, ""},
		{"arm64 has v8", all, "linux/arm64", 5, ""},
		{"v8 is arm64", []v1.Descriptor{arm64}, "linux/arm64/v8", 0, ""},
		{"v9 runs v8", []v1.Descriptor{arm64}, "linux/arm64/v9", 0, ""},
		{"v8 does not run v9", []v1.Descriptor{entry("linux", "arm64", "v9")}, "linux/arm64", 0, "none for linux/arm64, only for linux/arm64/v9"},
		{"amd64 is not served 386", []v1.Descriptor{entry("linux", "386", "")}, "linux/amd64", 0, "none for linux/amd64, only for linux/386"},
		{"other system", all, "windows/amd64", 0, "none for windows/amd64"},
		{"one without a platform", []v1.Descriptor{artifact}, "linux/amd64", 0, ""},
		{"one of another", []v1.Descriptor{arm64}, "linux/amd64", 0, "none for linux/amd64, only for linux/arm64"},
		{"two without a platform", []v1.Descriptor{artifact, artifact}, "linux/amd64", 0, "no entry of the index says its platform"},
		{"attestations only", []v1.Descriptor{attestation, attestation}, "linux/amd64", 0, "no entry of the index says its platform"},
		{"empty", nil, "linux/amd64", 0, "the index is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := choose(c.entries, platforms(t, c.want)[0].runs())
			if c.err != "" {
				fails(t, err, c.err)
				if len(c.entries) > 0 && kindTold(err) == "" {
					t.Error("no hint")
				}
			} else if err != nil || d.Platform != c.entries[c.index].Platform {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// variant is a small image for a platform.
func variant(os, arch, variant string) *img {
	m := imgFor(os+"/"+arch, []byte(os+arch+variant))
	m.root.Platform.Variant = variant
	return m
}

// Of several variants the least is taken, unless all nodes say that they run more, or one is asked for.
func TestVariants(t *testing.T) {
	here := runtime.GOARCH
	if here != "amd64" {
		here = "x86_64" // asked for below
	}
	v3, v2, v1 := variant("linux", "amd64", "v3"), variant("linux", here, "v2"), variant("linux", "x86_64", "")
	arm := variant("linux", "arm64", "")
	all := index(arm, v3, v2, v1)
	name := "oci:" + writeDir(t, all.files())
	nodes := func(list ...string) Options {
		return Options{Nodes: func(context.Context) []string { return list }}
	}
	never := Options{Platform: "linux/amd64/v2", Nodes: func(context.Context) []string { t.Error("the nodes were asked"); return nil }}
	cases := []struct {
		o    Options
		want *img
	}{
		{Options{Platform: "linux/amd64"}, v1}, {never, v2}, {Options{Platform: "linux/x86_64/v1"}, v1}, {Options{Platform: "linux/amd64/v4"}, v3},
	}
	if runtime.GOARCH == "amd64" {
		cases = append(cases, []struct {
			o    Options
			want *img
		}{
			{Options{}, v1}, {nodes("linux/amd64/v3", "linux/amd64/v4"), v3}, {nodes("linux/amd64/v3", "linux/amd64/v2"), v2},
			{nodes("linux/amd64/v3", ""), v1}, {nodes("linux/amd64/v3", "linux/arm64"), v1}, {nodes(), v1}, {nodes("linux/amd64"), v1},
		}...)
	}
	for n, c := range cases {
		i := mustOpen(t, name, c.o)
		c.want.check(t, i)
		chosen, of := i.Variant()
		if want := platformOf(c.want.root.Platform).String(); chosen != want || strings.Join(of, " ") != "linux/amd64/v3 linux/amd64/v2 linux/amd64" {
			t.Errorf("%d: %s of %s", n, chosen, of)
		}
	}
	i := mustOpen(t, name, Options{Platform: "arm64"})
	arm.check(t, i)
	if chosen, of := i.Variant(); chosen != "" || of != nil {
		t.Errorf("%s of %s", chosen, of)
	}
	// Of one variant there is no choice, and no node is asked.
	one := index(variant("linux", runtime.GOARCH, ""), variant("linux", "mips", ""))
	o := never
	o.Platform = ""
	mustOpen(t, "oci:"+writeDir(t, one.files()), o)
}

// An index of indexes is looked through, and so is an index.json that is itself the list of platforms.
func TestNestedIndexes(t *testing.T) {
	a, b, c := variant("linux", "amd64", ""), variant("linux", "arm64", ""), variant("linux", "riscv64", "")
	inner := index(a, b)
	outer := index(inner, c)
	for _, name := range []string{"oci:" + writeDir(t, outer.files()), "oci:" + writeDir(t, index(index(inner), c).files())} {
		for arch, want := range map[string]*img{"amd64": a, "arm64": b, "riscv64": c} {
			want.check(t, mustOpen(t, name, Options{Platform: arch}))
		}
		openFails(t, name, Options{Platform: "mips"}, "only for linux/amd64, linux/arm64, linux/riscv64")
	}
	outer.check(t, mustOpen(t, "oci:"+writeDir(t, outer.files()), Options{AllPlatforms: true}))
	deep := index(index(index(index(index(inner)))))
	openFails(t, "oci:"+writeDir(t, deep.files()), Options{Platform: "amd64"}, "nested too deeply")

	list := index(a, b) // its blobs
	for _, tag := range []string{"", "v1"} {
		var entries []v1.Descriptor
		for _, d := range []v1.Descriptor{a.root, b.root} {
			if tag != "" {
				d.Annotations = map[string]string{v1.AnnotationRefName: tag}
			}
			entries = append(entries, d)
		}
		name := "oci:" + writeDir(t, list.files(entries...))
		a.check(t, mustOpen(t, name, Options{Platform: "amd64"}))
		if tag != "" {
			name += ":" + tag
		}
		b.check(t, mustOpen(t, name, Options{Platform: "linux/aarch64"}))
		openFails(t, name, Options{Platform: "mips"}, "none for linux/mips, only for linux/amd64, linux/arm64")
		openFails(t, name, Options{AllPlatforms: true}, "index.json is itself the list of platforms")
		b.check(t, mustOpen(t, strings.TrimSuffix(name, ":"+tag)+":"+b.root.Digest.String(), Options{}))
		entries[1].Platform = entries[0].Platform // two of one platform are two images
		openFails(t, "oci:"+writeDir(t, list.files(entries...)), Options{Platform: "amd64"}, "has 2 images")
	}
}

func TestDiffers(t *testing.T) {
	for _, c := range []struct{ arch, asked, want string }{
		{runtime.GOARCH, "", ""}, {"mips", "", "linux/mips"}, {"arm64", "arm64", ""}, {"arm64", "linux/amd64", "linux/arm64"}, {"amd64", "windows/amd64", "linux/amd64"},
	} {
		if got, err := Differs(c.arch, c.asked); got != c.want || err != nil {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if _, err := Differs("amd64", "/"); err == nil {
		t.Error("/ is a platform")
	}
}

// An image that has one platform is compared with the one asked for, by its config;
// an artifact has none.
func TestCheckPlatform(t *testing.T) {
	arm := imgFor("linux/arm64", []byte("a layer"))
	for kind, name := range everywhere(t, arm.files()) {
		i := mustOpen(t, name, Options{})
		if other, err := i.OtherPlatform(t.Context(), i); err != nil || (other != "linux/arm64") != (runtime.GOARCH == "arm64") {
			t.Errorf("%s: %q, %v", kind, other, err)
		}
		arm.check(t, i)
		arm.check(t, mustOpen(t, name, Options{Platform: "aarch64"}))
		arm.check(t, mustOpen(t, name, Options{Platform: "linux/arm64/v8"}))
		openFails(t, name, Options{Platform: "amd64"}, "is for linux/arm64, not for linux/amd64")
	}
	artifact := imgFor("/", []byte("a SIF"))
	artifact.root.Platform = nil
	artifact.check(t, mustOpen(t, "oci:"+writeDir(t, artifact.files()), Options{Platform: "amd64"}))
}
