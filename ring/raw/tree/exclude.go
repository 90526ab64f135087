package tree

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// pattern is one of Options.Exclude.
type pattern struct {
	glob    string
	names   int  // how many names at the end of a path are compared with glob; 0 is all of them
	dirOnly bool // the pattern ended with a slash
	fitted  bool // something was left out for it
}

// parsePatterns reads patterns as rsync has them, but for "**".
func parsePatterns(all []string) ([]pattern, error) {
	var list []pattern
	for _, text := range all {
		p := pattern{glob: strings.TrimSuffix(text, "/"), dirOnly: strings.HasSuffix(text, "/")}
		anchored := strings.HasPrefix(p.glob, "/")
		p.glob = strings.TrimPrefix(p.glob, "/")
		if !anchored {
			p.names = 1 + strings.Count(p.glob, "/")
		}
		_, err := path.Match(p.glob, "")
		switch {
		case strings.Contains(p.glob, "**"):
			err = errors.New("** is not supported")
		case err == nil && (p.glob == "" || path.Clean(p.glob) != p.glob || strings.HasPrefix(p.glob, "../") || p.glob == "." || p.glob == ".."):
			err = errors.New("it fits no name")
		}
		if err != nil {
			return nil, fmt.Errorf("exclude %q: %w", text, err)
		}
		list = append(list, p)
	}
	return list, nil
}

// CheckExclude returns what is wrong with patterns for Options.Exclude.
func CheckExclude(all []string) error {
	_, err := parsePatterns(all)
	return err
}

// fits reports whether the pattern names a path below the top directory.
func (p pattern) fits(rel string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if p.names > 0 {
		at := len(rel)
		for range p.names {
			if at < 0 {
				return false
			}
			at = strings.LastIndexByte(rel[:at], '/')
		}
		rel = rel[at+1:]
	}
	ok, _ := path.Match(p.glob, rel)
	return ok
}
