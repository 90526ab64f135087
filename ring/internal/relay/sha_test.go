package relay

import (
	"strings"
	"testing"
)

func TestHasSHA(t *testing.T) {
	const old, new = "fpu ssse3 sse4_1 avx avx2", "fpu ssse3 sse4_1 avx avx2 sha_ni"
	x86 := func(flags string) string {
		return "processor\t: 0\nmodel name\t: x: y\nflags\t\t: " + flags + "\nvmx flags\t: sha_ni\n\n"
	}
	for _, c := range []struct {
		arch, cpuinfo, godebug string
		want                   bool
	}{
		{"amd64", x86(new), "", true},
		{"amd64", x86(old), "", false},
		{"amd64", x86(new) + x86(old), "", true},
		{"amd64", x86(strings.Replace(new, " avx ", " ", 1)), "", false}, // a hypervisor may hide one
		{"amd64", x86(new), "cpu.sha=off", false},
		{"amd64", x86(new), "madvdontneed=1,cpu.sha=off,x=y", false},
		{"amd64", x86(new), "cpu.sse41=off", false},
		{"amd64", x86(new), "cpu.all=off", false},
		{"amd64", x86(new), "cpu.all=off,cpu.sha=on", false}, // the others stay off
		{"amd64", x86(new), "cpu.sha=off,cpu.all=on", true},
		{"amd64", x86(new), "cpu.avx2=off,cpu.shaman=off,cpu.sha2=off", true},
		{"amd64", x86(old), "cpu.sha=on", false}, // what is not there cannot be turned on
		{"arm64", "Features\t: fp asimd aes sha1 sha2\n", "", true},
		{"arm64", "Features\t: fp asimd aes sha1\n", "", false},
		{"arm64", "Features\t: fp asimd aes sha1 sha2\n", "cpu.sha2=off", false},
	} {
		if got := hasSHA(shaNeeds[c.arch], firstFeatures(strings.NewReader(c.cpuinfo)), c.godebug); got != c.want {
			t.Errorf("%s, %q, GODEBUG=%s: %v, want %v", c.arch, c.cpuinfo, c.godebug, got, c.want)
		}
	}
	if has := firstFeatures(strings.NewReader("processor\t: 0\nisa : rv64\n")); has != nil {
		t.Errorf("features of a processor that tells none: %v", has)
	}
}
