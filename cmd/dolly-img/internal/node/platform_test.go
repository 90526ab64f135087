package node

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

func TestAMD64Level(t *testing.T) {
	const (
		v1 = "fpu mmx fxsr sse sse2 ht syscall nx lm"
		v2 = v1 + " cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
		v3 = v2 + " xsave avx avx2 bmi1 bmi2 f16c fma abm movbe"
		v4 = v3 + " avx512f avx512bw avx512cd avx512dq avx512vl"
	)
	line := func(flags string) string { return "processor\t: 0\nflags\t\t: " + flags + "\nvmx flags\t: avx512f\n\n" }
	for text, want := range map[string]string{
		line(v1): "v1", line(v2): "v2", line(v3): "v3", line(v4): "v4",
		line(strings.Replace(v3, " f16c", "", 1)):                     "v2", // a hypervisor may hide one
		line(strings.Replace(v4, " popcnt", "", 1)):                   "v1", // a level needs those below it
		line(strings.Replace(v4, "avx512vl", "avx512_vlanything", 1)): "v3",
		line(v4) + line(v2):      "v2", // a program may run on either
		"":                       "",
		"Features\t: fp asimd\n": "",
	} {
		if got := amd64Level(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What is said of this machine agrees with the processor itself, as far as x/sys/cpu can ask it.
func TestNodePlatform(t *testing.T) {
	got := nodePlatform()
	want := runtime.GOOS + "/" + runtime.GOARCH
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		return
	}
	x := cpu.X86
	most := "/v1"
	if x.HasCX16 && x.HasPOPCNT && x.HasSSE3 && x.HasSSE41 && x.HasSSE42 && x.HasSSSE3 {
		most = "/v2"
		if x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA && x.HasOSXSAVE {
			most = "/v3"
			if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL {
				most = "/v4"
			}
		}
	}
	if !strings.HasPrefix(got, want+"/v") || got > want+most {
		t.Errorf("%s, and the processor has at most %s", got, most)
	}
}
