package hostlist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// parser collects the nodes of a list.
type parser struct {
	Options
	// nodes has the nodes in order, and seen has their keys with the port.
	nodes []string
	seen  map[string]bool
	// out has the keys of the nodes to leave out. They have a port if the list has one there.
	out map[string]bool
	// named has the exclusions of the command line itself, and not those in files.
	named []exclusion
}

// exclusion is what one item leaves out. An exclusion that matches no node of the list may be
// misspelt, and then the node that it means would be written to.
type exclusion struct {
	text string
	keys []string
}

const blanks = " \t\r\n"

// An item is a part of an expression between commas or blanks.
type item struct {
	// start and end are where it begins and ends in the expression.
	start, end int
	// first says that no item is before it.
	first       bool
	afterComma  bool
	beforeComma bool
}

// items returns the items of an expression. There is an empty item between two commas.
func items(expr string) []item {
	var list []item
	skip := func(i int) int { return len(expr) - len(strings.TrimLeft(expr[i:], blanks)) }
	i := skip(0)
	if i == len(expr) {
		return nil
	}
	for comma := false; ; {
		it := item{start: i, end: i + itemLen(expr[i:]), first: len(list) == 0, afterComma: comma}
		i = skip(it.end)
		it.beforeComma = i < len(expr) && expr[i] == ','
		list = append(list, it)
		if comma = it.beforeComma; comma {
			i = skip(i + 1)
		} else if i == len(expr) {
			return list
		}
	}
}

// itemLen returns the length of the first item of s: up to a comma or a blank outside
// of brackets. A word such as slots=4 ends at a blank only.
func itemLen(s string) int {
	if isSetting(s) {
		if end := strings.IndexAny(s, blanks); end >= 0 {
			return end
		}
		return len(s)
	}
	depth := 0
	for i := range len(s) {
		switch {
		case s[i] == '[':
			depth++
		case s[i] == ']':
			depth--
		case depth <= 0 && (s[i] == ',' || strings.IndexByte(blanks, s[i]) >= 0):
			return i
		}
	}
	return len(s)
}

// isSetting reports whether s begins with a word and an equals sign, as slots=4 does.
func isSetting(s string) bool {
	rest := strings.TrimLeft(s, letters+digits+"-_")
	return len(rest) < len(s) && strings.HasPrefix(rest, "=") && strings.Trim(s[:1], letters) == ""
}

// mayBeNode returns where in a setting something begins that may be a node, or 0 if there is no such thing. It is
// behind a comma and has letters or brackets, because a value has commas only between numbers, as in
// binding=user:0,1.
func mayBeNode(s string) int {
	value, _, _ := strings.Cut(s, ",")
	for at := len(value) + 1; at < len(s); {
		part, _, _ := strings.Cut(s[at:], ",")
		if strings.Trim(part, digits+"-:") != "" {
			return at
		}
		at += len(part) + 1
	}
	return 0
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, digits) == "" }

// expression adds the items of at.Expr to the list, or to the nodes to leave out, and returns how many items there
// are. At also says where the expression stands.
func (p *parser) expression(at *SyntaxError, out bool) (int, error) {
	list := items(at.Expr)
	behindName := false // so that a count may follow
	for _, it := range list {
		s := at.Expr[it.start:it.end]
		free := !it.first && !it.afterComma // then it may be something else than a node
		if isSetting(s) && free {
			if n := mayBeNode(s); n > 0 {
				return 0, at.fail(it.start+n, errkind.Kind("nodes-blank"),
					"%s may be a node or belong to %s", s[n:], s[:strings.IndexByte(s, '=')])
			}
			behindName = false
			continue
		}
		if isNumber(s) && free {
			// Host files have counts. Somebody who types a number means a node, or has made a mistake.
			if !behindName || it.beforeComma || at.File == "" {
				return 0, at.fail(it.start, errkind.Kind("nodes-commas"),
					"%s may be a node or how many processes a node runs", s)
			}
			behindName = false
			continue
		}
		if err := p.item(at, it.start, s, out); err != nil {
			return 0, err
		}
		behindName = !isNumber(s)
	}
	return len(list), nil
}

// fail returns an error about what is at byte pos of the expression, from 0.
func (e *SyntaxError) fail(pos int, kind errkind.Kind, format string, args ...any) error {
	bad := *e
	bad.Pos, bad.Reason, bad.kind = pos+1, fmt.Sprintf(format, args...), kind
	return &bad
}

