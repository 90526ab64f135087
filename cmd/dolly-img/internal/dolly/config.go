package dolly

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/hostlist"
)

const (
	maxFile = 16 << 20 // bytes of a configuration file
	maxMB   = math.MaxInt64 >> 20
)

// Config is what a configuration file says.
type Config struct {
	Input, Output Path

	Dummy      bool  // there is no input
	DummyBytes int64 // how much a dummy run sends; 0 is not said

	Suffix       Suffix
	HyphenNormal bool
	Server       string   // "" is not said
	Nodes        []string // in the order of the ring
	Ineffective  []string // settings that have no effect here

	// Notes are what is odd in the file and no error.
	Notes []string
}

// Path is the line of a file.
type Path struct {
	Path       string
	Compressed bool
	Split      bool
	Each       int64 // bytes of each part of a split output
}

// A ConfigError says what is wrong in a configuration file.
type ConfigError struct {
	File string
	Line int // from 1; 0 is the file as a whole
	Err  error
}

func (e *ConfigError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s line %d: %v", e.File, e.Line, e.Err)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// reserved are the words that cannot be names of nodes.
var reserved = []string{"compressed", "infile", "outfile", "dummy", "segsize", "add", "add2", "fanout", "hyphennormal",
	"hypheninterface", "server", "firstclient", "lastclient", "clients", "endconfig"}

// configReader takes a file line by line.
type configReader struct {
	file  string
	lines [][]string // the words of each line
	at    int        // the next line
	conf  Config
}

// ReadConfig reads a configuration file, which errors call name. Every error about what is in it is a *ConfigError.
func ReadConfig(r io.Reader, name string) (*Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &configReader{file: name}
	if len(text) > maxFile {
		return nil, c.fail(0, "more than %d MiB", maxFile>>20)
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, c.fail(0, "is not text")
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); i >= 0 {
			words = words[:i]
		}
		c.lines = append(c.lines, words)
	}
	for _, step := range []func() error{c.source, c.target, c.settings, c.nodes} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &c.conf, nil
}

func (c *configReader) fail(line int, format string, args ...any) error {
	return &ConfigError{c.file, line, fmt.Errorf(format, args...)}
}

// wrong is fail about the line that was taken last.
func (c *configReader) wrong(format string, args ...any) error { return c.fail(c.at, format, args...) }

// peek returns the words of the next line that has any, or nil at the end.
func (c *configReader) peek() []string {
	for c.at < len(c.lines) && len(c.lines[c.at]) == 0 {
		c.at++
	}
	if c.at == len(c.lines) {
		return nil
	}
	return c.lines[c.at]
}

// take returns the words of the next line, if it begins with one of these.
func (c *configReader) take(words ...string) []string {
	line := c.peek()
	if line == nil || !slices.Contains(words, line[0]) {
		return nil
	}
	c.at++
	return line
}

// value takes the line "keyword value", if it is the next one.
func (c *configReader) value(keyword string) (value string, ok bool, err error) {
	line := c.take(keyword)
	switch {
	case line == nil:
		return "", false, nil
	case len(line) != 2:
		return "", true, c.wrong("want %s and one word behind it", keyword)
	}
	return line[1], true, nil
}

// number takes the line "keyword N", if it is the next one.
func (c *configReader) number(keyword string, least, most int64) (n int64, ok bool, err error) {
	value, ok, err := c.value(keyword)
	if err != nil || !ok {
		return 0, ok, err
	}
	n, err = strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		return 0, true, c.wrong("%s %s: want a number from %d to %d", keyword, value, least, most)
	}
	return n, true, nil
}

func (c *configReader) source() error {
	line := c.take("compressed", "infile", "dummy")
	switch {
	case line == nil:
		c.at = min(c.at+1, len(c.lines))
		return c.wrong("want infile and a path, or dummy, as the first line")
	case line[0] != "dummy":
		return c.path(line, "infile", &c.conf.Input)
	case len(line) > 2:
		return c.wrong("want dummy, and how many MB")
	}
	c.conf.Dummy = true
	if len(line) == 2 {
		n, err := strconv.ParseInt(line[1], 10, 64)
		if err != nil || n < 1 || n > maxMB {
			return c.wrong("dummy %s: want the number of MB", line[1])
		}
		c.conf.DummyBytes = n << 20
	}
	return nil
}

func (c *configReader) target() error {
	line := c.take("compressed", "outfile")
	if line == nil {
		if c.conf.Dummy {
			return nil
		}
		c.at = min(c.at+1, len(c.lines))
		return c.wrong("want outfile and a path behind the input")
	}
	return c.path(line, "outfile", &c.conf.Output)
}

