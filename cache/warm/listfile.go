package warm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/tomlkeys"
)

// Bounds of what a list may say.
const (
	leastEvery   = 10 * time.Second // registries count requests
	leastCatchUp = 5 * time.Second
	leastRetry   = time.Second
	longest      = 31 * 24 * time.Hour
	leastRate    = 1e6 // bytes per second; below it a unit was forgotten
	mostRings    = 16
	maxOlder     = 8 // older digests of a name
	mostKeep     = maxOlder + 1
	mostImages   = 1000
	mostGroups   = 1000
	maxList      = 1 << 20 // bytes of the file
)

// Parse reads a list. The error is a list (Unwrap() []error) of *LineError, one for each mistake in the order of the lines; if
// the text is no TOML, it has the first mistake only.
func Parse(data []byte) (*List, error) {
	if len(data) > maxList {
		return nil, errors.Join(&LineError{Err: fmt.Errorf("larger than %d bytes", maxList)})
	}
	root, lines, err := tomlkeys.Parse(data)
	var syntax *tomlkeys.SyntaxError
	if errors.As(err, &syntax) {
		return nil, errors.Join(&LineError{Line: syntax.Line, Err: syntax.Err})
	}
	r := &reader{lines: lines, list: List{Every: 10 * time.Minute, Zone: time.Local, Rings: 2, CatchUp: time.Minute, Retry: Retry{time.Minute, time.Hour}}}
	r.table("", root, map[string]func(string, any) error{"defaults": r.defaults, "nodes": r.groups, "image": r.images})
	r.check()
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b *LineError) int { return cmp.Compare(a.Line, b.Line) })
		all := make([]error, len(r.errs))
		for i, e := range r.errs {
			all[i] = e
		}
		return nil, errors.Join(all...)
	}
	return &r.list, nil
}

// A reader makes a List of a document. It goes on after a mistake, so that it finds all of them.
type reader struct {
	list  List
	lines tomlkeys.Lines
	errs  []*LineError
}

func (r *reader) fail(at, format string, args ...any) {
	key := strings.Join(slices.DeleteFunc(strings.Split(at, "."), isNumber), ".")
	r.errs = append(r.errs, &LineError{r.lines[at], key, fmt.Errorf(format, args...)})
}

// table reads the keys of a table with the setter of each.
func (r *reader) table(at string, values map[string]any, set map[string]func(at string, v any) error) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path := key
		if at != "" {
			path = at + "." + key
		}
		if set[key] == nil {
			r.fail(path, "%w", unknownKeyError(key))
		} else if err := set[key](path, values[key]); err != nil {
			r.fail(path, "%s = %s: %w", key, shown(values[key]), err)
		}
	}
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// shown returns a value as the list has it, without credentials: the log has it.
func shown(v any) string {
	if s, ok := v.(string); ok && hasCredentials(s) {
		return "…"
	}
	return tomlkeys.Shown(v)
}

func (r *reader) defaults(at string, v any) error {
	l := &r.list
	values, ok := v.(map[string]any)
	if !ok {
		return errors.New("want a table, as in [defaults]")
	}
	r.table(at, values, map[string]func(string, any) error{
		"every":    func(_ string, v any) error { return duration(v, leastEvery, &l.Every) },
		"catch-up": func(_ string, v any) error { return duration(v, leastCatchUp, &l.CatchUp) },
		"retry":    func(_ string, v any) error { return l.Retry.set(v) },
		"rings":    func(_ string, v any) error { return number(v, 1, mostRings, &l.Rings) },
		"windows":  func(_ string, v any) error { return l.setWindows(v) },
		"outside":  func(_ string, v any) error { return l.Outside.set(v) },
		"zone":     func(_ string, v any) error { return l.setZone(v) },
		"keys":     func(_ string, v any) error { return absolute(v, &l.Keys) },
		"state":    func(_ string, v any) error { return absolute(v, &l.State) },
		"socket":   func(_ string, v any) error { return absolute(v, &l.Socket) },
	})
	switch _, given := values["outside"]; {
	case given && len(l.Windows) == 0 && r.lines[at+".windows"] == 0:
		r.fail(at+".outside", "outside: there are no windows that anything is outside of")
	case !given && len(l.Windows) > 0:
		r.fail(at+".windows", "windows: say with outside what rings do at other times, \"off\", \"full\" or a rate such as \"100M\"")
	}
	return nil
}

// groups reads [nodes.NAME].
func (r *reader) groups(at string, v any) error {
	groups, ok := v.(map[string]any)
	if !ok || len(groups) > mostGroups {
		return fmt.Errorf("want tables, as in [nodes.gpu], and at most %d", mostGroups)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		path := at + "." + name
		values, ok := groups[name].(map[string]any)
		if !ok {
			r.fail(path, "nodes.%s: want a table, as in [nodes.gpu]", name)
			continue
		}
		g := Group{Name: name}
		r.table(path, values, map[string]func(string, any) error{
			"list":     func(_ string, v any) error { return g.setNames(v) },
			"file":     func(_ string, v any) error { return absolute(v, &g.File) },
			"command":  func(_ string, v any) error { return text(v, &g.Command) },
			"platform": func(_ string, v any) error { return platform(v, &g.Platform) },
		})
		given := 0
		for _, key := range []string{"list", "file", "command"} {
			if _, ok := values[key]; ok {
				given++
			}
		}
		if given != 1 {
			r.fail(path, "nodes.%s: want one of list, file and command", name)
		}
		r.list.Groups = append(r.list.Groups, g)
	}
	return nil
}

