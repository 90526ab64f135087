package warm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/hostlist"
)

const fullList = `
[defaults]
every    = "15m"
windows  = ["Mon-Fri 20:00-06:00", "Sat-Sun"]
zone     = "Europe/Zurich"
outside  = "100M"
rings    = 3
retry    = "2m..2h"
catch-up = "90s"
keys     = "/etc/dolly-img/warmer"
state    = "/var/lib/dolly-img/warm"
socket   = "/run/dolly-img/warm.sock"

[nodes.gpu]
list     = "gpu[001-128]"
platform = "linux/amd64"

[nodes.arm]
command = "sinfo -hN -o %N -p arm"
platform = "linux/arm64/v8"

[[image]]
ref      = "docker://registry.example/ml/torch"
tags     = "25.*"
nodes    = ["gpu", "arm"]
pin      = true
keep     = 2
min      = "98.5%"
rate     = "500M"
priority = 10
authfile = "/etc/dolly-img/auth.json"

[[image]]
ref    = "/images/chem.sif"
name   = "chem"
nodes  = ["arm"]
`

func TestParse(t *testing.T) {
	l, err := Parse([]byte(fullList))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.Groups[1].Names); n != 128 || l.Groups[1].Names[127] != "gpu128" {
		t.Errorf("%d nodes: %q", n, l.Groups[1].Names)
	}
	l.Groups[1].Names = nil
	if len(l.Windows) != 2 || l.Zone.String() != "Europe/Zurich" {
		t.Errorf("windows %v, zone %v", l.Windows, l.Zone)
	}
	l.Windows, l.Zone = nil, nil
	want := &List{Every: 15 * time.Minute, Outside: Outside{Rate: 100e6}, Rings: 3, Retry: Retry{2 * time.Minute, 2 * time.Hour}, CatchUp: 90 * time.Second,
		Keys: "/etc/dolly-img/warmer", State: "/var/lib/dolly-img/warm", Socket: "/run/dolly-img/warm.sock",
		Groups: []Group{{Name: "arm", Command: "sinfo -hN -o %N -p arm", Platform: "linux/arm64/v8"}, {Name: "gpu", Platform: "linux/amd64"}},
		Images: []Image{
			{Ref: "docker://registry.example/ml/torch", Tags: "25.*", Nodes: []string{"gpu", "arm"}, Pin: true, Keep: 2, Min: 98.5, Rate: 500e6, Priority: 10, AuthFile: "/etc/dolly-img/auth.json"},
			{Ref: "/images/chem.sif", Name: "chem", Nodes: []string{"arm"}, Keep: 1, Min: 100},
		}}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	least, err := Parse([]byte("[nodes.all]\nfile = \"/etc/nodes\"\n[[image]]\nref = \"/a.sif\"\nnodes = [\"all\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if least.Every != 10*time.Minute || least.CatchUp != time.Minute || least.Rings != 2 || least.Retry != (Retry{time.Minute, time.Hour}) || !least.Open(time.Now()) {
		t.Errorf("defaults %+v", least)
	}
}

