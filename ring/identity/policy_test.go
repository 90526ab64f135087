package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

const fullPolicy = `# what dolly-img may do here
[[output]]
dir = "/data"
overwrite = true
directories = true
[[output]]
dir = "/data/keep"
[[device]]
path = "/dev/disk/by-id/x"
[[device]]
name = "scratch"
model = "SAMSUNG MZ*"
size = "900G..1T"
bus = "nvme"
[data]
plain = true
[limits]
rate = "500M"
transfers = 4
`

func policy(t *testing.T, text string) (*Policy, string, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.toml"), 0o644, []byte(text))
	p, err := LoadPolicy(dir)
	return p, dir, err
}

func TestPolicy(t *testing.T) {
	got, dir, err := policy(t, fullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		Outputs: []Output{{"/data", true, true}, {"/data/keep", false, false}},
		Devices: []Device{{Path: "/dev/disk/by-id/x"}, {Name: "scratch", Model: "SAMSUNG MZ*", Bus: "nvme", Size: Sizes{900e9, 1e12}}},
		Data:    Data{Plain: true},
		Limits:  Limits{Rate: 500e6, Transfers: 4},
		path:    filepath.Join(dir, "policy.toml"),
		own:     []string{dir},
	}
	want.warnings = got.warnings // TestPolicyWarnings has them
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if p, _, err := policy(t, "[limits]\nrate = 5000\n"); err != nil || p.Limits.Rate != 5000 {
		t.Errorf("a rate without quotes: %+v, %v", p, err)
	}
	if p, _, err := policy(t, "[cache]\nmode = \"0640\"\ngroup = \"hpc\"\n"); err != nil || p.Cache != (Cache{Mode: 0o640, Group: "hpc"}) {
		t.Errorf("who may read the cache: %+v, %v", p, err)
	}
	none, err := LoadPolicy(t.TempDir())
	if err != nil || none.Outputs != nil || none.Data.Plain {
		t.Errorf("without a file: %+v, %v", none, err)
	}
}

func TestPolicyErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[[output]]\ndir = \"/data\"\noverwite = true\n", `line 3: unknown key "output.overwite" (did you mean overwrite?)`},
		{"[[output]]\ndir = \"/a\"\ndirectories = 1\n", "line 3: directories = 1: want true or false"},
		{"[outputs]\n", `line 1: unknown key "outputs" (did you mean output?)`},
		{"x = 1\n", `line 1: unknown key "x"`},
		{"[data]\n\nplain = \"yes\"\n", "line 3"},
		{"[data\n", "line 1"},
		{"[cache]\nmode = \"0641\"\n", `mode = "0641": want "0600", "0640" or "0644"`},
		{"[cache]\nmode = \"0666\"\n", `mode = "0666"`},
		{"[cache]\nmode = \"4640\"\n", `mode = "4640"`},
		{"[cache]\nmode = 0o640\n", "line 2"},
		{"[cache]\ngroup = \"hpc\"\n", `group = "hpc": needs a mode`},
		{"[limits]\nrate = \"fast\"\n", `line 2: rate = "fast": size "fast"`},
		{"[limits]\nrate = \"-1\"\n", `size "-1"`},
		{"[limits]\nrate = -5\n", "rate = -5: negative"},
		{"[limits]\nrate = true\n", `line 2: rate = true: want a number of bytes`},
		{"output = [\n{dir = \"/a\"},\n{dir = \"b\"}]\n", `line 3: dir = "b": want an absolute path`},
		{"limits = {\nrate = -1}\n", "line 2: rate = -1: negative"},
		{"limits.rate = 1\nlimits.x.y = 1\n", `line 2: unknown key "limits.x"`},
		{"output = 1\n", "line 1: output: want a list of tables"},
		{"output = [1]\n", "line 1: output: want a list of tables"},
		{"\n[[cache]]\nmax = 1\n", "line 2: cache: want a table"},
		{"[limits]\ntransfers = \"4\"\n", "line 2: transfers = \"4\": want 1 to 5"},
		{"[limits]\ntransfers = -1\n", "want 1 to 5"},
		{"[limits]\ntransfers = 6\n", "want 1 to 5"},
		{"[[output]]\ndir = \"data\"\n", `dir = "data": want an absolute path`},
		{"[[output]]\ndir = \"/data/\"\n", `dir = "/data/"`},
		{"[[output]]\ndir = \"/data/../etc\"\n", `dir = "/data/../etc"`},
		{"[[output]]\noverwrite = true\n", `line 1: dir = ""`},
		{"[[output]]\ndir = \"/a\"\n[[output]]\ndir = \"/a\"\n", "line 4: dir = \"/a\": given twice"},
		{"[[device]]\npath = \"sda\"\n", `path = "sda"`},
		{"[[device]]\npath = \"/data/sda\"\n", `line 2: path = "/data/sda": want a path below /dev`},
		{"[[device]]\npath = \"/dev\"\n", `want a path below /dev`},
		{"[[device]]\n", "line 1: [[device]] needs a path, or what the disk has"},
		{"[[device]]\nname = \"a\"\n", "line 1: [[device]] needs a path, or what the disk has"},
		{"[[device]]\nbus = \"nvme\"\n", "line 1: [[device]] needs a name where it has no path"},
		{"[[device]]\nname = \"-a\"\nbus = \"nvme\"\n", `line 2: name = "-a": want letters`},
		{"[[device]]\nname = \"a:b\"\nbus = \"nvme\"\n", `line 2: name = "a:b": want letters`},
		{"[[device]]\nname = 1\nbus = \"nvme\"\n", `line 2: name = 1: want a text in quotes`},
		{"[[device]]\nname = \"a\"\nbus = \"nvme\"\n[[device]]\nname = \"a\"\nbus = \"sata\"\n", `line 5: name = "a": given twice`},
		{"[[device]]\nname = \"a\"\nbus = \"ide\"\n", `line 3: bus = "ide": want one of fc, `},
		{"[[device]]\nname = \"a\"\nmodel = \"\"\n", `line 3: model = "": want a text without blanks`},
		{"[[device]]\nname = \"a\"\nserial = \"S1 \"\n", `line 3: serial = "S1 "`},
		{"[[device]]\nname = \"a\"\nwwn = 5\n", `line 3: wwn = 5: want a text in quotes`},
		{"[[device]]\nname = \"a\"\nsize = \"1T\"\n", `line 3: size = "1T": want a range`},
		{"[[device]]\nname = \"a\"\nsize = \"..\"\n", `want a range`},
		{"[[device]]\nname = \"a\"\nsize = \"2T..1T\"\n", `no size is in this range`},
		{"[[device]]\nname = \"a\"\nsize = \"1X..1T\"\n", `size "1X"`},
		{"[[device]]\nname = \"a\"\nsize = 5\n", `size = 5: want a text in quotes`},
		{"[[device]]\nname = \"a\"\npart = 5\n", `unknown key "device.part"`},
	} {
		_, dir, err := policy(t, c.text)
		var policyErr *PolicyError
		if !errors.As(err, &policyErr) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	dir := t.TempDir()
	write(t, dir+"/policy.toml", 0o666, []byte(fullPolicy))
	if _, err := LoadPolicy(dir); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("writable by all: %v", err)
	}
	os.Remove(dir + "/policy.toml")
	os.Mkdir(dir+"/policy.toml", 0o700)
	if _, err := LoadPolicy(dir); err == nil {
		t.Error("a directory was read")
	}
}

// All errors are told at once, in the order of their lines.
func TestPolicyAllErrors(t *testing.T) {
	_, dir, err := policy(t, `[cache]
max = "1 furlong"
groups = "x"
group = "hpc"
[[output]]
overwrite = 1
[[output]]
dir = "data"
over = true
[device]
`)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%v", err)
	}
	var got []string
	for _, err := range joined.Unwrap() {
		text, _ := strings.CutPrefix(err.Error(), "policy "+dir+"/policy.toml: ")
		got = append(got, text)
	}
	want := []string{`line 2: max = "1 furlong": size "1 furlong": not a number of bytes (such as 500M)`, `line 3: unknown key "cache.groups" (did you mean group?)`,
		`line 4: group = "hpc": needs a mode beside it, as in mode = "0640"`,
		`line 5: dir = "": [[output]] needs an absolute path`, `line 6: overwrite = 1: want true or false`,
		`line 8: dir = "data": want an absolute path without . or .. and without a slash at its end`, `line 9: unknown key "output.over" (did you mean overwrite?)`,
		`line 10: device: want a list of tables, as in [[device]]`}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A sender names a device by its name, or by a path that the policy lists, and nothing else.
