package meta

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// What a node understands it understands again when it is written anew.
func FuzzMeta(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"kind":"image","ref":"localhost/a:latest"}`,
		`{"version":1,"kind":"raw","output":"/data/f","mode":420,"owner":"root:root","mkdir":true,"shared":true,"mtime":"2026-11-28T12:00:00Z"}`,
		`{"version":1,"kind":"image","discard":true}`,
		`{"version":2,"kind":"image","output":"/data/a.sif","noKeep":true}`,
		`{"version":2,"kind":"image","ref":"a:1","pin":true,"output":"/data/a","format":"oci"}`,
		`{"version":1,"kind":"image","ref":"a:1","pin":true}`,
		`{"version":3,"kind":"raw","output":"device:system","device":{"holds":"disk","sectors":[{"what":"a GPT","least":512,"most":512}],"anyKind":true,"keepTable":true}}`,
		`{"version":4,"kind":"raw","output":"/data/f","split":true,"noSync":true}`,
		`{"version":4,"kind":"raw","output":"/data/a","owner":"5:5","tree":{"special":true}}`,
		`{"version":5}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		asked := m.Version
		text, err := m.Encode()
		if err != nil {
			if len(b) < maxMeta/8 { // else it may be longer than it was
				t.Fatalf("%s: %v", b, err)
			}
			return
		}
		if m.Version > asked {
			t.Errorf("%s: version %d became %d", b, asked, m.Version)
		}
		again, err := Decode(text)
		if err != nil || !again.Mtime.Equal(m.Mtime) {
			t.Fatalf("%s: %+v, %v", text, again, err)
		}
		last, err := again.Encode()
		if err != nil || !json.Valid(last) || string(last) != string(text) {
			t.Errorf("%s became %s, %v", text, last, err)
		}
	})
}

// The lowest version that says it, and nothing of a later one in an earlier one.
func TestMetaVersion(t *testing.T) {
	sif := Transfer{Kind: KindImage, Output: "/data/a.sif"}
	for _, c := range []struct {
		edit func(*Transfer)
		want int
	}{
		{func(m *Transfer) { m.Ref = "localhost/a:latest" }, 1},
		{func(m *Transfer) { m.NoKeep = true }, 2},
		{func(m *Transfer) { m.Ref, m.Pin = "localhost/a:latest", true }, 2},
		{func(m *Transfer) { m.Kind, m.Split = KindRaw, true }, 4},
		{func(m *Transfer) { m.Kind, m.NoSync = KindRaw, true }, 4},
		{func(m *Transfer) { m.Kind, m.Tree = KindRaw, new(Tree) }, 4},
	} {
		m := sif
		c.edit(&m)
		b, err := m.Encode()
		if err != nil || m.Version != c.want {
			t.Errorf("version %d, want %d: %v", m.Version, c.want, err)
		}
		if again, err := Decode(b); err != nil || !reflect.DeepEqual(*again, m) {
			t.Errorf("%s is read as %+v, %v", b, again, err)
		}
	}
	for text, want := range map[string]string{
		`{"version":1,"kind":"image","output":"/data/a","noKeep":true}`:                   "version 1 with what version 2 has",
		`{"version":1,"kind":"image","ref":"a:1","pin":true}`:                             "version 1 with what version 2 has",
		`{"version":6,"kind":"image","ref":"a:1"}`:                                        "version 6, this node knows 5",
		`{"version":0,"kind":"image","ref":"a:1"}`:                                        "version 0, this node knows 5",
		`{"version":4,"kind":"raw","output":"/data/a","tree":{"inPlace":true}}`:           "version 4 with what version 5 has",
		`{"version":3,"kind":"raw","output":"/data/a","split":true}`:                      "version 3 with what version 4 has",
		`{"version":4,"kind":"raw","output":"-","noSync":true}`:                           "only a file can be in parts",
		`{"version":4,"kind":"image","ref":"a:1","output":"/data/a","split":true}`:        "only a file can be in parts",
		`{"version":2,"kind":"image","output":"/data/a","ref":"a:1","noKeep":true}`:       "only the SIF of an image",
		`{"version":2,"kind":"image","output":"/data/a","format":"oci","noKeep":true}`:    "only the SIF of an image",
		`{"version":2,"kind":"raw","output":"/data/a","noKeep":true}`:                     "only the SIF of an image",
		`{"version":2,"kind":"image","noKeep":true}`:                                      "only the SIF of an image",
		`{"version":2,"kind":"raw","output":"/data/a","pin":true}`:                        "only an image that is kept",
		`{"version":2,"kind":"image","discard":true,"pin":true}`:                          "only an image that is kept",
		`{"version":2,"kind":"image","output":"/data/a","noKeep":true,"pin":true}`:        "only the SIF of an image",
		`{"version":2,"kind":"image","discard":true,"output":"/data/a","noKeep":true}`:    "to be discarded",
		`{"version":2,"kind":"image","output":"/data/a","noKeep":true,"later":"unknown"}`: "unknown field",
		`{"version":3,"kind":"raw","output":"/data/a","tree":{}}`:                         "version 3 with what version 4 has",
		`{"version":4,"kind":"raw","output":"/data/a","mode":420,"tree":{}}`:              "a directory without an output, or with a mode",
		`{"version":4,"kind":"raw","output":"-","tree":{}}`:                               "a directory without an output, or with a mode",
		`{"version":4,"kind":"image","ref":"a:1","tree":{}}`:                              "a directory without an output, or with a mode",
	} {
		if m, err := Decode(json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %s", text, m, err, want)
		}
	}
}

// The row of a node that is too old says for what.
func TestOutdated(t *testing.T) {
	old := "description of the transfer: version 2, this node knows 1"
	r := &ring.Report{Nodes: []ring.Row{
		{State: ring.Refused, Reason: old, Cause: ring.Cause{Text: old}},
		{State: ring.Refused, Reason: "no room", Cause: ring.Cause{Text: "no room"}},
		{State: ring.Committed},
	}}
	m := &Transfer{Version: 2, NoKeep: true}
	m.Outdated(r)
	var got []string
	for _, row := range r.Nodes {
		got = append(got, row.Reason)
	}
	if want := []string{old + ": its dolly-img is too old for an output without a copy in the cache and has to be upgraded", "no room", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// Who was told to replace files one by one, and does not say that it has, may have replaced some.
func TestPartly(t *testing.T) {
	for _, inPlace := range []bool{false, true} {
		r := &ring.Report{Nodes: []ring.Row{{Node: "a", State: ring.Failed, Code: "unconfirmed"}, {Node: "b", State: ring.Failed, Code: "lost"}}}
		m := Transfer{Kind: KindRaw, Output: "/data/a", Tree: &Tree{InPlace: inPlace}}
		m.Partly(r)
		if got := strings.Contains(r.Nodes[0].Reason, "partly the new one"); got != inPlace || strings.Contains(r.Nodes[1].Reason, "partly") {
			t.Errorf("in place %v: %q, %q", inPlace, r.Nodes[0].Reason, r.Nodes[1].Reason)
		}
	}
}
