package hostlist

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// A pattern is a name with ranges in it. It has the form text, set, text, set, ..., text.
type pattern struct {
	texts []string
	sets  [][]span
}

// A span stands for the numbers first, first+step, ... up to last, padded with zeros to width.
type span struct {
	first, last, step uint64
	width             int
}

func (s span) count() uint64 { return (s.last-s.first)/s.step + 1 }

// mistake says what is wrong in an item, and at which byte of it, from 0.
type mistake struct {
	pos    int
	reason string
}

// maxDigits is how many digits a number in a range may have, so that it fits a uint64.
const maxDigits = 18

// parsePattern reads one item. If it begins with brackets that have a colon in them, these are the brackets of an IPv6
// address and stay in the text.
func parsePattern(s string) (*pattern, *mistake) {
	p := &pattern{}
	shortest := 0 // the length of the shortest name in bytes
	text := ""
	for i := 0; i < len(s); {
		switch s[i] {
		case ']':
			return nil, &mistake{i, "] without ["}
		case '[':
			end := strings.IndexAny(s[i+1:], "[]")
			if end < 0 || s[i+1+end] != ']' {
				return nil, &mistake{i, "[ without ]"}
			}
			inner := s[i+1 : i+1+end]
			if i == 0 && strings.Contains(inner, ":") {
				text = s[:end+2]
				shortest += len(text)
			} else {
				set, bad := parseSet(inner, i+1)
				if bad != nil {
					return nil, bad
				}
				p.texts, p.sets = append(p.texts, text), append(p.sets, set)
				shortest++
				text = ""
			}
			i += end + 2
		default:
			end := strings.IndexAny(s[i:], "[]")
			if end < 0 {
				end = len(s) - i
			}
			shortest += end
			text += s[i : i+end]
			i += end
		}
	}
	if shortest > maxName {
		return nil, &mistake{0, "name too long"}
	}
	p.texts = append(p.texts, text)
	return p, nil
}

// parseSet reads what is between brackets. It begins at byte pos of the item.
func parseSet(s string, pos int) ([]span, *mistake) {
	var set []span
	for part := range strings.SplitSeq(s, ",") {
		sp, reason := parseSpan(strings.Trim(part, blanks))
		if reason != "" {
			return nil, &mistake{pos, reason}
		}
		set = append(set, sp)
		pos += len(part) + 1
	}
	return set, nil
}

func parseSpan(s string) (span, string) {
	bounds, stepText, stepped := strings.Cut(s, "/")
	low, high, ranged := strings.Cut(bounds, "-")
	if !ranged {
		high = low
	}
	sp := span{step: 1}
	for _, part := range []struct {
		text string
		to   *uint64
	}{{low, &sp.first}, {high, &sp.last}, {stepText, &sp.step}} {
		if part.to == &sp.step && !stepped {
			continue
		}
		if part.text == "" || strings.Trim(part.text, digits) != "" {
			return sp, fmt.Sprintf("range %q: want numbers such as 1-9 or 1-9/2", s)
		}
		if len(part.text) > maxDigits {
			return sp, fmt.Sprintf("range %q: number too long", s)
		}
		*part.to, _ = strconv.ParseUint(part.text, 10, 64)
	}
	switch {
	case stepped && (!ranged || sp.step == 0):
		return sp, fmt.Sprintf("range %q: want a step such as 1-9/2", s)
	case sp.first > sp.last:
		return sp, fmt.Sprintf("range %q: ends before it starts", s)
	}
	if padded(low) || padded(high) {
		if len(low) != len(high) {
			return sp, fmt.Sprintf("range %q: both ends must be padded to the same width", s)
		}
		sp.width = len(low)
	}
	return sp, ""
}

func padded(s string) bool { return len(s) > 1 && s[0] == '0' }

// count returns the number of names, or -1 if there are more than limit.
func (p *pattern) count(limit int) int {
	total := uint64(1)
	for _, set := range p.sets {
		n := uint64(0)
		for _, s := range set {
			n += min(s.count(), MaxNodes+1)
		}
		total *= min(n, MaxNodes+1) // both are at most MaxNodes+1, so this does not overflow
		if total > uint64(limit) {
			return -1
		}
	}
	if total > uint64(limit) {
		return -1
	}
	return int(total)
}

// names yields the names. The number of the last set changes fastest.
func (p *pattern) names() iter.Seq[string] {
	return func(yield func(string) bool) { p.from(0, "", yield) }
}

func (p *pattern) from(i int, prefix string, yield func(string) bool) bool {
	prefix += p.texts[i]
	if i == len(p.sets) {
		return yield(prefix)
	}
	for _, s := range p.sets[i] {
		for n, v := uint64(0), s.first; n < s.count(); n, v = n+1, v+s.step {
			if !p.from(i+1, fmt.Sprintf("%s%0*d", prefix, s.width, v), yield) {
				return false
			}
		}
	}
	return true
}
