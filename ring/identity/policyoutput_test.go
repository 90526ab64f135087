package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// No output is part of what the node itself needs, and no directory takes the place of one that another rule keeps, by
// whatever links the paths lead there.
func TestPolicyKeeps(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{"data/cache/blobs", "data/node/keys", "data/keep", "data/linked", "data/files", "data/both"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"cache": "data/cache", "alias": "data", "link": "data/linked", "keys": "data/node/keys"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	text := ""
	for dir, permits := range map[string]string{
		"data": "overwrite = true\ndirectories = true", "alias": "overwrite = true\ndirectories = true",
		"data/both": "overwrite = true\ndirectories = true", "data/keep": "", "data/files": "overwrite = true",
		"link": "directories = true", "data/later/on": "",
	} {
		text += fmt.Sprintf("[[output]]\ndir = %q\n%s\n", at(dir), permits)
	}
	write(t, at("keys/policy.toml"), 0o644, []byte(text))
	p, err := LoadPolicy(at("keys"), at("cache"))
	if err != nil {
		t.Fatal(err)
	}
	const own, rule, good = errkind.Kind("output-own"), errkind.Kind("output-rule"), errkind.Kind("")
	for name, want := range map[string]errkind.Kind{
		"data/cache": own, "data/cache/blobs": own, "data/node": own, "data/node/keys": own, "data/node/keys/new": own,
		"alias/cache": own, "alias/node": own, "alias/cache/new": own, "data/cache2": good, "data/node/other": good,
		"data/keep": rule, "alias/keep": rule, "data/files": rule, "data/linked": rule, "alias/linked": rule,
		"data/later": rule, "alias/later": rule, "data/both": good, "alias/both": good, "data/both/a": good, "data/new": good,
	} {
		_, _, _, err := p.Directory(at(name))
		if kind, _ := errkind.Of(err); kind != want || want == good && err != nil {
			t.Errorf("directory %s: %v, want %q", name, err, want)
		}
	}
	for name, want := range map[string]errkind.Kind{
		"data/node/keys/policy.toml": own, "alias/node/keys/node.key": own, "data/cache/blobs/x": own, "data/cache": own,
		"data/node/x": good, "data/keep/x": good,
	} {
		_, _, _, err := p.Output(at(name))
		if kind, _ := errkind.Of(err); kind != want || want == good && err != nil {
			t.Errorf("file %s: %v, want %q", name, err, want)
		}
	}
}

// What a transfer may do with a directory stands in one rule.
func TestPolicyOneRule(t *testing.T) {
	files, dirs, both := Output{"/data", true, false}, Output{"/data", false, true}, Output{"/data", true, true}
	for _, c := range []struct {
		rules     []Output
		overwrite bool
	}{
		{[]Output{files, dirs}, false}, {[]Output{dirs, files}, false}, {[]Output{files, dirs, both}, true}, {[]Output{both, dirs}, true},
	} {
		p := &Policy{Outputs: c.rules}
		dir, rel, overwrite, err := p.Directory("/data/a")
		if dir != "/data" || rel != "a" || overwrite != c.overwrite || err != nil {
			t.Errorf("%v: %q, %q, %v, %v", c.rules, dir, rel, overwrite, err)
		}
	}
}