// Every mistake is named with its line, all of them at once.
func TestParseMistakes(t *testing.T) {
	const text = `[defaults]
every = "5"
window = "Sat"
windows = ["Sat", "Fun 10:00-11:00"]
zone = "Europe/Zuerich"
outside = "slow"
rings = 0
retry = "1h..1m"
catch-up = "1s"
keys = "warmer"
[nodes.gpu]
list = "gpu[1-"
platform = "amd64"
hosts = "a"
[nodes.cpu]
list = "cpu[1-9]"
command = "sinfo"
[[image]]
ref = "docker://user:secret@registry.example/ml/torch"
nodes = ["gpu", "cpus", "gpu"]
pin = "yes"
keep = 0
min = "98"
rate = 500
[[image]]
nodes = []
tags = "[1"
[[image]]
ref = "docker://registry.example/ml/torch:25.10"
tags = "25.*"
nodes = ["cpu"]
[[image]]
ref = "/a b.sif"
tags = "*"
nodes = ["cpu"]
[[image]]
ref = "docker://torch@sha256:00"
nodes = ["cpu"]
name = "torch"
[[image]]
ref = "docker://torch@sha256:00"
nodes = ["cpu"]
name = "torch"
output = "x"
authfile = 1
[server]
`
	want := []string{
		`2: every = "5": want a time from 10s to 744h0m0s, such as "10m"`,
		`3: unknown key "window"`,
		`4: windows = [Sat Fun 10:00-11:00]: window "Fun 10:00-11:00": "Fun" is no day or days (Mon Tue Wed Thu Fri Sat Sun)`,
		`5: zone = "Europe/Zuerich": unknown time zone Europe/Zuerich`,
		`6: outside = "slow": want "off", "full" or bytes per second, such as "100M"`,
		`7: rings = 0: want 1 to 16`,
		`8: retry = "1h..1m": want two times, as in "1m..1h"`,
		`9: catch-up = "1s": want a time from 5s to 744h0m0s, such as "10m"`,
		`10: keys = "warmer": want an absolute path`,
		`12: list = "gpu[1-": node list: "gpu[1-" at 4: `,
		`13: platform = "amd64": want a platform, such as "linux/amd64"`,
		`14: unknown key "hosts"`,
		`15: nodes.cpu: want one of list, file and command`,
		`19: ref: credentials in the image's name; they go into a file that authfile names`,
		`20: nodes: there is no [nodes.cpus]`,
		`20: nodes: "gpu" is given twice`,
		`21: pin = "yes": want true or false`,
		`22: keep = 0: want 1 to 9`,
		`23: min = "98": want a share of the nodes, such as "98%"`,
		`24: rate = 500: want bytes per second, from 1M on, such as "100M"`,
		`25: image: needs a ref, as in ref = "docker://registry.example/ml/torch:25.10"`,
		`26: nodes = []: want a list of texts, as in ["gpu"]`,
		`27: tags = "[1": want a pattern of tags, such as "25.*"`,
		`30: tags: docker://registry.example/ml/torch:25.10 already has a tag or a digest`,
		`33: ref = "/a b.sif": want a text without blanks`,
		`41: ref = "docker://torch@sha256:00": the same stands in line 37; nodes may have several groups`,
		`43: name = "torch": the same stands in line 39; a cache has room for one image of a name`,
		`44: output = "x": nodes take no files from a warmer, `,
		`45: authfile = 1: want an absolute path`,
		`46: unknown key "server"`,
	}
	_, err := Parse([]byte(text))
	got := mistakes(t, err)
	for i := range max(len(got), len(want)) {
		if i >= len(want) || i >= len(got) || !strings.HasPrefix(got[i], "line "+want[i]) {
			t.Fatalf("mistake %d of\n%s", i, strings.Join(got, "\n"))
		}
	}
	for text, want := range map[string]string{
		"[defaults]\nevery = 5 m\n":              "line 2: ",
		"[defaults]\noutside = \"off\"\n":        "line 2: outside: there are no windows that anything is outside of",
		"[defaults]\nwindows = [\"Sat\"]\n":      "line 2: windows: say with outside ",
		"\nnodes = 1\n":                          "line 2: nodes = 1: want tables",
		"[nodes]\ngpu = \"a\"\n":                 "line 2: nodes.gpu: want a table",
		"[image]\nref = \"a\"\n":                 "line 1: image = ",
		"[nodes.a]\nlist = \"@/etc/nodes\"\n":    "line 2: list = \"@/etc/nodes\": a file of nodes is given with the key file",
		"# " + strings.Repeat("x", maxList) + "": "larger than 1048576 bytes",
		"[nodes.a]\nlist=\"n\"\n[[image]]\nref=\"docker://r.e/a\"\ntags=\"*\"\nname=\"a\"\nnodes=[\"a\"]": "line 6: name: one name cannot",
		"[nodes.a]\nlist=\"n\"\n[[image]]\nref=\"/a.sif\"\ntags=\"*\"\nnodes=[\"a\"]":                     "line 5: tags: /a.sif is in no registry",
		// A password is not printed, whatever else is wrong.
		"[nodes.a]\nlist=\"n\"\n[[image]]\nref=\"docker://u:p w@r.e/a\"\nnodes=[\"a\"]":              "line 4: ref = …: want a text without blanks",
		"[nodes.a]\nlist=\"n\"\n[[image]]\nref=\"docker://u:pw@r.e/a:1\"\ntags=\"*\"\nnodes=[\"a\"]": "line 4: ref: credentials in",
	} {
		_, err := Parse([]byte(text))
		if got := mistakes(t, err); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%.60q: got %q, want %q", text, got, want)
		}
	}
}

