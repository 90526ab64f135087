package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// What is not kept leaves no blob in the cache; the output is found in place the next time,
// can be read from there, and is made again when it was touched.
func TestDirect(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.over, "a.sif")
	r, data := request(t, meta{Kind: kindImage, Output: out, NoKeep: true, Mode: 0o750}, "some image")
	held := func() int64 {
		t.Helper()
		sink, err := n.accept(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		defer sink.(*direct).Close()
		held, free, err := sink.Offer(context.Background(), r.Blobs)
		if err != nil || (held[0] == 0) != (free > 0) {
			t.Fatalf("holds %v, %d free, %v", held, free, err)
		}
		return held[0]
	}
	transfer := func() (inPlace bool) {
		t.Helper()
		sink, err := n.accept(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		return play(t, sink, r, data, true)
	}
	if held() != 0 || transfer() || mustRead(t, out) != "some image" {
		t.Error("not put there")
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info, err)
	}
	if path, _ := n.cache.BlobPath(r.Blobs[0].Digest); mustRead(t, path) != "" {
		t.Error("the cache has it, too")
	}
	if held() != int64(len("some image")) || !transfer() {
		t.Error("not found in place")
	}
	if err := os.WriteFile(out, []byte("SOME IMAGE"), 0o750); err != nil {
		t.Fatal(err)
	}
	if held() != 0 || transfer() || mustRead(t, out) != "some image" {
		t.Error("not put there again")
	}
	sink, err := n.accept(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	d := sink.(*direct)
	defer d.Close()
	if _, _, err := d.Offer(context.Background(), r.Blobs); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o700); err != nil { // meanwhile
		t.Fatal(err)
	}
	if _, err := d.Open(context.Background(), r.Blobs[0], 0); err == nil {
		t.Error("what was touched is given to others")
	}
	if _, err := d.Prepare(context.Background(), r.Blobs); err == nil {
		t.Error("what was touched is in place")
	}
}

// The lowest version that says it, and nothing of a later one in an earlier one.
func TestMetaVersion(t *testing.T) {
	sif := meta{Kind: kindImage, Output: "/data/a.sif"}
	for _, c := range []struct {
		edit func(*meta)
		want int
	}{
		{func(m *meta) { m.Ref = "localhost/a:latest" }, 1},
		{func(m *meta) { m.NoKeep = true }, 2},
		{func(m *meta) { m.Ref, m.Pin = "localhost/a:latest", true }, 2},
	} {
		m := sif
		c.edit(&m)
		b, err := m.encode()
		if err != nil || m.Version != c.want {
			t.Errorf("version %d, want %d: %v", m.Version, c.want, err)
		}
		if again, err := decodeMeta(b); err != nil || *again != m {
			t.Errorf("%s is read as %+v, %v", b, again, err)
		}
	}
	for text, want := range map[string]string{
		`{"version":1,"kind":"image","output":"/data/a","noKeep":true}`:                   "version 1 with what version 2 has",
		`{"version":1,"kind":"image","ref":"a:1","pin":true}`:                             "version 1 with what version 2 has",
		`{"version":3,"kind":"image","ref":"a:1"}`:                                        "version 3, this node knows 2",
		`{"version":0,"kind":"image","ref":"a:1"}`:                                        "version 0, this node knows 2",
		`{"version":2,"kind":"image","output":"/data/a","ref":"a:1","noKeep":true}`:       "only the SIF of an image",
		`{"version":2,"kind":"image","output":"/data/a","format":"oci","noKeep":true}`:    "only the SIF of an image",
		`{"version":2,"kind":"raw","output":"/data/a","noKeep":true}`:                     "only the SIF of an image",
		`{"version":2,"kind":"image","noKeep":true}`:                                      "only the SIF of an image",
		`{"version":2,"kind":"raw","output":"/data/a","pin":true}`:                        "only an image that is kept",
		`{"version":2,"kind":"image","discard":true,"pin":true}`:                          "only an image that is kept",
		`{"version":2,"kind":"image","output":"/data/a","noKeep":true,"pin":true}`:        "only the SIF of an image",
		`{"version":2,"kind":"image","discard":true,"output":"/data/a","noKeep":true}`:    "to be discarded",
		`{"version":2,"kind":"image","output":"/data/a","noKeep":true,"later":"unknown"}`: "unknown field",
	} {
		if m, err := decodeMeta(json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), want) {
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
	m := &meta{Version: 2, NoKeep: true}
	m.outdated(r)
	var got []string
	for _, row := range r.Nodes {
		got = append(got, row.Reason)
	}
	if want := []string{old + ": its dolly-img is too old for --no-keep and has to be upgraded", "no room", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
