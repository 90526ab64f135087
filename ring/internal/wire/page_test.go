package wire

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The tests of ring/PROTOCOL.md: what it says of names, codes and bytes is what this package does.

const page = "../../PROTOCOL.md"

// go test ./ring/internal/wire -run TestPageBytes -rewrite writes the dumps of the page anew.
var rewrite = flag.Bool("rewrite", false, "write the bytes of messages and frames into PROTOCOL.md")

func readPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Section 11 shows the bytes that this package makes.
func TestPageBytes(t *testing.T) {
	id := ID{0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	encode := func(m Message) []byte {
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	run := func(first byte) []byte {
		b := make([]byte, 32)
		for i := range b {
			b[i] = first + byte(i)
		}
		return b
	}
	var frame [HeaderSize]byte
	PutData(&frame, 1, 4<<20, []byte("ring"))
	var zero [HeaderSize]byte
	PutZero(&zero, 1, 4<<20, 4<<20)
	text := readPage(t)
	for name, b := range map[string][]byte{
		"hello":  encode(&Hello{Min: 1, Max: 2, Transfer: id, Node: "node1"}),
		"offer":  encode(&Offer{Blobs: []v1.Descriptor{{MediaType: "text/plain", Digest: digest.FromString("hello"), Size: 5}}, Meta: json.RawMessage(`{"name":"a"}`)}),
		"link":   slices.Concat([]byte(Preamble), LinkHello{Transfer: id, Link: 7, Generation: 3, Blob: 1, Offset: 4 << 20}.Encode(run(0x20), run(0))),
		"data":   append(frame[:], "ring"...),
		"zero":   zero[:],
		"ask":    encode(&Ask{Images: []Image{{Name: "example.com/a:1"}}}),
		"holds":  encode(&Holds{Images: []Holding{{Name: "example.com/a:1", Digest: digest.FromString("hello"), State: HoldsAll, Named: digest.FromString("hello"), Bytes: 5}}, Free: 1e9}),
		"tend":   encode(&Tend{Do: DoRemove, Names: []string{"a"}}),
		"tended": encode(&Tended{Images: []TendedImage{{Name: "example.com/a:1", Digest: digest.FromString("hello"), Pinned: true}}, Blobs: 1, Bytes: 5}),
	} {
		block := regexp.MustCompile("(?s)```" + name + "\n(.*?)```")
		found := block.FindStringSubmatchIndex(text)
		if found == nil {
			t.Errorf("the page has no dump of %s", name)
			continue
		}
		want := hex.Dump(b)
		if *rewrite {
			text = text[:found[2]] + want + text[found[3]:]
			continue
		}
		if got := text[found[2]:found[3]]; got != want {
			t.Errorf("%s on the page:\n%s\nas it is:\n%s", name, got, want)
		}
	}
	if *rewrite {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The table of messages names the fields of each in the order in which they are encoded.
func TestPageMessages(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([A-Z]+) .*$`).FindAllStringSubmatch(readPage(t), -1)
	seen := 0
	for _, row := range rows {
		kind, _ := strconv.Atoi(row[1])
		if kind >= len(makers) || makers[kind] == nil {
			continue // of another table
		}
		typ := reflect.TypeOf(makers[kind]()).Elem()
		if name := strings.ToUpper(typ.Name()); name != row[2] {
			continue // frames have numbers and names, too
		}
		seen++
		rest := row[0]
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			_, after, found := strings.Cut(rest, "`"+name+"`")
			if !found {
				t.Errorf("%s: field %s is not there, or not in its place", row[2], name)
				break
			}
			rest = after
		}
	}
	if seen != len(makers)-1 {
		t.Errorf("the page has %d of %d messages", seen, len(makers)-1)
	}
}

// codesIn are the constants of type Code in a file, by name.
func codesIn(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := s.Type.(*ast.Ident); ok && typ.Name == "Code" {
			codes[s.Names[0].Name], err = strconv.Unquote(s.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	return codes
}

// The codes stand in two places: on the page and here.
func TestPageCodes(t *testing.T) {
	own := codesIn(t, "code.go")
	if len(own) < 10 {
		t.Fatalf("only %d codes were found", len(own))
	}
	_, section, _ := strings.Cut(readPage(t), "\n### Codes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)`").FindAllStringSubmatch(section, -1) {
		listed = append(listed, row[1])
	}
	var want []string
	for _, c := range own {
		if c != "" {
			want = append(want, c)
		}
	}
	if slices.Sort(listed); !slices.Equal(listed, slices.Sorted(slices.Values(want))) {
		t.Errorf("the page lists %v", listed)
	}
}

// spell writes a string by the rules of the page, "The one encoding".
func spell(s string) string {
	out := `"`
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch {
		case r == '"' || r == '\\':
			out += `\` + string(r)
		case strings.ContainsRune("\b\f\n\r\t", r):
			out += `\` + string("bfnrt"[strings.IndexRune("\b\f\n\r\t", r)])
		case r < ' ' || strings.ContainsRune("<>&\u2028\u2029", r):
			out += fmt.Sprintf(`\u%04x`, r)
		default: // also U+FFFD, which stands for a byte that is not UTF-8
			out += string(r)
		}
	}
	return out + `"`
}

// Strings are spelled by the rules, whatever is in them.
func TestPageStrings(t *testing.T) {
	all := []string{"", "\xff\xfe", "a\xc3", "\xed\xa0\x80", "\ufffd"}
	for r := rune(0); r <= 0x1_0400; r++ {
		all = append(all, string(r)) // of a surrogate U+FFFD
	}
	for from := 0; from < len(all); from += 64 {
		text := strings.Join(all[from:min(from+64, len(all))], "x")
		b, err := Encode(&Fail{Code: CodeStore, Reason: text})
		if want := `{"code":"store","reason":` + spell(text) + `}`; err != nil || string(b[5:]) != want {
			t.Fatalf("encoded %s, %v\nby the rules %s", b[5:], err, want)
		}
		if _, err := Decode(b[4:]); err != nil {
			t.Fatal(err)
		}
	}
}

// What the rules leave open is read, and what they forbid is not.
func TestPageSpellings(t *testing.T) {
	for body, good := range map[string]bool{
		`{"link":1,"generation":2,"needs":[[0,4096]]}`:                true,
		`{"link":1,"generation":2,"needs":[]}`:                        true,
		`{"link":1,"generation":2,"needs":null}`:                      true,
		`{"link":1,"generation":2}`:                                   false,
		`{"generation":2,"link":1,"needs":[]}`:                        false,
		`{"link":1,"link":1,"generation":2,"needs":[]}`:               false,
		`{"link":1,"generation":2,"needs":[],"more":1}`:               false,
		`{"link": 1,"generation":2,"needs":[]}`:                       false,
		`{"link":01,"generation":2,"needs":[]}`:                       false,
		`{"link":1.0,"generation":2,"needs":[]}`:                      false,
		`{"link":1e0,"generation":2,"needs":[]}`:                      false,
		`{"link":1,"generation":2,"needs":[[0]]}`:                     false,
		`{"link":1,"generation":2,"needs":[[0,1,2]]}`:                 false,
		`{"link":1,"generation":2,"needs":[[0,-0]]}`:                  false,
		`{"link":1,"generation":2,"needs":[[0,-1]]}`:                  true,
		`{"Link":1,"generation":2,"needs":[]}`:                        false,
		`{"link":1,"generation":4294967296,"needs":[]}`:               false,
		`{"link":1,"generation":2,"needs":[]}` + "\n":                 false,
		`{"link":1,"generation":2,"needs":[]}{}`:                      false,
		`{"link":1,"generation":2,"needs":[[9223372036854775807,1]]}`: true,
		`{"link":1,"generation":2,"needs":[[9223372036854775808,1]]}`: false,
		`{"link":"1","generation":2,"needs":[]}`:                      false,
		`{"\u006cink":1,"generation":2,"needs":[]}`:                   false,
		`{"link":null,"generation":2,"needs":[]}`:                     false,
		`[1,2,[]]`: false,
	} {
		if _, err := Decode(append([]byte{7}, body...)); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}
