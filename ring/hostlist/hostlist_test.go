package hostlist

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// files opens files that are in the map.
type files map[string]string

func (f files) open(name string) (io.ReadCloser, error) {
	text, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

var testFiles = files{
	"-":        "s1\ns2\n",
	"mpi":      "# the front\n\n  node1 slots=4\nnode2:9999\tmax-slots=2\nnode[3-4]#x\n!node4\r\nnode5\r\n",
	"slots":    "n1\nn1\n\nn1\nn2\nn2\n",
	"apart":    "n1\nn2\nn1\n",
	"nested":   "n1\n@mpi\n",
	"nodeset":  "n1 n2 n3\n",
	"lsf":      "hostA 2 hostB 4\n",
	"lists":    "n[1-2], n3 ,n4\tn[5, 6]\r\nn7 # n8, n9\n",
	"bom":      "\xef\xbb\xbfn1 slots = 4\n",
	"settings": "n1 slots=4 max_slots=8 max-slots=8 binding=user:0,1 n2 cpu=2\nn3:9998 np=2\n",
	"counts":   "n1 2 3\n",
	"numbers":  "1 2\n",
	"comma":    "n1 4,n2 4\n",
	"first":    "n1\nslots=4 n2\n",
	"sge":      "n1 4 all.q@n1 UNDEFINED\n",
	"user":     "\nroot@n1 slots=4\n",
	"spelt":    "n1\nN1\nn1:9998\n10.0.0.1\n::ffff:10.0.0.1\n[0::1]:9998\n::1\nn[1-2]\nn1:9997\n",
	"utf16":    "\xff\xfen\x001\x00\n\x00",
	"many":     strings.Repeat("n1\nn2\n", MaxNodes),
	"bad":      "n1\n\nn[1-\n",
	"not":      "n1\n!n2\n",
	"empty":    "# nobody\n",
	"long":     strings.Repeat("x", 1<<20),
	"unended":  "n1\nn2",
	"mpich":    "n1:1024\n[::1]:9998\n::4\nn[1-2]:16\n",
	"mpich6":   "[::1]:4\n",
}

func TestParse(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ exprs, want string }{
		{"a", "a"},
		{"a,b,node[1-3]", "a b node1 node2 node3"},
		{" a , b ", "a b"},
		{"b,a c", "b a c"},
		{"a\nb\t c", "a b c"},
		{"node[008-011]", "node008 node009 node010 node011"},
		{"node[8-11]", "node8 node9 node10 node11"},
		{"node[099-101]", "node099 node100 node101"},
		{"r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"},
		{"n[1-9/3,20]x", "n1x n4x n7x n20x"},
		{"[1-2]", "1 2"},
		{"n[7]", "n7"},
		{"n[0-2]", "n0 n1 n2"},
		{"10.0.0.[1-2]:9998", "10.0.0.1:9998 10.0.0.2:9998"},
		{"n1:[9998-9999]", "n1:9998 n1:9999"},
		{"[::1]:9998,::1", "[::1]:9998"},
		{"[::1]:9997,::1", "[::1]:9997 ::1"},
		{"[::1]", "::1"},
		{"[::1]:[1-2]", "[::1]:1 [::1]:2"},
		{"[fe80::1%eth0]:9997,[fe80::1%eth0]", "[fe80::1%eth0]:9997 fe80::1%eth0"},
		{"fe80::[1-2]", "fe80::1 fe80::2"},
		{"[1-2]::1", "1::1 2::1"},
		{"n[1-5];!n3", "n1 n2 n4 n5"},
		{"!n[2-4],n[1-5]", "n1 n5"},
		{"n1:9,n1:8,n2;!n1", "n2"},
		{"n1:9,n1:8,n2;!N1:8", "n1:9 n2"},
		{"[::1]:9,n1;!0:0::1", "n1"},
		{"n1,!n[1-9],n2:7,n10", "n10"},
		{"@-", "s1 s2"},
		{"a,@mpi,b", "a node1 node2:9999 node3 node5 b"},
		{"node[1-9],!@-,!@slots", "node1 node2 node3 node4 node5 node6 node7 node8 node9"},
		{"n[1-3];!@slots", "n3"},
		{"@slots", "n1 n2"},
		{"@unended", "n1 n2"},
		{strings.Repeat("a", 253), strings.Repeat("a", 253)},

		{"n1,n1", "n1"},
		{"n1;N1;n2", "n1 n2"},
		{"::1,0::1", "::1"},
		{"n[1,1,01]", "n1 n01"},
		{"n[1-3],n[2-4]", "n1 n2 n3 n4"},
		{"n1,n1:9998,n1:9997", "n1 n1:9997"},
		{"n1:9998,N1", "n1:9998"},
		{"n1,n2;!n1:9998", "n2"},
		{"n[1, 3]", "n1 n3"},
		{"@apart", "n1 n2"},
		{"@many", "n1 n2"},
		{"@nodeset", "n1 n2 n3"},
		{"@lsf", "hostA hostB"},
		{"@lists", "n1 n2 n3 n4 n5 n6 n7"},
		{"@settings", "n1 n2 n3:9998"},
		{"@spelt", "n1 10.0.0.1 [0::1]:9998 n2 n1:9997"},
		{"@nodeset;!@lsf;n2 n4", "n1 n2 n3 n4"},
		{"n1 slots=4", "n1"},

		{"n1 102", `node list: "n1 102" at 4: 102 may be a node or how many processes a node runs`},
		{"n 01", `node list: "n 01" at 3: 01 may be a node or how many processes a node runs`},
		{"n1;n2 3 n4", `node list: "n2 3 n4" at 4: 3 may be a node or how many processes a node runs`},
		{"1 2", `node list: "1 2" at 3: 2 may be a node or how many processes a node runs`},
		{"1,2", "1 2"},
		{"@numbers", `node list: numbers line 1: "1 2" at 3: 2 may be a node or how many processes a node runs`},
		{"@counts", `node list: counts line 1: "n1 2 3" at 6: 3 may be a node or how many processes a node runs`},
		{"@comma", `node list: comma line 1: "n1 4,n2 4" at 4: 4 may be a node or how many processes a node runs`},
		{"n1 slots=4,n2 slots=4", `node list: "n1 slots=4,n2 slots=4" at 12: n2 may be a node or belong to slots`},
		{"n1 cpus=0,1-3,n[4-5]", `node list: "n1 cpus=0,1-3,n[4-5]" at 15: n[4-5] may be a node or belong to cpus`},
		{"n1 slots=4,10.0.0.1", `node list: "n1 slots=4,10.0.0.1" at 12: 10.0.0.1 may be a node or belong to slots`},
		{"@first", `node list: first line 2: "slots=4 n2" at 1: "slots=4" is not a host name`},
		{"@bom", `node list: bom line 1: "n1 slots = 4" at 10: "=" is not a host name`},
		{"@sge", `node list: sge line 1: "n1 4 all.q@n1 UNDEFINED" at 6: "all.q@n1" is not a host name`},
		{"@user", `node list: user line 2: "root@n1 slots=4" at 1: "root@n1" is not a host name`},
		{"@utf16", `node list: utf16 line 1: "\xff\xfen\x001\x00" at 1: "\xff\xfen\x001\x00" is not a host name`},
		{"n1 ,,n2", `node list: "n1 ,,n2" at 5: empty name`},
		{"n1 ! n2", `node list: "n1 ! n2" at 5: empty name`},
		{"n[1-9]!n5", `node list: "n[1-9]!n5" at 1: "n1!n5" is not a host name`},
		{strings.Repeat("n1 ", 100) + "x/y " + strings.Repeat("n2 ", 100),
			`node list: ..."` + strings.Repeat("n1 ", 8)[5:] + "x/y " + strings.Repeat("n2 ", 19) + `"... at 301: "x/y" is not a host name`},
		{"", `node list: "" at 1: one of the lists is empty`},
		{"n1; ", `node list: " " at 1: one of the lists is empty`},
		{"n1;!n1", ErrEmpty.Error()},
		{"@empty", ErrEmpty.Error()},
		{"a,,b", `node list: "a,,b" at 3: empty name`},
		{"a,", `node list: "a," at 3: empty name`},
		{"!", `node list: "!" at 2: empty name`},
		{"!!a", `node list: "!!a" at 2: "!a" is not a host name`},
		{"a,n[1-", `node list: "a,n[1-" at 4: [ without ]`},
		{"n[1-[2]]", `node list: "n[1-[2]]" at 2: [ without ]`},
		{"n1]", `node list: "n1]" at 3: ] without [`},
		{"n[]", `node list: "n[]" at 3: range "": want numbers such as 1-9 or 1-9/2`},
		{"n[1,x]", `node list: "n[1,x]" at 5: range "x": want numbers such as 1-9 or 1-9/2`},
		{"n[1-2-3]", `node list: "n[1-2-3]" at 3: range "1-2-3": want numbers such as 1-9 or 1-9/2`},
		{"n[1 - 3]", `node list: "n[1 - 3]" at 3: range "1 - 3": want numbers such as 1-9 or 1-9/2`},
		{"n[5-1]", `node list: "n[5-1]" at 3: range "5-1": ends before it starts`},
		{"n[001-3]", `node list: "n[001-3]" at 3: range "001-3": both ends must be padded to the same width`},
		{"n[1-9/0]", `node list: "n[1-9/0]" at 3: range "1-9/0": want a step such as 1-9/2`},
		{"n[5/2]", `node list: "n[5/2]" at 3: range "5/2": want a step such as 1-9/2`},
		{"n[1-9/]", `node list: "n[1-9/]" at 3: range "1-9/": want numbers such as 1-9 or 1-9/2`},
		{"n[1-9999999999999999999]", `node list: "n[1-9999999999999999999]" at 3: range "1-9999999999999999999": number too long`},
		{"a[0-9999999999]", `node list: "a[0-9999999999]" at 1: more than 100000 nodes`},
		{"!a[0-9999999999]", `node list: "!a[0-9999999999]" at 2: more than 100000 nodes`},
		{"a[1-1000]b[1-101]", `node list: "a[1-1000]b[1-101]" at 1: more than 100000 nodes`},
		{"a[0-999999999999999999][0-999999999999999999][0-999999999999999999]",
			`node list: "a[0-999999999999999999][0-999999999999999999][0-999999999999999999]" at 1: more than 100000 nodes`},
		{"a[1-100000];b", `node list: "b" at 1: more than 100000 nodes`},
		{"n1:0", `node list: "n1:0" at 1: port "0": want a number from 1 to 65535`},
		{"n1:65536", `node list: "n1:65536" at 1: port "65536": want a number from 1 to 65535`},
		{"n1:", `node list: "n1:" at 1: port "": want a number from 1 to 65535`},
		{"n1:ssh", `node list: "n1:ssh" at 1: port "ssh": want a number from 1 to 65535`},
		{":9998", `node list: ":9998" at 1: empty name`},
		{"10.0.0.256", `node list: "10.0.0.256" at 1: "10.0.0.256" is not an IPv4 address`},
		{"10.0.0.[255-256]", `node list: "10.0.0.[255-256]" at 1: "10.0.0.256" is not an IPv4 address`},
		{"fe80:::1", `node list: "fe80:::1" at 1: "fe80:::1" is not an IPv6 address`},
		{"[fe80:1]:9", `node list: "[fe80:1]:9" at 1: "fe80:1" is not an IPv6 address`},
		{"[::1]9", `node list: "[::1]9" at 1: "[::1]9": want a port after the address`},
		{"[::ffff:1.2.3.4]:9", "[::ffff:1.2.3.4]:9"},
		{"-a", `node list: "-a" at 1: "-a" is not a host name`},
		{"a/b", `node list: "a/b" at 1: "a/b" is not a host name`},
		{"a\x00", `node list: "a\x00" at 1: "a\x00" is not a host name`},
		{"@", `node list: "@" at 1: no file name after @ (@- is standard input)`},
		{"@nested", `node list: nested line 2: "@mpi" at 1: a file cannot name another file`},
		{"@bad", `node list: bad line 3: "n[1-" at 2: [ without ]`},
		{"!@not", `node list: not line 2: "!n2" at 1: ! in a list that is left out`},
		{"@mpich", `node list: mpich line 4: "n[1-2]:16" at 1: :16 looks like the number of slots in a machine file of MPICH`},
		{"a,!@mpich6", `node list: mpich6 line 1: "[::1]:4" at 1: :4 looks like the number of slots in a machine file of MPICH`},
		{"@gone", "node list: @gone: " + filepath.Join(here, "gone") + ": no such file or directory"},
		{"@./gone", "node list: @./gone: " + filepath.Join(here, "gone") + ": no such file or directory"},
		{"@long", fmt.Sprintf("node list: long line 1: %q... at 1: name too long", strings.Repeat("x", 80))},
		{strings.Repeat("a", 300), fmt.Sprintf("node list: %q... at 1: name too long", strings.Repeat("a", 80))},
		{strings.Repeat("[1]", 300), fmt.Sprintf("node list: %q... at 1: name too long", strings.Repeat("[1]", 27)[:80])},
	} {
		names, err := Parse(strings.Split(c.exprs, ";"), Options{Port: 9998, Open: testFiles.open})
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.80q:\ngot  %.300s\nwant %.300s", c.exprs, got, c.want)
		}
	}
}

