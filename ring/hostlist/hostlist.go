// Package hostlist reads lists of nodes as administrators write them, and writes
// them back in the same short form.
//
// A list is made of expressions, each with items separated by commas or blanks:
//
//	node7                  a host name, or an IPv4 address
//	node7:9998             with a port
//	::1, [::1]:9998        an IPv6 address; brackets are needed only before a port
//	node[001-128,200]      a range: padding is kept, and both ends have the same width
//	node[1-9/2]            with a step: 1, 3, 5, 7, 9
//	r[1-2]n[01-04]:9998    several ranges: the last changes fastest
//	@FILE                  the items in a file, @- those on standard input
//	!node7, !node[3-5]     nodes to leave out, wherever they stand in the list and on any
//	                       port, or with a port only on that one
//	!@FILE                 a file of nodes to leave out
//
// A file has one expression a line, and # begins a comment. A file cannot name another
// file. Several lists are a union, in the order in which nodes are first named. A node
// that is named twice is one node, even if the two names are spelt differently.
//
// The host files of MPI and of batch systems say behind a blank how many processes a
// host runs. Two forms of that are ignored behind a name: a word such as slots=4, and in a
// file a number, as in "node1 4 node2 4". A number that could be either a count or a node is an
// error, and so is everything else that is no node, because no node must be left out silently.
// In a file host:4 is an error. MPICH writes in this way how many processes a host runs, which is
// more likely than a port below 1024.
//
// Ranges are written as nodeset of ClusterShell and "scontrol show hostnames" of Slurm have them:
// https://clustershell.readthedocs.io/en/latest/tools/nodeset.html
package hostlist

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// MaxNodes is how many nodes a list may have, including those that are left out.
const MaxNodes = 100_000

// maxFile bounds a file, in bytes.
const maxFile = 64 << 20

// maxSlots is the least number behind a host and a colon that counts as a port in a file.
const maxSlots = 1024

// ErrEmpty is the error for a list without nodes.
var ErrEmpty = errors.New("node list: no nodes in it")

// A SyntaxError says what is wrong in an expression, and where.
type SyntaxError struct {
	// File is the file that has the expression. It is "" on the command line.
	File string
	// Line is the line of File, from 1.
	Line int
	// Expr is the whole expression.
	Expr string
	// Pos is where the mistake is in Expr: the number of the byte, from 1.
	Pos int
	// Reason says what is wrong there.
	Reason string

	kind errkind.Kind
}

// Kind returns what kind of mistake it is, or "".
func (e *SyntaxError) Kind() (errkind.Kind, []string) { return e.kind, nil }

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("node list: %s%s at %d: %s", where(e.File, e.Line), e.excerpt(), e.Pos, e.Reason)
}

// excerpt returns the expression, or what is around the mistake in a long one.
func (e *SyntaxError) excerpt() string {
	const most = 80
	from := 0
	if len(e.Expr) > most {
		from = max(0, min(e.Pos-most/4, len(e.Expr)-most))
	}
	s := fmt.Sprintf("%q", e.Expr[from:min(from+most, len(e.Expr))])
	if from > 0 {
		s = "..." + s
	}
	if from+most < len(e.Expr) {
		s += "..."
	}
	return s
}

func where(file string, line int) string {
	if file == "" {
		return ""
	}
	return fmt.Sprintf("%s line %d: ", file, line)
}

// A GroupError says that @NAME is no file. It may be meant as a node group of
// ClusterShell, which this package does not look up.
type GroupError struct {
	// Name is the name without @.
	Name string
	// Err says which file is not there.
	Err error
}

func (e *GroupError) Error() string { return fmt.Sprintf("node list: @%s: %v", e.Name, e.Err) }
func (e *GroupError) Unwrap() error { return e.Err }

// Kind returns the kind "nodes-group", about the group as it is written in a shell.
func (e *GroupError) Kind() (errkind.Kind, []string) {
	name := "@" + e.Name
	if strings.Trim(name, "@"+hostRest) != "" {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return "nodes-group", []string{name}
}

// Options says how to read a list. The zero value reads files of this machine.
type Options struct {
	// Port is the port of nodes that are named without one, so that name and name:Port are
	// one node. It is 0 when it is not known.
	Port int
	// Exclude are expressions whose nodes are left out.
	Exclude []string
	// Open opens a file, "-" for standard input. nil is os.Open and os.Stdin.
	Open func(name string) (io.ReadCloser, error)
	// Note gets a sentence about what is no error and may be a mistake. It may be nil.
	Note func(text string)
}

// Parse returns the nodes of a list as "host" or "host:port", each once, in the order
// of the list. An IPv6 address has brackets only before a port. Errors are *SyntaxError,
// *GroupError, ErrEmpty, or those of reading a file. Parse expands nothing before it knows that this gives
// no more than MaxNodes nodes.
func Parse(exprs []string, o Options) ([]string, error) {
	p := parser{Options: o, seen: map[string]bool{}, out: map[string]bool{}}
	if p.Open == nil {
		p.Open = openFile
	}
	for _, expr := range exprs {
		n, err := p.expression(&SyntaxError{Expr: expr}, false)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			// nodeset prints nothing for a group that does not exist.
			return nil, &SyntaxError{Expr: expr, Pos: 1, Reason: "one of the lists is empty",
				kind: errkind.Kind("nodes-none")}
		}
	}
	for _, expr := range o.Exclude {
		if _, err := p.expression(&SyntaxError{Expr: expr}, true); err != nil {
			return nil, err
		}
	}
	p.unmatched()
	nodes := p.nodes[:0]
	for _, name := range p.nodes {
		host, full := p.keys(name)
		if !p.out[full] && !p.out[host] {
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
