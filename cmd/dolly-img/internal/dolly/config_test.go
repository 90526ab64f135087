package dolly

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// guideFile is the example of SUSE's guide, without the numbers of its notes.
const guideFile = `infile /tmp/sle15.sif
outfile /data/sle15.sif
server sle151
firstclient sle152
lastclient sle154
clients 3
sle152
sle153
sle154
endconfig
`

func TestConfig(t *testing.T) {
	in, out := Path{Path: "/i"}, Path{Path: "/o"}
	ab := []string{"a", "b"}
	for _, tt := range []struct {
		text string
		want Config
	}{
		{guideFile, Config{Input: Path{Path: "/tmp/sle15.sif"}, Output: Path{Path: "/data/sle15.sif"}, Server: "sle151",
			Nodes: []string{"sle152", "sle153", "sle154"}}},
		{"infile /i\noutfile /o\na\nb\nendconfig", Config{Input: in, Output: out, Nodes: ab}}, // 0.70 and later
		{"# a comment\n\n infile /i # another\r\n\toutfile /o\na\n#\n\nb\nendconfig\nwhatever\x01 follows\n", Config{Input: in, Output: out, Nodes: ab}},
		{"infile /i#1\noutfile /o\na\nendconfig", Config{Input: Path{Path: "/i#1"}, Output: out, Nodes: []string{"a"}}},
		{"compressed infile /i split\ncompressed outfile /o split 2G\na\nb\nendconfig\n", Config{
			Input: Path{Path: "/i", Compressed: true, Split: true}, Output: Path{Path: "/o", Compressed: true, Split: true, Each: 2 << 30}, Nodes: ab}},
		{"infile /i\noutfile /o split 1500\na\nendconfig\n", Config{Input: in, Output: Path{Path: "/o", Split: true, Each: 1500}, Nodes: []string{"a"}}},
		{"infile /i\noutfile /o split 3k\na\nendconfig\n", Config{Input: in, Output: Path{Path: "/o", Split: true, Each: 3 << 10}, Nodes: []string{"a"}}},
		{"infile /i\noutfile /o split 1T\na\nendconfig\n", Config{Input: in, Output: Path{Path: "/o", Split: true, Each: 1 << 40}, Nodes: []string{"a"}}},
		{"dummy 100\na\nb\nendconfig\n", Config{Dummy: true, DummyBytes: 100 << 20, Nodes: ab}},
		{"dummy\noutfile /o\nclients 2\na\nb\nendconfig\n", Config{Dummy: true, Output: out, Nodes: ab}},
		{"infile /i\noutfile /o\nsegsize 1024\nadd 1:-giga\nfanout 2\nhyphennormal\nclients 2\na\nb\nendconfig\n", Config{Input: in, Output: out, Nodes: ab,
			Suffix: Suffix{Text: "-giga"}, HyphenNormal: true, Ineffective: []string{"segsize", "fanout"},
			Notes: []string{"add 1:-giga: data goes over the network of these names only, not over both by turns"}}},
		{"infile /i\noutfile /o\nadd2 0:-fast\nhypheninterface\na\nb\nendconfig\n", Config{Input: in, Output: out, Nodes: ab, Suffix: Suffix{"-fast", true}}},
		{"infile /i\noutfile /o\nfirstclient b\nlastclient a\na\nb\nendconfig\n", Config{Input: in, Output: out, Nodes: ab, Notes: []string{
			"firstclient b is not the first in the list of nodes, whose order counts", "lastclient a is not the last in the list of nodes, whose order counts"}}},
		{"infile /i\noutfile /o\nclients 3\na \t\nb\na\nendconfig\n", Config{Input: in, Output: out, Nodes: ab, Notes: []string{"node a is in the list twice, in line 4 and in line 6, and gets it once"}}},
		{"infile /i\noutfile /o\nclients 2\na\nb\na\nendconfig\n", Config{Input: in, Output: out, Nodes: ab, Notes: []string{"node a is in the list twice, in line 4 and in line 6, and gets it once"}}},
		{"infile /i\noutfile /o\n[fd00::1]:9998\nfd00::2\n10.0.0.1\nn:7000\nendconfig\n", Config{Input: in, Output: out, Nodes: []string{"[fd00::1]:9998", "fd00::2", "10.0.0.1", "n:7000"}}},
	} {
		got, err := ReadConfig(strings.NewReader(tt.text), "f")
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%q: got %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	const head = "infile /i\noutfile /o\n"
	for _, tt := range []struct{ text, want string }{
		{"", "f: want infile and a path"},
		{"\n\noutfile /o\n", "f line 3: want infile"},
		{"compressed\n", "f line 1: want infile"},
		{"compressed outfile /o\n", "f line 1: want infile"},
		{"infile\n", "f line 1: infile: no path"},
		{"infile /i x\n", `f line 1: infile /i: "x" behind the path`},
		{"infile /i split 2G\n", `f line 1: infile /i split: "2G" behind it`},
		{"infile /i\na\n", "f line 2: want outfile"},
		{"infile /i\n", "f line 1: want outfile"},
		{"infile /i\noutfile /o split\n", "f line 2: outfile /o split: want the size"},
		{"infile /i\noutfile /o split 2X\n", "f line 2: outfile /o split 2X: want a number with k, M, G or T"},
		{"infile /i\noutfile /o split 2g\n", "f line 2: outfile /o split 2g: want"},
		{"infile /i\noutfile /o split 0k\n", "f line 2: outfile /o split 0k: want"},
		{"infile /i\noutfile /o split 9999999T\n", "f line 2: outfile /o split 9999999T: want"},
		{"dummy 0\na\nendconfig\n", "f line 1: dummy 0: want"},
		{"dummy 1 2\na\nendconfig\n", "f line 1: want dummy"},
		{head + "segsize x\na\nendconfig\n", "f line 3: segsize x: want a number"},
		{head + "fanout 1 2\na\nendconfig\n", "f line 3: want fanout and one word"},
		{head + "add 2:-a:-b\na\nendconfig\n", "f line 3: add 2:-a:-b: data goes over one network"},
		{head + "add x:-a\na\nendconfig\n", "f line 3: add x:-a: want the number"},
		{head + "add 1\na\nendconfig\n", "f line 3: add 1: want one suffix"},
		{head + "add 1:\na\nendconfig\n", "f line 3: add 1:: want one suffix"},
		{head + "add 1:/\na\nendconfig\n", "f line 3: add 1:/: "},
		{head + "hyphennormal 1\na\nendconfig\n", "f line 3: hyphennormal: "},
		{head + "fanout 1\nsegsize 1\na\nendconfig\n", "f line 4: segsize stands too late"},
		{head + "a\nserver b\nendconfig\n", "f line 4: server stands too late"},
		{head + "clients 3\na\nb\nendconfig\n", "f line 3: clients 3: 2 names follow"},
		{head + "clients 0\nendconfig\n", "f line 3: clients 0: want a number from 1"},
		{head + "clients 1\nendconfig\n", "f line 4: no nodes in front of endconfig"},
		{head + "a\nb", "f line 4: no endconfig at the end"},
		{head + "a b\nendconfig\n", `f line 3: "b" behind the name`},
		{head + "clients 4\na\nb\na\nendconfig\n", "f line 3: clients 4: 2 names follow"},
		{head + "n[1-3]\nendconfig\n", `f line 3: "n[1-3]" is not the name of a node`},
		{head + "@file\nendconfig\n", `f line 3: "@file" is not the name of a node`},
		{head + "a:0\nendconfig\n", "f line 3: "},
		{head + "-x\nendconfig\n", "f line 3: "},
		{head + "a\x00\nendconfig\n", "f: is not text"},
	} {
		_, err := ReadConfig(strings.NewReader(tt.text), "f")
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
		if !errors.As(err, new(*ConfigError)) {
			t.Errorf("%q: %T", tt.text, err)
		}
	}
}

func TestSuffix(t *testing.T) {
	for _, tt := range []struct {
		s          Suffix
		node, want string
	}{
		{Suffix{}, "cops1", "cops1"},
		{Suffix{Text: "-giga"}, "cops1", "cops1-giga"},
		{Suffix{Text: "-giga"}, "cops1:7000", "cops1-giga:7000"},
		{Suffix{"-fast", true}, "xibalba101", "xibalba-fast101"},
		{Suffix{"-fast", true}, "xibalba", ""},
		{Suffix{Text: "-giga"}, "10.0.0.1", ""},
		{Suffix{Text: "-giga"}, "fd00::1", ""},
		{Suffix{Text: "-giga"}, "[fd00::1]:7000", ""},
	} {
		got, err := tt.s.Of(tt.node)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%+v of %s: %q, %v", tt.s, tt.node, got, err)
		}
	}
}