func TestErrorTypes(t *testing.T) {
	_, err := Parse([]string{"a", "n[1-"}, Options{})
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Expr != "n[1-" || syntax.Pos != 2 {
		t.Errorf("got %#v", err)
	}
	if _, err = Parse([]string{"@mpich"}, Options{Open: testFiles.open}); !errors.As(err, &syntax) || !errkind.Has(err) {
		t.Errorf("got %#v", err)
	}
	var group *GroupError
	if _, err = Parse([]string{"@gone"}, Options{Open: testFiles.open}); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &group) ||
		fmt.Sprint(errkind.Of(err)) != "nodes-group[@gone]" {
		t.Errorf("got %#v", err)
	}
	if _, err = Parse([]string{"@./gone"}, Options{Open: testFiles.open}); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &group) {
		t.Errorf("got %#v", err)
	}
}

// Lists are a union; what is left out is, from whatever list and file.
func TestExclude(t *testing.T) {
	for _, c := range []struct{ nodes, exclude, want string }{
		{"n[1-3];n[3-5],x", "", "n1 n2 n3 n4 n5 x"},
		{"n[1-5]", "n2,n4", "n1 n3 n5"},
		{"n[1-5]", "n2 n4;@slots", "n3 n5"},
		{"n1;n2", "N2:9998", "n1"},
		{"n1,n2", "", "n1 n2"},
		{"n1,n2", " ", "n1 n2"},
		{"n1,n2", "n1;n2", ErrEmpty.Error()},
		{"n1", "!n2", `node list: "!n2" at 1: ! in a list that is left out`},
		{"n1 n2", "n3 102", `node list: "n3 102" at 4: 102 may be a node or how many processes a node runs`},
		{"n1", "n[", `node list: "n[" at 2: [ without ]`},
		{"n1,n2", "n7,n2", `n1; "n7" leaves out no node of the list`},
		{"node017,!node17", "", `node017; "!node17" leaves out no node of the list`},
		{"n1,!n2:9,!n[1-9]:8,n5:8", "", `n1; "!n2:9" leaves out no node of the list`},
		{"n1,!@slots,n9,@empty", "", "n9; empty names no node"},
	} {
		var notes []string
		names, err := Parse(strings.Split(c.nodes, ";"), Options{Port: 9998, Exclude: strings.Split(c.exclude, ";"),
			Open: testFiles.open, Note: func(s string) { notes = append(notes, s) }})
		got := strings.Join(append([]string{strings.Join(names, " ")}, notes...), "; ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q without %q:\ngot  %s\nwant %s", c.nodes, c.exclude, got, c.want)
		}
	}
}

