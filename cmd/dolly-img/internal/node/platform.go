package node

import (
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
)

// nodePlatform returns the platform whose programs this machine can run, written as platforms of images are:
// "linux/amd64/v3", "linux/arm64", "linux/arm/v7". The variant is left out if it is not known.
func nodePlatform() string {
	return path.Join(runtime.GOOS, runtime.GOARCH, variant())
}

func variant() string {
	switch runtime.GOARCH {
	case "amd64":
		if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
			return amd64Level(string(text))
		}
	case "arm":
		// This program runs here, so what it was built for runs here.
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if v, _, _ := strings.Cut(s.Value, ","); s.Key == "GOARM" {
					return "v" + v
				}
			}
		}
	}
	return ""
}

// amd64Levels lists the features by which the levels of the x86-64 psABI differ (section 3.1.1,
// micro-architecture levels), as /proc/cpuinfo names them. Linux lists AVX features only if it has enabled OSXSAVE, and
// it calls LZCNT abm. Package golang.org/x/sys/cpu does not know all of them.
var amd64Levels = []struct{ name, features string }{
	{"v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"},
	{"v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"},
	{"v4", "avx512f avx512bw avx512cd avx512dq avx512vl"},
}

// amd64Level returns the highest level that every processor in the text of /proc/cpuinfo has. It returns "" if the text
// names no features.
func amd64Level(cpuinfo string) string {
	least := -1
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		has := map[string]bool{}
		for _, f := range strings.Fields(value) {
			has[f] = true
		}
		level := 0
		for level < len(amd64Levels) && hasAll(has, amd64Levels[level].features) {
			level++
		}
		if least < 0 || level < least {
			least = level
		}
	}
	switch least {
	case -1:
		return ""
	case 0:
		return "v1"
	}
	return amd64Levels[least-1].name
}

func hasAll(has map[string]bool, features string) bool {
	for _, f := range strings.Fields(features) {
		if !has[f] {
			return false
		}
	}
	return true
}
