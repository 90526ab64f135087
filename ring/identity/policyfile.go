package identity

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/tomlkeys"
)

// A policyReader makes a Policy of a TOML document. It goes on after an error, so that it finds all of
// them at once.
type policyReader struct {
	policy Policy
	// lines has the line of each key and table, as in "output.1.dir".
	lines tomlkeys.Lines
	errs  []*lineError
	// seen are the directories and devices that were read.
	seen     map[string]bool
	settings map[string]func(value any) error
}

// parsePolicy decodes and checks a policy file. Errors have the line. If the document is no TOML,
// parsePolicy finds the first error only.
func parsePolicy(data []byte) (*Policy, []*lineError) {
	root, lines, err := tomlkeys.Parse(data)
	var syntax *tomlkeys.SyntaxError
	if errors.As(err, &syntax) {
		return nil, []*lineError{{syntax.Line, syntax.Err}}
	}
	r := &policyReader{lines: lines, seen: map[string]bool{}}
	p := &r.policy
	r.settings = map[string]func(any) error{
		"data.plain":       func(v any) error { return tomlkeys.Bool(v, &p.Data.Plain) },
		"limits.rate":      func(v any) error { return amount(v, &p.Limits.Rate) },
		"limits.transfers": func(v any) error { return transfers(v, &p.Limits.Transfers) },
		"cache.max":        func(v any) error { return amount(v, &p.Cache.Max) },
		"cache.free":       func(v any) error { return amount(v, &p.Cache.Free) },
		"cache.mode":       p.Cache.setMode,
		"cache.group":      func(v any) error { return tomlkeys.Text(v, &p.Cache.Group) },
	}
	for _, name := range slices.Sorted(maps.Keys(root)) {
		switch name {
		case "output", "device":
			r.list(name, root[name])
		case "data", "limits", "cache":
			r.table(name, root[name])
		default:
			r.unknown(name, name, []string{"output", "device", "data", "limits", "cache"})
		}
	}
	if p.Cache.Group != "" && p.Cache.Mode == 0 && r.lines["cache.mode"] == 0 {
		r.fail("cache.group", fmt.Errorf("group = %q: needs a mode beside it, as in mode = \"0640\"", p.Cache.Group))
	}
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b *lineError) int { return cmp.Compare(a.line, b.line) })
		return nil, r.errs
	}
	r.warn()
	return p, nil
}

func (r *policyReader) fail(key string, err error) {
	r.errs = append(r.errs, &lineError{r.lines[key], err})
}

// unknown says that nobody knows the key that stands at a place, and which of those that are known there may be meant.
func (r *policyReader) unknown(at, key string, known []string) {
	meant := ""
	if near := nearest(key[strings.LastIndexByte(key, '.')+1:], known); near != "" {
		meant = fmt.Sprintf(" (did you mean %s?)", near)
	}
	r.fail(at, fmt.Errorf("unknown key %q%s", key, meant))
}

// table reads [data], [limits] or [cache].
func (r *policyReader) table(name string, value any) {
	table, ok := value.(map[string]any)
	if !ok {
		r.fail(name, fmt.Errorf("%s: want a table, as in [%s]", name, name))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		path := name + "." + key
		set := r.settings[path]
		if set == nil {
			r.unknown(path, path, r.known(name))
		} else if err := set(table[key]); err != nil {
			r.fail(path, fmt.Errorf("%s = %s: %w", key, tomlkeys.Shown(table[key]), err))
		}
	}
}