func TestLimit(t *testing.T) {
	names, err := Parse([]string{"a[1-100000]"}, Options{})
	if err != nil || len(names) != MaxNodes {
		t.Errorf("%d names, %v", len(names), err)
	}
	// Too many must be seen before anything is made of them.
	allocs := testing.AllocsPerRun(1, func() {
		Parse([]string{"a[0-9999999999]b[0-9999999999]"}, Options{})
	})
	if allocs > 100 {
		t.Errorf("%v allocations to refuse a list", allocs)
	}
}

func TestSplitPort(t *testing.T) {
	for _, c := range []struct {
		name, host string
		port       int
	}{
		{"n1", "n1", 9998}, {"n1:7", "n1", 7}, {"10.0.0.1:7", "10.0.0.1", 7}, {"::1", "::1", 9998},
		{"[::1]:7", "::1", 7}, {"[::1]", "::1", 9998}, {"fe80::1%eth0", "fe80::1%eth0", 9998}, {"[fe80::1%eth0]:7", "fe80::1%eth0", 7},
	} {
		host, port, err := SplitPort(c.name, 9998)
		if err != nil || host != c.host || port != c.port {
			t.Errorf("SplitPort(%q) = %q, %d, %v", c.name, host, port, err)
		}
	}
	for _, name := range []string{"", ":1", "n1:", "n1:x", "a b", "[::1", "[::1]:0"} {
		if host, port, err := SplitPort(name, 1); err == nil {
			t.Errorf("SplitPort(%q) = %q, %d", name, host, port)
		}
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"", ""},
		{"login", "login"},
		{"n1", "n1"},
		{"n2 n1 n3", "n[1-3]"},
		{"n01 n02 n20 login", "n[01-02,20],login"},
		{"n9 n10 n11", "n[9-11]"},
		{"n9 n09 n10", "n[9,09-10]"},
		{"n99 n100", "n[99-100]"},
		{"n099 n100", "n[099-100]"},
		{"n099 n999 n1000", "n[099,999-1000]"},
		{"n0 n00 n000", "n[0,00,000]"},
		{"n1 n1 n2", "n[1-2]"},
		{"r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]"},
		{"r1n1 r1n2 r2n1", "r1n[1-2],r2n1"},
		{"n1-ib n2-ib", "n[1-2]-ib"},
		{"n1:9998 n2:9998 n3", "n[1-2]:9998,n3"},
		{"10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2", "10.0.[0-1].[1-2]"},
		{"::1 ::2", "::[1-2]"},
		{"[::1]:9 [::1]:10 [::2]:9", "[::1]:[9-10],[::2]:9"},
		{"n99999999999999999999 n1", "n99999999999999999999,n1"},
		{"1 2", "[1-2]"},
	} {
		if got := Fold(strings.Fields(c.names)); got != c.want {
			t.Errorf("Fold(%s) = %s, want %s", c.names, got, c.want)
		}
	}
}