func TestPolicyDevice(t *testing.T) {
	p, _, err := policy(t, "[[device]]\nname = \"system\"\npath = \"/dev/sda\"\n[[device]]\npath = \"/dev/sdb\"\n[[device]]\nname = \"big\"\nsize = \"1T..\"\n")
	if err != nil {
		t.Fatal(err)
	}
	for output, want := range map[string]int{
		"device:system": 0, "/dev/sda": 0, "/dev/sdb": 1, "device:big": 2,
		"device:": -1, "device:Big": -1, "/dev/sdc": -1, "/dev/../dev/sda": -1, "": -1, "big": -1,
	} {
		d, err := p.Device(output)
		switch denied := new(DeviceDeniedError); {
		case want < 0 && !errors.As(err, &denied):
			t.Errorf("%q: got %+v, %v", output, d, err)
		case want >= 0 && (err != nil || d != p.Devices[want]):
			t.Errorf("%q: got %+v, %v, want %+v", output, d, err, p.Devices[want])
		}
	}
	if _, err := (*Policy)(nil).Device("/dev/sda"); err == nil {
		t.Error("no policy permits a device")
	}
	for size, want := range map[int64]bool{1e12 - 1: false, 1e12: true, 1 << 62: true} {
		if p.Devices[2].Size.Has(size) != want {
			t.Errorf("%d bytes are in %v: want %v", size, p.Devices[2].Size, want)
		}
	}
}

func TestPolicyWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"[[output]]\ndir = \"/\"\noverwrite = true\n": `line 2: dir = "/": whoever holds a sender's key can write files of the system, as root, in place of those that are there`,
		"[[output]]\ndir = \"/etc\"\n":                `line 2: dir = "/etc": `,
		"\n[cache]\nmax = \"0\"\n":                    "line 3: max = 0 is no limit",
		"[cache]\nmax = \"200\"\n":                    "line 2: max is 200 B: hardly any image fits",
		"[limits]\nrate = 0\n":                        "line 2: rate = 0 is no limit",
		"[limits]\ntransfers = 0\n":                   "line 2: transfers = 0 is the default",
		"[limits]\nrate = 500\n":                      "line 2: rate is 500 B/s: a node that gets on by less than 16.4 kB/s is taken for one that hangs",
		"[limits]\nrate = 50000\n":                    "line 2: rate is 50.0 kB/s: 1 GB takes 5h33m20s",
		"[cache]\nfree = \"0\"\nmode = \"0644\"\n":    "",
	} {
		p, dir, err := policy(t, text)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(p.Warnings(), "\n")
		if want == "" && got != "" || want != "" && !strings.HasPrefix(got, "policy "+dir+"/policy.toml: "+want) {
			t.Errorf("%q: warned %q, want %q", text, got, want)
		}
	}
}