// known returns the keys that a table may have.
func (r *policyReader) known(table string) (keys []string) {
	for _, setting := range slices.Sorted(maps.Keys(r.settings)) {
		if key, ok := strings.CutPrefix(setting, table+"."); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// list reads the tables [[output]] or [[device]].
func (r *policyReader) list(name string, value any) {
	list, ok := value.([]any)
	if !ok {
		r.fail(name, fmt.Errorf("%s: want a list of tables, as in [[%s]]", name, name))
		return
	}
	for i, value := range list {
		at := fmt.Sprintf("%s.%d", name, i)
		item, ok := value.(map[string]any)
		if !ok {
			r.fail(name, fmt.Errorf("%s: want a list of tables, as in [[%s]]", name, name))
			continue
		}
		if name == "output" {
			var o Output
			r.output(at, item, &o)
			r.policy.Outputs = append(r.policy.Outputs, o)
		} else {
			r.device(at, item)
		}
	}
}

// output reads one of the tables [[output]].
func (r *policyReader) output(at string, item map[string]any, o *Output) {
	if _, given := item["dir"]; !given {
		r.fail(at, errors.New("dir = \"\": [[output]] needs an absolute path"))
	}
	for _, key := range slices.Sorted(maps.Keys(item)) {
		var err error
		switch key {
		case "dir":
			if err = tomlkeys.Text(item[key], &o.Dir); err == nil {
				err = r.checkPath(o.Dir)
			}
		case "overwrite":
			err = tomlkeys.Bool(item[key], &o.Overwrite)
		case "directories":
			err = tomlkeys.Bool(item[key], &o.Directories)
		default:
			r.unknown(at+"."+key, "output."+key, []string{"dir", "overwrite", "directories"})
		}
		if err != nil {
			r.fail(at+"."+key, fmt.Errorf("%s = %s: %w", key, tomlkeys.Shown(item[key]), err))
		}
	}
}

func (r *policyReader) checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0):
		return errors.New("want an absolute path without . or .. and without a slash at its end")
	case r.seen[path]:
		return errors.New("given twice")
	}
	r.seen[path] = true
	return nil
}

// These are bounds below which a node is of little use.
const (
	leastCache = 1e6      // bytes
	leastRate  = 1e6      // bytes per second
	hangsBelow = 16 << 10 // bytes per second, section 9 of PROTOCOL.md
)

// warn notes the settings that are permitted and hardly meant.
func (r *policyReader) warn() {
	p := &r.policy
	say := func(key, format string, args ...any) {
		p.warnings = append(p.warnings, &lineError{r.lines[key], fmt.Errorf(format, args...)})
	}
	for i, o := range p.Outputs {
		if ofSystem(o.Dir) {
			over := ""
			if o.Overwrite {
				over = ", in place of those that are there"
			}
			say(fmt.Sprintf("output.%d.dir", i), "dir = %q: whoever holds a sender's key can write files of the system, as root%s; name a directory that holds data only, such as %s", o.Dir, over, goodPlace)
		}
	}
	none := func(key string, n int64) {
		if r.lines[key] > 0 && n == 0 {
			_, name, _ := strings.Cut(key, ".")
			say(key, "%s = 0 is no limit; to have none leave the line out", name)
		}
	}
	none("cache.max", p.Cache.Max)
	none("limits.rate", p.Limits.Rate)
	if r.lines["limits.transfers"] > 0 && p.Limits.Transfers == 0 {
		say("limits.transfers", "transfers = 0 is the default, not none; leave the line out")
	}
	if p.Cache.Max > 0 && p.Cache.Max < leastCache {
		say("cache.max", "max is %s: hardly any image fits, and nodes refuse the others; a unit is a letter, as in \"200G\"", bytesize.Text(p.Cache.Max))
	}
	switch rate := p.Limits.Rate; {
	case rate > 0 && rate < hangsBelow:
		say("limits.rate", "rate is %s/s: a node that gets on by less than %s/s is taken for one that hangs; a unit is a letter, as in \"500M\"", bytesize.Text(rate), bytesize.Text(hangsBelow))
	case rate > 0 && rate < leastRate:
		say("limits.rate", "rate is %s/s: 1 GB takes %v; a unit is a letter, as in \"500M\"", bytesize.Text(p.Limits.Rate), time.Duration(1e9/p.Limits.Rate)*time.Second)
	}
	slices.SortStableFunc(p.warnings, func(a, b *lineError) int { return cmp.Compare(a.line, b.line) })
}

// amount reads bytes, or bytes per second: a text with a unit, or a number.
func amount(v any, to *int64) (err error) {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return errors.New("negative")
		}
		*to = v
	case string:
		*to, err = bytesize.Parse(v)
	default:
		err = errors.New("want a number of bytes, or a text such as \"500M\"")
	}
	return err
}

func transfers(v any, to *int) error {
	n, ok := v.(int64)
	if !ok || n < 0 || n > MaxTransfers {
		return fmt.Errorf("want 1 to %d", MaxTransfers)
	}
	*to = int(n)
	return nil
}

func (c *Cache) setMode(v any) error {
	switch v {
	case "0600", "600":
		c.Mode = 0o600
	case "0640", "640":
		c.Mode = 0o640
	case "0644", "644":
		c.Mode = 0o644
	default:
		return errors.New("want \"0600\", \"0640\" or \"0644\"")
	}
	return nil
}
