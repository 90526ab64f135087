package oci

import (
	"runtime"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]string{
		"": "linux/" + runtime.GOARCH, "amd64": "linux/amd64", "linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64/v8",
		"Linux/ARM/V7": "linux/arm/v7", "x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "windows/amd64": "windows/amd64",
		"/": "", "linux/": "", "/amd64": "", "linux//v7": "", "linux/arm/v7/x": "", "a/b/": "",
	} {
		p, err := parsePlatform(s)
		if want == "" {
			fails(t, err, "want OS/ARCH or OS/ARCH/VARIANT")
		} else if err != nil || p.String() != want {
			t.Errorf("%q is %s, %v, want %s", s, p, err, want)
		}
	}
	openFails(t, "oci:nowhere", Options{Platform: "a/b/c/d"}, `platform "a/b/c/d"`)
}

func TestChoose(t *testing.T) {
	entry := func(os, arch, variant string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	amd, arm64, arm64v8 := entry("linux", "amd64", ""), entry("linux", "arm64", ""), entry("linux", "arm64", "v8")
	v6, v7, attestation := entry("linux", "arm", "v6"), entry("linux", "arm", "v7"), entry("unknown", "unknown", "")
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
		{"first of any variant", all, "linux/arm", 3, ""},
		{"variant", all, "linux/arm/v7", 4, ""},
		{"no such variant", all, "linux/arm/v5", 0, "none for linux/arm/v5, only for linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8"},
		{"arm64 has v8", all, "linux/arm64", 5, ""},
		{"v8 is arm64", []v1.Descriptor{arm64}, "linux/arm64/v8", 0, ""},
		{"v9 is not", []v1.Descriptor{arm64}, "linux/arm64/v9", 0, "none for linux/arm64/v9"},
		{"other system", all, "windows/amd64", 0, "none for windows/amd64"},
		{"one without a platform", []v1.Descriptor{artifact}, "linux/amd64", 0, ""},
		{"one of another", []v1.Descriptor{arm64}, "linux/amd64", 0, "none for linux/amd64, only for linux/arm64"},
		{"two without a platform", []v1.Descriptor{artifact, artifact}, "linux/amd64", 0, "no entry of the index says its platform"},
		{"attestations only", []v1.Descriptor{attestation, attestation}, "linux/amd64", 0, "no entry of the index says its platform"},
		{"empty", nil, "linux/amd64", 0, "the index is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := parsePlatform(c.want)
			if err != nil {
				t.Fatal(err)
			}
			d, err := choose(c.entries, want)
			if c.err != "" {
				fails(t, err, c.err)
				if len(c.entries) > 0 && hintOf(err) == "" {
					t.Error("no hint")
				}
			} else if err != nil || d.Platform != c.entries[c.index].Platform {
				t.Errorf("%+v, %v", d, err)
			}
		})
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