// images reads [[image]].
func (r *reader) images(at string, v any) error {
	tables, ok := v.([]any)
	if !ok || len(tables) > mostImages {
		return fmt.Errorf("want a list of tables, as in [[image]], and at most %d", mostImages)
	}
	for n, v := range tables {
		path := fmt.Sprintf("%s.%d", at, n)
		values, ok := v.(map[string]any)
		if !ok {
			r.fail(path, "image: want a list of tables, as in [[image]]")
			continue
		}
		i := Image{Keep: 1, Min: 100}
		r.table(path, values, map[string]func(string, any) error{
			"ref":   func(_ string, v any) error { return word(v, &i.Ref) },
			"tags":  func(_ string, v any) error { return i.setTags(v) },
			"nodes": func(at string, v any) error { return texts(v, &i.Nodes) },
			"pin":   func(_ string, v any) error { return tomlkeys.Bool(v, &i.Pin) },
			"keep":  func(_ string, v any) error { return number(v, 1, mostKeep, &i.Keep) },
			"min":   func(_ string, v any) error { return i.Min.set(v) },
			"name":  func(_ string, v any) error { return word(v, &i.Name) },
			"output": func(string, any) error {
				return errors.New("nodes take no files from a warmer, whose key is online for ever; push what has to be at a path with push --output")
			},
			"rate":     func(_ string, v any) error { return rate(v, &i.Rate) },
			"priority": func(_ string, v any) error { return number(v, -1000, 1000, &i.Priority) },
			"authfile": func(_ string, v any) error { return absolute(v, &i.AuthFile) },
		})
		r.list.Images = append(r.list.Images, i)
	}
	return nil
}

// check looks at what concerns more than one key.
func (r *reader) check() {
	groups := map[string]bool{}
	for i := range r.list.Groups {
		groups[r.list.Groups[i].Name] = true
	}
	refs, names := map[string]int{}, map[string]int{}
	once := func(seen map[string]int, key, at, what, hint string) {
		if first := seen[key]; first > 0 {
			r.fail(at, "%s: the same stands in line %d; %s", what, first, hint)
		} else if key != "" {
			seen[key] = max(1, r.lines[at])
		}
	}
	for n := range r.list.Images {
		i, at := &r.list.Images[n], fmt.Sprintf("image.%d", n)
		if i.Ref == "" && r.lines[at+".ref"] == 0 {
			r.fail(at, "image: needs a ref, as in ref = \"docker://registry.example/ml/torch:25.10\"")
		}
		if len(i.Nodes) == 0 && r.lines[at+".nodes"] == 0 {
			r.fail(at, "image: needs nodes, as in nodes = [\"gpu\"]")
		}
		for k, g := range i.Nodes {
			switch {
			case !groups[g]:
				r.fail(at+".nodes", "nodes: there is no [nodes.%s]", g)
			case slices.Contains(i.Nodes[:k], g):
				r.fail(at+".nodes", "nodes: %q is given twice", g)
			}
		}
		if hasCredentials(i.Ref) {
			r.fail(at+".ref", "ref: credentials in the image's name; they go into a file that authfile names")
		} else if i.Ref != "" {
			once(refs, i.key(), at+".ref", fmt.Sprintf("ref = %q", i.Ref), "nodes may have several groups")
		}
		if hasCredentials("docker://" + i.Name) {
			r.fail(at+".name", "name: credentials in it")
			continue
		}
		once(names, i.Name, at+".name", fmt.Sprintf("name = %q", i.Name), "a cache has room for one image of a name")
		r.checkTags(i, at)
	}
	r.twins()
}

// checkTags looks at how ref, tags and name go together.
func (r *reader) checkTags(i *Image, at string) {
	if i.Tags == "" || hasCredentials(i.Ref) {
		return
	}
	last := i.Ref[strings.LastIndexByte(i.Ref, '/')+1:]
	switch {
	case registry(i.Ref) == "" && i.Ref != "":
		r.fail(at+".tags", "tags: %s is in no registry that has tags", i.Ref)
	case strings.ContainsAny(last, ":@"):
		r.fail(at+".tags", "tags: %s already has a tag or a digest", i.Ref)
	case i.Name != "":
		r.fail(at+".name", "name: one name cannot stand for all tags that match")
	}
}

// hasCredentials reports whether a name has credentials, as URLs have them: if no digest follows the @ in a name, a host does. Also what somebody
// wrote as a URL, or without the slashes, has them.
func hasCredentials(ref string) bool {
	_, behind, ok := strings.Cut(ref, "@")
	algorithm, _, _ := strings.Cut(behind, ":")
	transport, _, _ := strings.Cut(ref, ":")
	return ok && (strings.Contains(ref, "://") || transport == "docker" || transport == "oras") && !digest.Algorithm(algorithm).Available()
}
