// Package tomlkeys reads TOML documents (https://toml.io/en/v1.0.0) for files that are read strictly: it says in
// which line each key stands, so that every wrong one can be named.
package tomlkeys

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Lines has the line of each key and table of a document, from 1, and of those that several lines name the last. A key is named with the tables that it is in, and a
// table of a list with its number: "output.1.dir".
type Lines map[string]int

// A SyntaxError says that a document is no TOML.
type SyntaxError struct {
	// Line is where it is none, from 1. 0 is unknown.
	Line int
	Err  error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *SyntaxError) Unwrap() error { return e.Err }

// Parse returns the values of a document and their lines. Every error is a *SyntaxError, about the first mistake.
func Parse(data []byte) (map[string]any, Lines, error) {
	var root map[string]any
	err := toml.Unmarshal(data, &root)
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		line, _ := syntax.Position()
		return nil, nil, &SyntaxError{line, errors.New(strings.TrimPrefix(syntax.Error(), "toml: "))}
	}
	if err != nil {
		return nil, nil, &SyntaxError{0, err}
	}
	return root, keyLines(data), nil
}

// Shown returns a value as the document may have it.
func Shown(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(v)
}

// Text sets a text to a value. The error says what is wanted.
func Text(v any, to *string) error {
	s, ok := v.(string)
	if !ok {
		return errors.New("want a text in quotes")
	}
	*to = s
	return nil
}

// Bool sets a bool to a value. The error says what is wanted.
func Bool(v any, to *bool) error {
	b, ok := v.(bool)
	if !ok {
		return errors.New("want true or false")
	}
	*to = b
	return nil
}

// keyLines says in which line each key and table of a document stands. The document is valid.
func keyLines(data []byte) Lines {
	k := &keyFinder{lines: Lines{}, count: map[string]int{}}
	for i, b := range data {
		if b == '\n' {
			k.ends = append(k.ends, i)
		}
	}
	var p unstable.Parser
	p.Reset(data)
	var table string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.KeyValue:
			k.value(table, e)
		case unstable.Table, unstable.ArrayTable:
			table = k.key("", e.Key())
			if e.Kind == unstable.ArrayTable {
				line := k.lines[table]
				k.count[table]++
				table = k.last(table)
				k.lines[table] = line
			}
		}
	}
	return k.lines
}

type keyFinder struct {
	ends  []int // where lines end, in bytes
	lines Lines
	count map[string]int // of the tables of a list
}

// last returns a path with the number of its last table, if it is a list of tables.
func (k *keyFinder) last(path string) string {
	if n := k.count[path]; n > 0 {
		return fmt.Sprintf("%s.%d", path, n-1)
	}
	return path
}

// value notes the lines of a key and of what is in its value.
func (k *keyFinder) value(table string, kv *unstable.Node) {
	path := k.key(table, kv.Key())
	switch value := kv.Value(); value.Kind {
	case unstable.InlineTable:
		for it := value.Children(); it.Next(); {
			k.value(path, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := value.Children(); it.Next(); i++ {
			at := fmt.Sprintf("%s.%d", path, i)
			k.lines[at] = k.lines[path]
			if it.Node().Kind != unstable.InlineTable {
				continue
			}
			for in := it.Node().Children(); in.Next(); {
				k.value(at, in.Node())
			}
		}
	}
}

// key notes the line of each part of a key, and returns the whole.
func (k *keyFinder) key(table string, key unstable.Iterator) string {
	path := table
	for key.Next() {
		if path = k.last(path); path != "" {
			path += "."
		}
		path += string(key.Node().Data)
		before, _ := slices.BinarySearch(k.ends, int(key.Node().Raw.Offset))
		k.lines[path] = before + 1
	}
	return path
}
