package hostlist

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Fold writes names, as Parse returns them, as a short list: "node[01-16,20],login".
// It puts names together that have the same text around their numbers, and begins with
// the last number: r1n1, r1n2, r2n1, r2n2 becomes "r[1-2]n[1-2]". It takes each name once.
// Parse of the result returns the same names. Those that Fold has put together are in the order of
// their numbers.
func Fold(names []string) string {
	var order []string // the shapes in the order in which they first appear
	groups := map[string][]product{}
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		shape, numbers := split(name)
		if groups[shape] == nil {
			order = append(order, shape)
		}
		groups[shape] = append(groups[shape], numbers)
	}
	var out []string
	for _, shape := range order {
		group := groups[shape]
		for i := len(group[0]) - 1; i >= 0; i-- {
			group = merge(group, i)
		}
		for _, p := range group {
			out = append(out, p.write(shape))
		}
	}
	return strings.Join(out, ",")
}

// A product stands for every choice of one number from each of its sets. A number is
// kept as its digits, because padding counts.
type product [][]string

// mark stands for a number in a shape. No name has it.
const mark = "\x00"

// split takes the numbers out of a name. It leaves those in the brackets of an IPv6 address, and those that
// are too long for a range.
func split(name string) (shape string, numbers product) {
	var b strings.Builder
	if strings.HasPrefix(name, "[") {
		end := strings.IndexByte(name, ']') + 1
		b.WriteString(name[:end])
		name = name[end:]
	}
	for name != "" {
		text := strings.IndexAny(name, digits)
		if text < 0 {
			text = len(name)
		}
		b.WriteString(name[:text])
		name = name[text:]
		rest := strings.TrimLeft(name, digits)
		number := name[:len(name)-len(rest)]
		name = rest
		if number == "" || len(number) > maxDigits {
			b.WriteString(number)
			continue
		}
		b.WriteString(mark)
		numbers = append(numbers, []string{number})
	}
	return b.String(), numbers
}

// merge unites products that differ in set i only. No two products of a group have a name in common.
func merge(group []product, i int) []product {
	at := map[string]int{}
	var out []product
	for _, p := range group {
		var key strings.Builder
		for j, set := range p {
			if j != i {
				key.WriteString(strings.Join(set, ",") + ";")
			}
		}
		k, ok := at[key.String()]
		if !ok {
			at[key.String()] = len(out)
			out = append(out, p)
			continue
		}
		out[k][i] = append(out[k][i], p[i]...)
	}
	for _, p := range out {
		slices.SortFunc(p[i], byNumber)
	}
	return out
}

// byNumber orders numbers by their width and then by their value: 9, 09, 10.
func byNumber(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// write puts the sets of p in the places of a shape.
func (p product) write(shape string) string {
	var b strings.Builder
	texts := strings.Split(shape, mark)
	for i, set := range p {
		b.WriteString(texts[i])
		if len(set) == 1 {
			b.WriteString(set[0])
			continue
		}
		b.WriteString("[" + ranges(set) + "]")
	}
	b.WriteString(texts[len(p)])
	return b.String()
}

// ranges writes ordered numbers as 1-4,7,01-02.
func ranges(set []string) string {
	var out []string
	for i := 0; i < len(set); {
		first, last := set[i], set[i]
		for i++; i < len(set) && follows(first, last, set[i]); i++ {
			last = set[i]
		}
		if first != last {
			first += "-" + last
		}
		out = append(out, first)
	}
	return strings.Join(out, ",")
}

// follows reports whether next can extend the range first-last.
func follows(first, last, next string) bool {
	a, _ := strconv.ParseUint(last, 10, 64)
	b, _ := strconv.ParseUint(next, 10, 64)
	return b == a+1 && (len(next) == len(last) || !padded(first) && !padded(next))
}
