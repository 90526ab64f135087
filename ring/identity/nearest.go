package identity

import "strings"

// nearest returns the name that somebody may have meant who wrote s: one that differs in at most two characters, and in less than half
// of them, or one that s begins or that begins s. Upper and lower case are the same, and other numbers are no slip. It is "" if none is
// near.
func nearest(s string, names []string) string {
	noDigits := func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}
	found, least := "", 3
	for _, name := range names {
		if strings.Map(noDigits, name) == strings.Map(noDigits, s) {
			continue
		}
		a, b := strings.ToLower(s), strings.ToLower(name)
		d := distance(a, b)
		if short := min(len(a), len(b)); short >= 3 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			d = min(d, 2)
		}
		if d < least && 2*d < len(b) {
			found, least = name, d
		}
	}
	return found
}

// distance is how many bytes have to be added, left out or changed to make b of a (V. I. Levenshtein, 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
