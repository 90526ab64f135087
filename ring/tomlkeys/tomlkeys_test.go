package tomlkeys

import (
	"errors"
	"maps"
	"testing"
)

func TestLines(t *testing.T) {
	const text = "# comment\na = 1\nb.c = 2\n[t]\n\"x.y\" = 3\n[[l]]\nd = 1\n[[l]]\nd = [\n {e = 2},\n]\n[l.in]\nf = 1\n"
	root, lines, err := Parse([]byte(text))
	if err != nil || len(root) != 4 {
		t.Fatal(root, err)
	}
	want := Lines{"a": 2, "b": 3, "b.c": 3, "t": 4, "t.x.y": 5, "l": 12, "l.0": 6, "l.0.d": 7, "l.1": 8, "l.1.d": 9, "l.1.d.0": 9, "l.1.d.0.e": 10, "l.1.in": 12, "l.1.in.f": 13}
	for key, line := range want {
		if lines[key] != line {
			t.Errorf("%s is in line %d, want %d", key, lines[key], line)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("got %v", maps.Collect(maps.All(lines)))
	}
	_, _, err = Parse([]byte("a = 1\nb =\n"))
	if e := new(SyntaxError); !errors.As(err, &e) || e.Line != 2 {
		t.Errorf("got %#v", err)
	}
}
