// Package hostlist reads lists of nodes as administrators write them, and writes
// them back in the same short form.
//
// A list is made of expressions, each with items separated by commas:
//
//	node7                  a host name, or an IPv4 address
//	node7:9998             with a port
//	::1, [::1]:9998        an IPv6 address; brackets are needed only before a port
//	node[001-128,200]      a range: padding is kept, and each end is as wide
//	node[1-9/2]            with a step: 1, 3, 5, 7, 9
//	r[1-2]n[01-04]:9998    several ranges: the last changes fastest
//	@FILE                  the items in a file, @- those on standard input
//	!node7, !node[3-5]     left out, wherever in the list it stands, on whatever
//	                       port; with a port, only on that one
//	!@FILE                 everything in a file left out
//
// A file has one expression a line. What follows the first blank or # of a line is
// ignored, so that host files of MPI can be used as they are ("node1 slots=4"), and a
// line that repeats the one before it counts once, as the host files of batch systems
// repeat a host for each of its processes. A file cannot name another file. In one
// host:4 is an error: MPICH writes so how many processes a host shall run, and a
// port below 1024 is less likely than that.
//
// The ranges are those of ClusterShell's nodeset, and of Slurm.
package hostlist

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// MaxNodes is how many nodes a list may have, those left out included.
const MaxNodes = 100_000

// maxLine bounds a line of a file, in bytes, and maxFile the whole file.
const (
	maxLine = 1 << 20
	maxFile = 64 << 20
)

// maxSlots is the least number that in a file is believed to be a port.
const maxSlots = 1024

// ErrEmpty is the error for a list without nodes.
var ErrEmpty = errors.New("node list: no nodes in it")

// A SyntaxError says what is wrong in an expression, and where.
type SyntaxError struct {
	File   string // "" on the command line
	Line   int    // in File, from 1
	Expr   string // the expression
	Pos    int    // in bytes from its start, from 1
	Reason string
	hint   string
}

// Hint says what to write instead, or is empty.
func (e *SyntaxError) Hint() string { return e.hint }

func (e *SyntaxError) Error() string {
	expr := e.Expr
	if len(expr) > 80 {
		expr = expr[:77] + "..."
	}
	return fmt.Sprintf("node list: %s%q at %d: %s", where(e.File, e.Line), expr, e.Pos, e.Reason)
}

func where(file string, line int) string {
	if file == "" {
		return ""
	}
	return fmt.Sprintf("%s line %d: ", file, line)
}

// A DuplicateError says that a node is in the list twice.
type DuplicateError struct {
	File string // "" on the command line
	Line int    // in File, from 1
	Name string // as given the second time
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("node list: %snode %q is given twice", where(e.File, e.Line), e.Name)
}

// Hint says what to do about it.
func (e *DuplicateError) Hint() string { return "name each node once; !NAME leaves one out" }

