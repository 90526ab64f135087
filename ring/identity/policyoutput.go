package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Output returns the permitted directory that contains path (the longest, if several
// do), the rest of path below it, and whether a file there may be replaced. The path
// must be absolute and clean. If it is not permitted the error is a *DeniedError. A nil
// Policy permits nothing, and none permits a path in the node's own directories. Output does
// not look at symbolic links below the permitted directory: whoever writes there must
// follow none.
func (p *Policy) Output(path string) (dir, rel string, overwrite bool, err error) {
	o, rel, err := p.rule(path, false)
	if err != nil {
		return "", "", false, err
	}
	return o.Dir, rel, o.Overwrite, nil
}

// Directory is Output for a whole directory at path. It must neither be nor contain the node's own directories, nor the
// directory of a rule that does not permit to replace whole directories.
func (p *Policy) Directory(path string) (dir, rel string, overwrite bool, err error) {
	o, rel, err := p.rule(path, true)
	if denied := new(DeniedError); errors.As(err, &denied) && denied.dir {
		return "", "", false, p.topDirectory(path)
	}
	if err != nil {
		return "", "", false, err
	}
	if !o.Directories {
		return "", "", false, &directoriesError{path, o.Dir, p.path}
	}
	out := filepath.Join(realPath(o.Dir), rel)
	for _, own := range p.own {
		if contains(out, realPath(own)) || contains(path, own) {
			return "", "", false, ofNode(path, own)
		}
	}
	for _, other := range p.Outputs {
		if other.Overwrite && other.Directories {
			continue
		}
		if contains(out, realPath(other.Dir)) || contains(path, other.Dir) {
			return "", "", false, errkind.About("output-rule", other.Dir,
				"output %s: it would contain %s, for which the policy of this node does not permit to replace directories", path, other.Dir)
		}
	}
	return o.Dir, rel, o.Overwrite, nil
}

// topDirectory is the error for a whole directory in the place of one that a rule names. Only those below it can be permitted.
func (p *Policy) topDirectory(path string) error {
	if !slices.ContainsFunc(p.Outputs, func(o Output) bool { return o.Dir == path && o.Directories }) {
		return &directoriesError{path, path, p.path}
	}
	return errkind.About("output-top", path, "output %s: the policy of this node permits directories below it, and not in its place", path)
}

// rule returns the rule for path, and the rest of path below its directory. Where several rules name that directory, one of
// them has to permit all that a transfer does there: for a whole directory it is one that permits those.
func (p *Policy) rule(path string, whole bool) (rule Output, rel string, err error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return rule, "", fmt.Errorf("output %q: want an absolute and clean path", path)
	}
	if p == nil {
		return rule, "", &DeniedError{Path: path, File: policyFile}
	}
	for _, o := range p.Outputs {
		below, ok := strings.CutPrefix(path, strings.TrimSuffix(o.Dir, "/")+"/")
		if !ok || below == "" {
			continue
		}
		if len(o.Dir) > len(rule.Dir) || whole && o.Dir == rule.Dir && o.Directories && (!rule.Directories || o.Overwrite) {
			rule, rel = o, below
		}
	}
	if rule.Dir == "" {
		return rule, "", p.denied(path)
	}
	out := filepath.Join(realPath(rule.Dir), rel)
	for _, own := range p.own {
		if contains(realPath(own), out) {
			return rule, "", ofNode(path, own)
		}
	}
	return rule, rel, nil
}

func (p *Policy) denied(path string) *DeniedError {
	e := &DeniedError{Path: path, File: policyFile}
	if p.path != "" {
		e.File = p.path
	}
	for _, o := range p.Outputs {
		e.permitted = append(e.permitted, o.Dir)
	}
	e.dir = slices.Contains(e.permitted, path)
	return e
}

// ofNode is the error for an output that would replace something that the node itself needs, in the directory own.
func ofNode(path, own string) error {
	return errkind.About("output-own", own, "output %s: this node keeps its keys or its cache in %s", path, own)
}

// realPath is an absolute path without symbolic links, as far as the path exists and can be read.
func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	for rest := ""; ; path = filepath.Dir(path) {
		if found, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(found, rest)
		}
		if path == filepath.Dir(path) {
			return filepath.Join(path, rest)
		}
		rest = filepath.Join(filepath.Base(path), rest)
	}
}

// contains reports whether path is dir or lies below it, by its name or by what is there: a directory can be mounted in two
// places.
func contains(dir, path string) bool {
	info, err := os.Lstat(dir)
	for {
		if path == dir {
			return true
		}
		if err == nil && info.IsDir() {
			if at, aerr := os.Lstat(path); aerr == nil && os.SameFile(info, at) {
				return true
			}
		}
		above := filepath.Dir(path)
		if above == path {
			return false
		}
		path = above
	}
}

// directoriesError says that a policy permits files below a directory, and no directories.
type directoriesError struct{ path, dir, file string }

func (e *directoriesError) Error() string {
	return fmt.Sprintf("output %s: the policy of this node permits files below %s, and no directories", e.path, e.dir)
}

// Kind returns the kind of the error. It is about the directory that the policy names, and the file of the policy.
func (e *directoriesError) Kind() (errkind.Kind, []string) {
	return "output-directories", []string{e.dir, e.file}
}
