package main

import (
	"encoding/json"
	"testing"
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
		`{"version":3}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		asked := m.Version
		text, err := m.encode()
		if err != nil {
			if len(b) < maxMeta/8 { // else it may be longer than it was
				t.Fatalf("%s: %v", b, err)
			}
			return
		}
		if m.Version > asked {
			t.Errorf("%s: version %d became %d", b, asked, m.Version)
		}
		again, err := decodeMeta(text)
		if err != nil || !again.Mtime.Equal(m.Mtime) {
			t.Fatalf("%s: %+v, %v", text, again, err)
		}
		last, err := again.encode()
		if err != nil || !json.Valid(last) || string(last) != string(text) {
			t.Errorf("%s became %s, %v", text, last, err)
		}
	})
}