// mistakes returns what each error says, and fails if one is no *LineError.
func mistakes(t *testing.T, err error) (list []string) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%#v is no list of errors", err)
	}
	for _, err := range joined.Unwrap() {
		if at := new(LineError); !errors.As(err, &at) {
			t.Errorf("%#v", err)
		}
		list = append(list, err.Error())
	}
	return list
}

// Windows follow the local clock: through midnight, over the end of the week, and where it is put forward or back.
func TestWindows(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		window, at string
		want       bool
	}{ // 2026-11-27 is a Friday.
		{"Mon-Fri 20:00-06:00", "2026-11-27T18:59:59Z", false},
		{"Mon-Fri 20:00-06:00", "2026-11-27T19:00:00Z", true},
		{"Mon-Fri 20:00-06:00", "2026-11-28T04:59:59Z", true}, // Saturday morning belongs to Friday
		{"Mon-Fri 20:00-06:00", "2026-11-28T05:00:00Z", false},
		{"Mon-Fri 20:00-06:00", "2026-11-29T22:30:00Z", false}, // Sunday
		{"Mon-Fri 20:00-06:00", "2026-11-30T00:00:00Z", false}, // the night before Monday is Sunday's
		{"fri-mon", "2026-11-29T23:30:00Z", true},
		{"fri-mon", "2026-12-01T00:00:00Z", false},
		{"Sat,Sun", "2026-11-29T22:59:59Z", true},
		{"Sat,Sun", "2026-11-29T23:00:00Z", false},
		{"01:00-24:00", "2026-11-27T22:59:59Z", true},
		{"01:00-24:00", "2026-11-27T23:00:00Z", false},
		{"Sun 02:00-03:00", "2026-03-29T00:59:59Z", false}, // 01:59:59, and a second later it is 03:00
		{"Sun 02:00-03:00", "2026-03-29T01:00:00Z", false},
		{"Sun 02:00-03:00", "2026-10-25T00:00:00Z", true}, // 02:00 the first time
		{"Sun 02:00-03:00", "2026-10-25T01:59:59Z", true}, // 02:59:59 the second time
		{"Sun 02:00-03:00", "2026-10-25T02:00:00Z", false},
		{"Sat 22:00-04:00", "2026-03-28T20:59:59Z", false}, // through midnight, in the night that has no 02:30
		{"Sat 22:00-04:00", "2026-03-28T23:00:00Z", true},
		{"Sat 22:00-04:00", "2026-03-29T01:59:59Z", true},
		{"Sat 22:00-04:00", "2026-03-29T02:00:00Z", false},
		{"Sat 22:00-02:30", "2026-10-25T00:29:59Z", true}, // and in the one that has two
		{"Sat 22:00-02:30", "2026-10-25T00:30:00Z", false},
		{"Sat 22:00-02:30", "2026-10-25T01:00:00Z", true},
		{"Sat 22:00-02:30", "2026-10-25T01:30:00Z", false},
	} {
		w, err := ParseWindow(tt.window)
		at, err2 := time.Parse(time.RFC3339, tt.at)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if got := (&List{Windows: []Window{w}, Zone: zone}).Open(at); got != tt.want {
			t.Errorf("%s at %v: got %v", tt.window, at.In(zone), got)
		}
	}
	for opens, at := range map[string]string{ // The window of 29 March is not there.
		"2026-04-05T00:00:00Z": "2026-03-22T02:00:30Z", "2026-10-25T00:00:00Z": "2026-10-19T12:00:00Z",
	} {
		w, err := ParseWindow("Sun 02:00-03:00")
		want, err2 := time.Parse(time.RFC3339, opens)
		from, err3 := time.Parse(time.RFC3339, at)
		if got := (&List{Windows: []Window{w}, Zone: zone}).Opens(from); err != nil || err2 != nil || err3 != nil || !got.Equal(want) {
			t.Errorf("opens at %v, not at %v", got, want)
		}
	}
	for _, s := range []string{"", "Mon Tue", "Mon-", "Mon 8:00-10:00", "10:00", "10:00-10:00", "24:00-01:00", "10:00-25:00", "Mon 10:00-11:00 x"} {
		if w, err := ParseWindow(s); err == nil {
			t.Errorf("%q is %v", s, w)
		}
	}
}