// path takes apart the line of a file.
func (c *configReader) path(line []string, keyword string, p *Path) error {
	if line[0] == "compressed" {
		p.Compressed = true
		line = line[1:]
	}
	if len(line) == 0 || line[0] != keyword {
		return c.wrong("want %s", keyword)
	}
	if len(line) < 2 {
		return c.wrong("%s: no path", keyword)
	}
	p.Path, line = line[1], line[2:]
	if len(line) == 0 {
		return nil
	}
	p.Split = true
	sized := keyword == "outfile"
	switch {
	case line[0] != "split":
		return c.wrong("%s %s: %q behind the path, which has no blanks in it here: want nothing, or split", keyword, p.Path, line[0])
	case sized && len(line) != 2:
		return c.wrong("outfile %s split: want the size of a part, such as 2G", p.Path)
	case !sized && len(line) != 1:
		return c.wrong("infile %s split: %q behind it", p.Path, line[1])
	case sized:
		var err error
		if p.Each, err = splitSize(line[1]); err != nil {
			return c.wrong("outfile %s split %s: %w", p.Path, line[1], err)
		}
	}
	return nil
}

// splitSize reads the size of a part in bytes, in powers of 1024.
func splitSize(s string) (int64, error) {
	number, shift := s, 0
	if n := len(s) - 1; n > 0 {
		if i := strings.IndexByte("kMGT", s[n]); i >= 0 {
			number, shift = s[:n], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64>>shift {
		return 0, errors.New("want a number with k, M, G or T behind it")
	}
	return n << shift, nil
}

func (c *configReader) settings() error {
	for _, keyword := range []string{"segsize", "add", "fanout", "hyphennormal"} {
		switch keyword {
		case "add":
			if line := c.take("add", "add2"); line != nil {
				if err := c.add(line); err != nil {
					return err
				}
			}
		case "hyphennormal":
			if line := c.take("hyphennormal", "hypheninterface"); len(line) > 1 {
				return c.wrong("%s: %q behind it", line[0], line[1])
			} else if line != nil {
				c.conf.HyphenNormal = line[0] == "hyphennormal"
			}
		default:
			_, ok, err := c.number(keyword, 0, math.MaxInt32)
			if err != nil {
				return err
			}
			if ok {
				c.conf.Ineffective = append(c.conf.Ineffective, keyword)
			}
		}
	}
	return nil
}

// roles takes the lines that dolly has up to 0.64. Clients is -1 where the file does not say how many there are.
func (c *configReader) roles() (first, last string, clients int64, err error) {
	clients = -1
	if c.conf.Server, _, err = c.value("server"); err != nil {
		return "", "", 0, err
	}
	if first, _, err = c.value("firstclient"); err != nil {
		return "", "", 0, err
	}
	if last, _, err = c.value("lastclient"); err != nil {
		return "", "", 0, err
	}
	n, ok, err := c.number("clients", 1, hostlist.MaxNodes)
	if ok {
		clients = n
	}
	return first, last, clients, err
}

func (c *configReader) nodes() error {
	first, last, clients, err := c.roles()
	if err != nil {
		return err
	}
	announced, lines := c.at, 0
	seen := map[string]int{}
	for {
		line := c.peek()
		if line == nil {
			c.at = len(c.lines)
			return c.wrong("no endconfig at the end")
		}
		c.at++
		if line[0] == "endconfig" {
			break
		}
		if err := c.node(line); err != nil {
			return err
		}
		name := line[0]
		lines++
		if before := seen[name]; before > 0 {
			c.conf.Notes = append(c.conf.Notes, fmt.Sprintf("node %s is in the list twice, in line %d and in line %d, and gets it once", name, before, c.at))
			continue
		}
		seen[name] = c.at
		c.conf.Nodes = append(c.conf.Nodes, name)
	}
	n := len(c.conf.Nodes)
	switch {
	case n == 0:
		return c.wrong("no nodes in front of endconfig")
	case clients >= 0 && clients != int64(n) && clients != int64(lines):
		return c.fail(announced, "clients %d: %d names follow", clients, n)
	}
	if first != "" && first != c.conf.Nodes[0] {
		c.conf.Notes = append(c.conf.Notes, fmt.Sprintf("firstclient %s is not the first in the list of nodes, whose order counts", first))
	}
	if last != "" && last != c.conf.Nodes[n-1] {
		c.conf.Notes = append(c.conf.Notes, fmt.Sprintf("lastclient %s is not the last in the list of nodes, whose order counts", last))
	}
	return nil
}

// node checks the line of a node.
func (c *configReader) node(line []string) error {
	name := line[0]
	switch {
	case slices.Contains(reserved, name):
		return c.wrong("%s stands too late, or twice: the order is infile, outfile, segsize, add, fanout, hyphennormal, server, firstclient, lastclient, clients, and then the names", name)
	case len(line) > 1:
		return c.wrong("%q behind the name of a node: want one name on each line", line[1])
	case strings.ContainsAny(name, "!@,") || strings.Contains(strings.TrimPrefix(name, "["), "["):
		return c.wrong("%q is not the name of a node", name)
	}
	if _, _, err := hostlist.SplitPort(name, 1); err != nil {
		return c.wrong("%w", err)
	}
	if len(c.conf.Nodes) == hostlist.MaxNodes {
		return c.wrong("more than %d nodes", hostlist.MaxNodes)
	}
	return nil
}