// Parse returns the nodes of a list as "host" or "host:port", in the order in which
// they stand there; an IPv6 address has brackets only before a port. Files are opened
// with open ("-" is standard input); nil means os.Open and os.Stdin. Errors are
// *SyntaxError, *DuplicateError, ErrEmpty, or those of reading a file. Nothing is
// expanded before it is known to have no more than MaxNodes nodes.
func Parse(exprs []string, open func(name string) (io.ReadCloser, error)) ([]string, error) {
	if open == nil {
		open = openFile
	}
	p := parser{open: open, seen: map[string]bool{}, out: map[string]bool{}}
	for _, expr := range exprs {
		if err := p.expression(&SyntaxError{Expr: expr}, false); err != nil {
			return nil, err
		}
	}
	if err := p.unmatched(); err != nil {
		return nil, err
	}
	nodes := p.nodes[:0]
	for _, name := range p.nodes {
		host, _, err := SplitPort(name, 0)
		if err != nil {
			return nil, err
		}
		if !p.out[key(name)] && !p.out[key(host)] {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) == 0 {
		return nil, ErrEmpty
	}
	return nodes, nil
}

func openFile(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(name)
}

// parser collects the nodes of a list.
type parser struct {
	open  func(name string) (io.ReadCloser, error)
	nodes []string        // in order
	seen  map[string]bool // keys of nodes
	out   map[string]bool // keys of what is left out
	count int             // of names expanded
	named []exclusion     // written out, not in a file
}

// exclusion is a ! on the command line. One that matches no node of the list is
// most likely misspelt, and the node it means would be written to.
type exclusion struct {
	err  SyntaxError // what to say then
	keys []string
}

// unmatched reports the first exclusion that leaves nothing out. What a file of
// nodes to leave out names beside is no mistake.
func (p *parser) unmatched() error {
	if len(p.named) == 0 {
		return nil
	}
	there := map[string]bool{}
	for _, name := range p.nodes {
		there[key(name)] = true
		if host, _, err := SplitPort(name, 0); err == nil {
			there[key(host)] = true
		}
	}
	for _, x := range p.named {
		if !slices.ContainsFunc(x.keys, func(k string) bool { return there[k] }) {
			return &x.err
		}
	}
	return nil
}

// expression adds the items of at.Expr; at also says where it stands. All of it is
// left out if out.
func (p *parser) expression(at *SyntaxError, out bool) error {
	if strings.TrimSpace(at.Expr) == "" {
		return nil
	}
	for start := 0; start <= len(at.Expr); {
		end := start + itemLen(at.Expr[start:])
		if err := p.item(at, start, end, out); err != nil {
			return err
		}
		start = end + 1
	}
	return nil
}

// itemLen returns the length of the first item of s: up to a comma outside brackets.
func itemLen(s string) int {
	depth := 0
	for i := range len(s) {
		switch {
		case s[i] == '[':
			depth++
		case s[i] == ']':
			depth--
		case s[i] == ',' && depth <= 0:
			return i
		}
	}
	return len(s)
}

// item adds the item that is at.Expr[start:end].
func (p *parser) item(at *SyntaxError, start, end int, out bool) error {
	fail := func(pos int, format string, args ...any) error {
		e := *at
		e.Pos, e.Reason = pos+1, fmt.Sprintf(format, args...)
		return &e
	}
	s := strings.TrimRight(at.Expr[start:end], " \t\r\n")
	item := strings.TrimLeft(s, " \t\r\n")
	start += len(s) - len(item)
	if rest, ok := strings.CutPrefix(item, "!"); ok {
		item, out = rest, !out
		start++
		if at.File != "" && !out {
			return fail(start-1, "! in a file that is left out")
		}
	}
	if file, ok := strings.CutPrefix(item, "@"); ok {
		if at.File != "" {
			return fail(start, "a file cannot name another file")
		}
		if file == "" {
			return fail(start, "no file name after @ (@- is standard input)")
		}
		return p.file(file, out)
	}
	pat, bad := parsePattern(item)
	if bad != nil {
		return fail(start+bad.pos, "%s", bad.reason)
	}
	n := pat.count(MaxNodes - p.count)
	if n < 0 {
		return fail(start, "more than %d nodes", MaxNodes)
	}
	p.count += n
	var left []string
	for name := range pat.names() {
		name, err := canonical(name)
		if err != nil {
			return fail(start, "%v", err)
		}
		if _, port, err := SplitPort(name, maxSlots); at.File != "" && err == nil && port < maxSlots {
			e := *at
			e.Pos, e.Reason = start+1, fmt.Sprintf(":%d looks like the number of slots in a machine file of MPICH", port)
			e.hint = fmt.Sprintf("write the name alone; a port below %d is given with --port, or on the command line", maxSlots)
			return &e
		}
		if out {
			p.out[key(name)] = true
			left = append(left, key(name))
			continue
		}
		if p.seen[key(name)] {
			return &DuplicateError{File: at.File, Line: at.Line, Name: name}
		}
		p.seen[key(name)] = true
		p.nodes = append(p.nodes, name)
	}
	if out && at.File == "" {
		e := *at
		e.Pos, e.Reason = start+1, "leaves out no node of the list"
		p.named = append(p.named, exclusion{e, left})
	}
	return nil
}

// file adds the expressions in a file.
func (p *parser) file(name string, out bool) error {
	f, err := p.open(name)
	if err != nil {
		return fmt.Errorf("node list: %w", err)
	}
	defer f.Close()
	if name == "-" {
		name = "standard input"
	}
	limited := &io.LimitedReader{R: f, N: maxFile}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxLine)
	last := ""
	for n := 1; lines.Scan(); n++ {
		expr := strings.TrimLeft(lines.Text(), " \t\r")
		if end := strings.IndexAny(expr, " \t\r#"); end >= 0 {
			expr = expr[:end]
		}
		if expr == last {
			continue
		}
		if err := p.expression(&SyntaxError{File: name, Line: n, Expr: expr}, out); err != nil {
			return err
		}
		if expr != "" {
			last = expr
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("node list: %s: %w", name, err)
	}
	if limited.N == 0 {
		return fmt.Errorf("node list: %s: larger than %d MiB", name, maxFile>>20)
	}
	return nil
}

// key is equal for two names of one node: case does not matter, nor how an address
// is written.
func key(name string) string {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.String()
	}
	if strings.HasPrefix(name, "[") {
		if ap, err := netip.ParseAddrPort(name); err == nil {
			return ap.String()
		}
	}
	return strings.ToLower(name)
}