// The lists of nodes are read as @FILE of the command line is; a file without nodes and a command that fails are errors.
func TestNodes(t *testing.T) {
	file := t.TempDir() + "/nodes"
	if err := os.WriteFile(file, []byte("gpu[1-3] # three\ngpu7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		group Group
		want  string
	}{
		{Group{Names: []string{"a", "b"}}, "[a b]"},
		{Group{File: file}, "[gpu1 gpu2 gpu3 gpu7]"},
		{Group{Command: "echo 'a[1-2]'; echo b"}, "[a1 a2 b]"},
		{Group{Name: "cpu", Command: "true"}, "command of nodes.cpu: node list: no nodes in it"},
		{Group{Command: "echo a; echo no slurm >&2; exit 3"}, "command of nodes.: exit status 3; the log has what it says"},
		{Group{Command: "echo 'a[1-'"}, "command of nodes.: no list of nodes; the log says where"},
		{Group{File: file + "x"}, "file " + file + "x: no such file or directory"},
	} {
		names, err := ReadNodes(t.Context(), &tt.group)
		got := fmt.Sprint(names)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%+v: got %s", tt.group, got)
		}
	}
	if _, err := ReadNodes(t.Context(), &Group{Command: "true"}); !errors.Is(err, hostlist.ErrEmpty) {
		t.Error(err)
	}
	said := new(nodesError)
	_, err := ReadNodes(t.Context(), &Group{Name: "n", Command: "echo a; echo 'a[1-'"})
	if !errors.As(err, &said) || !strings.HasPrefix(said.details, `node list: command of nodes.n, line 2: "a[1-"`) {
		t.Errorf("%v: %s", err, said.details)
	}
}

// Whatever a command has started ends with it, and with the context; one that prints without end is ended.
func TestNodesEnd(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, command string
		cancel        bool
		want          string
	}{
		{"is cancelled", "exec 9>" + fifo + "; sleep 1000 9>&9 & sleep 1000", true, "command of nodes.n: context canceled"},
		{"leaves something running", "exec 9>" + fifo + "; sleep 1000 & echo a", false, "[a]"},
		{"prints without end", "exec 9>" + fifo + "; cat /dev/zero & cat /dev/zero", false, "command of nodes.n: prints more than 4194304 bytes"},
		{"says much and succeeds", "exec 9>" + fifo + "; yes e | head -c 100000 >&2; echo a", false, "[a]"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		said := make(chan string)
		go func() {
			names, err := ReadNodes(ctx, &Group{Name: "n", Command: c.command})
			if err != nil {
				said <- err.Error()
			} else {
				said <- fmt.Sprint(names)
			}
		}()
		f, err := os.Open(fifo) // It waits for the command.
		if err != nil {
			t.Fatal(err)
		}
		if c.cancel {
			cancel()
		}
		if got := <-said; got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if _, err := io.Copy(io.Discard, f); err != nil { // It ends when nobody has it open any more.
			t.Error(err)
		}
		f.Close()
		cancel()
	}
}

// What is read keeps its bounds, and says what is wrong in lines that the document has.
func FuzzParse(f *testing.F) {
	f.Add(fullList)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse([]byte(text))
		if err != nil {
			lines := strings.Count(text, "\n") + 1
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				if at := new(LineError); !errors.As(e, &at) || at.Line > lines {
					t.Errorf("%v, of %d lines", e, lines)
				}
			}
			return
		}
		if l.Every < leastEvery || l.CatchUp < leastCatchUp || l.Rings < 1 || l.Retry.Least < leastRetry || l.Retry.Least > l.Retry.Most || l.Zone == nil {
			t.Errorf("%+v", l)
		}
		for _, i := range l.Images {
			known := func(name string) bool {
				return slices.ContainsFunc(l.Groups, func(g Group) bool { return g.Name == name })
			}
			if i.Ref == "" || i.Keep < 1 || i.Keep > mostKeep || !(i.Min > 0 && i.Min <= 100) || len(i.Nodes) == 0 || !known(i.Nodes[0]) {
				t.Errorf("%+v", i)
			}
			i.Matches("25.10")
		}
		l.Open(time.Unix(1e9, 0))
	})
}
