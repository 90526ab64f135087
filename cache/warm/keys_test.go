package warm

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Keys has exactly the keys that the reader reads and that the comment of List shows. Parse takes each example, and refuses what is wrong.
func TestKeys(t *testing.T) {
	want := map[string]bool{}
	for _, k := range Keys() {
		table := strings.NewReplacer("[[", "", "]]", "", "[", "", "]", "", ".NAME", "").Replace(k.Table)
		if want[table+"."+k.Name] {
			t.Errorf("%s %s is there twice", k.Table, k.Name)
		}
		want[table+"."+k.Name] = true
		for _, c := range []struct {
			value string
			good  bool
		}{{k.Example, true}, {k.Wrong, false}} {
			list, err := Parse([]byte(listWith(table, k.Name, c.value)))
			if (err == nil) != c.good {
				t.Errorf("%s %s = %s: %+v, %v", k.Table, k.Name, c.value, list, err)
			}
			if err != nil && strings.Contains(err.Error(), "unknown key") {
				t.Error(err)
			}
		}
	}

	source, err := os.ReadFile("listfile.go")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, f := range regexp.MustCompile(`(?s)func \(r \*reader\) (defaults|groups|images)\(.*?\n}\n`).FindAllStringSubmatch(string(source), -1) {
		for _, key := range regexp.MustCompile(`"([a-z-]+)":\s+func\(`).FindAllStringSubmatch(f[0], -1) {
			read[map[string]string{"defaults": "defaults", "groups": "nodes", "images": "image"}[f[1]]+"."+key[1]] = true
		}
	}
	delete(read, "image.output") // which is there to be refused
	source, err = os.ReadFile("list.go")
	if err != nil {
		t.Fatal(err)
	}
	shown, table := map[string]bool{}, ""
	example, _, _ := strings.Cut(string(source), "type List struct")
	for line := range strings.Lines(example) {
		if m := regexp.MustCompile(`^//\t\[+([a-z]+)`).FindStringSubmatch(line); m != nil {
			table = m[1]
		}
		for _, m := range regexp.MustCompile(`(?:^//\t|or )([a-z-]+) +=`).FindAllStringSubmatch(line, -1) {
			shown[table+"."+m[1]] = true
		}
	}
	for what, has := range map[string]map[string]bool{"the reader": read, "the comment of List": shown} {
		if !maps.Equal(has, want) {
			t.Errorf("%s has %q\nKeys has %q", what, slices.Sorted(maps.Keys(has)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// listWith returns a list that is right but for a value.
func listWith(table, name, value string) string {
	tables := map[string]map[string]string{
		"defaults": {}, "nodes": {"list": `"n1"`}, "image": {"ref": `"docker://registry.example/app"`, "nodes": `["gpu"]`},
	}
	switch name {
	case "windows":
		tables["defaults"]["outside"] = `"off"`
	case "outside":
		tables["defaults"]["windows"] = `["Sat"]`
	case "file", "command":
		delete(tables["nodes"], "list")
	}
	tables[table][name] = value
	text := ""
	for _, t := range [][2]string{{"defaults", "[defaults]"}, {"nodes", "[nodes.gpu]"}, {"image", "[[image]]"}} {
		text += t[1] + "\n"
		for _, key := range slices.Sorted(maps.Keys(tables[t[0]])) {
			text += key + " = " + tables[t[0]][key] + "\n"
		}
	}
	return text
}