// item adds the item s, which begins at byte start of at.Expr.
func (p *parser) item(at *SyntaxError, start int, s string, out bool) error {
	text := s
	if rest, ok := strings.CutPrefix(s, "!"); ok {
		if out {
			return at.fail(start, "", "! in a list that is left out")
		}
		s, out = rest, true
		start++
	}
	if file, ok := strings.CutPrefix(s, "@"); ok {
		switch {
		case at.File != "":
			return at.fail(start, "", "a file cannot name another file")
		case file == "":
			return at.fail(start, "", "no file name after @ (@- is standard input)")
		}
		return p.file(file, out)
	}
	pat, bad := parsePattern(s)
	if bad != nil {
		return at.fail(start+bad.pos, "", "%s", bad.reason)
	}
	if pat.count(MaxNodes) < 0 {
		return at.fail(start, "", "more than %d nodes", MaxNodes)
	}
	var left []string
	for name := range pat.names() {
		name, err := canonical(name)
		if err != nil {
			return at.fail(start, kindOf(s), "%v", err)
		}
		if _, port, err := SplitPort(name, maxSlots); at.File != "" && err == nil && port < maxSlots {
			return at.fail(start, errkind.Kind("nodes-port"),
				":%d looks like the number of slots in a machine file of MPICH", port)
		}
		host, full := p.keys(name)
		switch {
		case out && hasPort(name):
			p.out[full] = true
			left = append(left, full)
		case out:
			p.out[host] = true
			left = append(left, host)
		case !p.seen[full]:
			p.seen[full] = true
			p.nodes = append(p.nodes, name)
		}
	}
	if len(p.nodes)+len(p.out) > MaxNodes {
		return at.fail(start, "", "more than %d nodes", MaxNodes)
	}
	if out && at.File == "" {
		p.named = append(p.named, exclusion{text, left})
	}
	return nil
}

// kindOf returns the kind of mistake if s is written as other tools want it, or "".
func kindOf(s string) errkind.Kind {
	switch {
	case strings.HasPrefix(s, "^"):
		return errkind.Kind("nodes-file")
	case strings.HasPrefix(s, "-"), strings.ContainsAny(s, "!"):
		return errkind.Kind("nodes-exclude")
	case strings.ContainsAny(s, "@="):
		return errkind.Kind("nodes-host")
	}
	return ""
}

// unmatched notes each exclusion that leaves nothing out. It passes over files, which may well name nodes that are not
// in the list.
func (p *parser) unmatched() {
	if len(p.named) == 0 || p.Note == nil {
		return
	}
	there := map[string]bool{}
	for _, name := range p.nodes {
		host, full := p.keys(name)
		there[host], there[full] = true, true
	}
	for _, x := range p.named {
		if !slices.ContainsFunc(x.keys, func(k string) bool { return there[k] }) {
			p.Note(fmt.Sprintf("%q leaves out no node of the list", x.text))
		}
	}
}

// file adds the expressions in a file.
func (p *parser) file(name string, out bool) error {
	f, err := p.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(name)
	}
	if err != nil {
		return fmt.Errorf("node list: %w", err)
	}
	defer f.Close()
	if name == "-" {
		name = "standard input"
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("node list: %s: %w", name, err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("node list: %s: larger than %d MiB", name, maxFile>>20)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // editors of Windows put it first
	n, total := 0, 0
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		found, err := p.expression(&SyntaxError{File: name, Line: n, Expr: strings.Trim(line, blanks)}, out)
		if err != nil {
			return err
		}
		total += found
	}
	if total == 0 && !out && p.Note != nil {
		p.Note(name + " names no node")
	}
	return nil
}

// missing says where a file was looked for that is not there.
func missing(name string) error {
	path, err := filepath.Abs(name)
	if err != nil {
		path = name
	}
	err = fmt.Errorf("%s: %w", path, syscall.ENOENT)
	if strings.Contains(name, "/") {
		return errkind.Errorf("input-missing", "node list: @%s: %w", name, err)
	}
	return &GroupError{name, err}
}

// keys returns keys that are equal for two names of one node. They do not depend on upper and lower case, on how an
// address is written, or on whether the usual port is named. Host is the key without the port.
func (p *parser) keys(name string) (host, full string) {
	host, port, _ := SplitPort(name, p.Port)
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().String()
	} else {
		host = strings.ToLower(host)
	}
	return host, net.JoinHostPort(host, strconv.Itoa(port))
}

// hasPort reports whether a name that canonical returned has a port.
func hasPort(name string) bool {
	return strings.HasPrefix(name, "[") || strings.Count(name, ":") == 1
}
