package relay

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
)

// NoSHA says whether the processor is known to lack instructions for SHA-256, so that this process hashes
// several times slower than with them.
//
// It decides as Go's crypto/sha256 does, which tells nobody: by the features that the processor has, less those that
// the environment variable GODEBUG turns off. (Go's internal/cpu/cpu.go and crypto/internal/fips140/sha256 are the
// source of the names below. golang.org/x/sys/cpu does not know SHA of x86.)
var NoSHA = sync.OnceValue(func() bool {
	needs := shaNeeds[runtime.GOARCH]
	if needs == nil {
		return false
	}
	// The kernel writes a large file, processor by processor. The first of them tells.
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	has := firstFeatures(f)
	return has != nil && !hasSHA(needs, has, os.Getenv("GODEBUG"))
})

// feature is one that SHA-256 needs: as /proc/cpuinfo names it, and as GODEBUG does behind "cpu.".
type feature struct{ name, option string }

// shaNeeds are the features without which crypto/sha256 hashes in software, by architecture. Of others nothing is known.
var shaNeeds = map[string][]feature{
	"amd64": {{"sha_ni", "sha"}, {"avx", "avx"}, {"sse4_1", "sse41"}, {"ssse3", "ssse3"}},
	"arm64": {{"sha2", "sha2"}},
}

// firstFeatures are the features of the first processor in the text of /proc/cpuinfo; nil when it has none.
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

// hasSHA says whether all that is needed is there and not turned off. Of several settings of an option the last one counts.
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