// sameSet reports whether Parse(Fold(names)) has the same names.
func sameSet(t *testing.T, names []string) {
	t.Helper()
	folded := Fold(names)
	back, err := Parse([]string{folded}, Options{})
	if err != nil {
		t.Fatalf("Fold(%q) = %q: %v", names, folded, err)
	}
	want := slices.Compact(slices.Sorted(slices.Values(names)))
	if got := slices.Sorted(slices.Values(back)); !slices.Equal(got, want) {
		t.Fatalf("Fold(%q) = %q, which is %q", names, folded, got)
	}
}

func TestFoldAndBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		sameSet(t, randomNames(rng))
	}
}

// randomNames makes names that often fold, and often almost.
func randomNames(rng *rand.Rand) []string {
	seen := map[string]bool{}
	var names []string
	for range 1 + rng.IntN(30) {
		a, b := rng.IntN(12), rng.IntN(4)
		name := []string{
			"login",
			"n" + pad(rng, 9*a),
			pad(rng, 9*a),
			"r" + pad(rng, a) + "n" + pad(rng, b),
			"n" + pad(rng, a) + "-ib" + pad(rng, b) + ".example",
			fmt.Sprintf("n%d:%d", a, 9998+b),
			fmt.Sprintf("10.0.%d.%d", a, b),
			fmt.Sprintf("fe80::%d:%d", a, b),
			fmt.Sprintf("[::1]:%d", 9998+a),
		}[rng.IntN(9)]
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

func pad(rng *rand.Rand, n int) string { return fmt.Sprintf("%0*d", rng.IntN(4), n) }

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a 4 b slots=4", "a , b\tc\r\nd=1,2", "1 2", "@settings,@lsf", "a,b,node[001-128],10.0.0.[1-9]:9998,[::1]:9998", "r[1-2]n[01-04],!r1n02", "n[1-9/2]", "[fe80::1%eth0]", "@-,a", "!@mpi,x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		names, err := Parse([]string{expr}, Options{Port: 9998, Open: testFiles.open})
		if err != nil {
			if names != nil || strings.Contains(err.Error(), "\n") && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %q, %q", expr, names, err)
			}
			return
		}
		if len(names) == 0 || len(names) > MaxNodes {
			t.Fatalf("%q: %d names", expr, len(names))
		}
		for _, name := range names[:min(len(names), 100)] {
			if _, port, err := SplitPort(name, 1); err != nil || port < 1 || port > 65535 {
				t.Errorf("%q: SplitPort(%q): %d, %v", expr, name, port, err)
			}
		}
		sameSet(t, names)
	})
}