// render writes a configuration file.
func render(c *Config) string {
	var b strings.Builder
	path := func(keyword string, p Path) {
		if p.Path == "" {
			return
		}
		if p.Compressed {
			b.WriteString("compressed ")
		}
		fmt.Fprintf(&b, "%s %s", keyword, p.Path)
		if p.Split {
			b.WriteString(" split")
		}
		if p.Each > 0 {
			fmt.Fprintf(&b, " %d", p.Each)
		}
		b.WriteString("\n")
	}
	switch {
	case c.DummyBytes > 0:
		fmt.Fprintf(&b, "dummy %d\n", c.DummyBytes>>20)
	case c.Dummy:
		b.WriteString("dummy\n")
	}
	path("infile", c.Input)
	path("outfile", c.Output)
	for _, name := range c.Ineffective {
		if name == "segsize" {
			b.WriteString("segsize 1\n")
		}
	}
	if c.Suffix.Text != "" {
		word := "add"
		if c.Suffix.Middle {
			word = "add2"
		}
		fmt.Fprintf(&b, "%s 0:%s\n", word, c.Suffix.Text)
	}
	for _, name := range c.Ineffective {
		if name == "fanout" {
			b.WriteString("fanout 1\n")
		}
	}
	if c.HyphenNormal {
		b.WriteString("hyphennormal\n")
	}
	if c.Server != "" {
		fmt.Fprintf(&b, "server %s\n", c.Server)
	}
	fmt.Fprintf(&b, "clients %d\n%s\nendconfig\n", len(c.Nodes), strings.Join(c.Nodes, "\n"))
	return b.String()
}

// FuzzConfig: what can be read is the same when it is written and read again, and every error names the file.
func FuzzConfig(f *testing.F) {
	f.Add(guideFile)
	f.Add("compressed infile /i split\ncompressed outfile /o split 2G\nsegsize 1\nadd2 0:-x\nfanout 2\nhyphennormal\na1\nendconfig")
	f.Add("dummy 5\nfd00::1\nendconfig")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadConfig(strings.NewReader(text), "some file")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "some file") || c != nil {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := ReadConfig(strings.NewReader(render(c)), "rendered")
		if err != nil {
			t.Fatalf("%q: %q: %v", text, render(c), err)
		}
		c.Notes, again.Notes = nil, nil
		if !reflect.DeepEqual(c, again) {
			t.Errorf("%q: %+v, and then %+v", text, c, again)
		}
	})
}
