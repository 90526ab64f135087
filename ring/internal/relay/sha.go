package relay

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
)

// NoSHA reports whether the processor is known to lack instructions for SHA-256, so that this process hashes
// several times slower than with them.
//
// Go's crypto/sha256 tells nobody how it decides, so NoSHA decides in the same way: by the features that the processor
// has, without those that the environment variable GODEBUG turns off. (The names below are from Go's
// internal/cpu/cpu.go and crypto/internal/fips140/sha256. golang.org/x/sys/cpu does not know SHA of x86.)
var NoSHA = sync.OnceValue(func() bool {
	needs := shaNeeds[runtime.GOARCH]
	if needs == nil {
		return false
	}
	// The kernel writes a large file, processor by processor. The first processor is enough.
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	has := firstFeatures(f)
	return has != nil && !hasSHA(needs, has, os.Getenv("GODEBUG"))
})

// feature is a feature that SHA-256 needs. name is its name in /proc/cpuinfo, option its name in GODEBUG behind
// "cpu.".
type feature struct{ name, option string }

// shaNeeds has, by architecture, the features without which crypto/sha256 hashes in software. It knows nothing of
// other architectures.
var shaNeeds = map[string][]feature{
	"amd64": {{"sha_ni", "sha"}, {"avx", "avx"}, {"sse4_1", "sse41"}, {"ssse3", "ssse3"}},
	"arm64": {{"sha2", "sha2"}},
}

// firstFeatures returns the features of the first processor in the text of /proc/cpuinfo, or nil where there is none.
func firstFeatures(cpuinfo io.Reader) map[string]bool {
	lines := bufio.NewScanner(cpuinfo)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key = strings.TrimSpace(key); key != "flags" && key != "Features" {
			continue
		}
		has := map[string]bool{}
		for _, f := range strings.Fields(value) {
			has[f] = true
		}
		return has
	}
	return nil
}

// hasSHA reports whether all features that are needed are there and not turned off. The last of several settings of
// an option counts.
func hasSHA(needs []feature, has map[string]bool, godebug string) bool {
	for _, f := range needs {
		on := has[f.name]
		for setting := range strings.SplitSeq(godebug, ",") {
			if option, value, _ := strings.Cut(setting, "="); option == "cpu."+f.option || option == "cpu.all" {
				on = has[f.name] && value != "off"
			}
		}
		if !on {
			return false
		}
	}
	return true
}