func TestOutput(t *testing.T) {
	p, _, err := policy(t, fullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	root := &Policy{Outputs: []Output{{Dir: "/"}, {Dir: "/tmp", Overwrite: true}}}
	for _, c := range []struct {
		policy *Policy
		path   string
		want   string
	}{
		{p, "/data/a.sif", "/data|a.sif|true"},
		{p, "/data/x/y/a.sif", "/data|x/y/a.sif|true"},
		{p, "/data/keep/a.sif", "/data/keep|a.sif|false"},
		{p, "/data/keeper", "/data|keeper|true"},
		{p, "/data/keep", "/data|keep|true"},
		{p, "/data", "denied"},
		{p, "/database/a", "denied"},
		{p, "/", "denied"},
		{p, "/data/../etc/passwd", "malformed"},
		{p, "/data//a", "malformed"},
		{p, "/data/a/", "malformed"},
		{p, "data/a", "malformed"},
		{p, "", "malformed"},
		{p, "/data/a\x00", "malformed"},
		{root, "/etc/passwd", "/|etc/passwd|false"},
		{root, "/tmp/a", "/tmp|a|true"},
		{&Policy{}, "/data/a", "denied"},
		{nil, "/data/a", "denied"},
	} {
		dir, rel, overwrite, err := c.policy.Output(c.path)
		got := fmt.Sprintf("%s|%s|%v", dir, rel, overwrite)
		var denied *DeniedError
		switch {
		case errors.As(err, &denied):
			got = "denied"
			if kind, about := denied.Kind(); (kind == "output-below") != (c.path == "/data" && c.policy == p) || kind == "" || len(about) == 0 {
				t.Errorf("kind %q about %q", kind, about)
			}
		case err != nil:
			got = "malformed"
		}
		if got != c.want {
			t.Errorf("Output(%q) = %s, want %s", c.path, got, c.want)
		}
	}
}

// Nobody is ever told to open a directory of the system.
func TestDeniedKind(t *testing.T) {
	const permitted = "/data, /data/keep"
	full, _, err := policy(t, fullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/scratch/a.sif":                 "/scratch",
		"/srv/images/a.sif":              "/srv/images",
		"/opt/app/a.sif":                 "/opt/app",
		"/var/lib/images/a":              "/var/lib/images",
		"/etcetera/a":                    "/etcetera",
		"/a.sif":                         "",
		"/etc/foo":                       "",
		"/etc/ssh/x/y":                   "",
		"/usr/local/bin/tool":            "",
		"/boot/vmlinuz":                  "",
		"/root/a":                        "",
		"/dev/shm/a":                     "",
		"/home/alice/a.sif":              "",
		"/tmp/a":                         "",
		"/var/lib/a":                     "",
		"/var/lib/dolly-img/cache/blobs": "",
		"/run/a":                         "",
	} {
		for _, p := range []*Policy{{}, full} {
			_, _, _, err := p.Output(path)
			var denied *DeniedError
			add := want
			if want == "" && p != full {
				add = "/srv/dolly-img"
			}
			if !errors.As(err, &denied) || denied.Add() != add {
				t.Fatalf("%s: %v, want to add %q", path, err, add)
			}
			kind, about := denied.Kind()
			wantKind, say := errkind.Kind("output-elsewhere"), permitted
			switch add {
			case "":
			case want:
				wantKind, say = "output-denied", add
			default:
				wantKind, say = "output-of-system", add
			}
			if kind != wantKind || !slices.Contains(about, say) {
				t.Errorf("%s: kind %q about %q, want %q about %q", path, kind, about, wantKind, say)
			}
		}
	}
}

// What parses obeys the rules that Output relies on.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(fullPolicy))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, wrong := parsePolicy(data)
		for _, at := range wrong {
			if at.line < 1 || at.line > 1+strings.Count(string(data), "\n") {
				t.Errorf("line %d of %q: %v", at.line, data, at.err)
			}
		}
		if wrong != nil {
			return
		}
		if p.Limits.Rate < 0 || p.Limits.Transfers < 0 {
			t.Errorf("limits %+v", p.Limits)
		}
		for _, o := range p.Outputs {
			if !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) != o.Dir {
				t.Errorf("dir %q", o.Dir)
			}
			path := filepath.Join(o.Dir, "x")
			if dir, rel, _, err := p.Output(path); err != nil || filepath.Join(dir, rel) != path {
				t.Errorf("Output(%q) = %q, %q, %v", path, dir, rel, err)
			}
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decode(data)
		if err == nil && file == nil {
			t.Error("neither file nor error")
		}
	})
}

// A rule permits whole directories only where it says so, and the longest rule counts.
func TestPolicyDirectory(t *testing.T) {
	p, _, err := policy(t, fullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	dir, rel, overwrite, err := p.Directory("/data/a/b")
	if dir != "/data" || rel != "a/b" || !overwrite || err != nil {
		t.Errorf("%q, %q, %v, %v", dir, rel, overwrite, err)
	}
	for path, want := range map[string]errkind.Kind{"/data/keep/a": "output-directories", "/data": "output-top", "/srv/a": "output-denied"} {
		_, _, _, err := p.Directory(path)
		if kind, _ := errkind.Of(err); kind != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	_, _, _, err = (&Policy{Outputs: []Output{{Dir: "/srv"}}}).Directory("/srv")
	if kind, _ := errkind.Of(err); kind != "output-directories" {
		t.Errorf("no directories are permitted: %v", err)
	}
}
