// Package bytesize reads and writes amounts of bytes as people do.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// units are the letters in the order of their powers: k is 1000 bytes, Ki is 1024.
const units = "kMGTP"

// Parse returns the number of bytes that s stands for: "500M", "1.5G", "64Mi", "200MB".
//
// s begins with a number, which may be a decimal fraction if a unit follows. The units are
// k, M, G, T and P for powers of 1000 and Ki, Mi, Gi, Ti and Pi for powers of 1024 (IEC 80000-13);
// a B may follow. "K" is read as k. A fraction is rounded to whole bytes.
//
// The result is never negative. An error says what is wrong with s, which it quotes. A rate is an
// amount for each second; the caller says which of both it means.
func Parse(s string) (int64, error) {
	digits := strings.TrimRight(s, "BKkMGTPi")
	unit := strings.TrimSuffix(s[len(digits):], "B")
	factor := 1.0
	if unit != "" {
		base := 1000.0
		letter, binary := strings.CutSuffix(unit, "i")
		if binary {
			base = 1024
		}
		if letter == "K" {
			letter = "k"
		}
		power := strings.Index(units, letter)
		if len(letter) != 1 || power < 0 {
			return 0, fmt.Errorf("size %q: unknown unit %q (k, M, G, T, P or Ki, Mi, Gi, Ti, Pi)", s, unit)
		}
		factor = math.Pow(base, float64(power+1))
	}
	if digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return 0, fmt.Errorf("size %q: not a number of bytes (such as 500M)", s)
	}
	if whole, err := strconv.ParseInt(digits, 10, 64); err == nil {
		if whole > math.MaxInt64/int64(factor) {
			return 0, fmt.Errorf("size %q: too large", s)
		}
		return whole * int64(factor), nil
	}
	value, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("size %q: not a number of bytes (such as 500M)", s)
	case unit == "":
		return 0, fmt.Errorf("size %q: not a whole number of bytes", s)
	case value*factor >= math.MaxInt64:
		return 0, fmt.Errorf("size %q: too large", s)
	}
	return int64(math.Round(value * factor)), nil
}

// Text writes n bytes in powers of 1000, with three digits: "999 B", "1.50 kB", "268 MB".
func Text(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, all := float64(n), units+"E"
	i := -1
	for ; f >= 999.5 && i < len(all)-1; i++ {
		f /= 1000
	}
	switch {
	case f < 9.995:
		return fmt.Sprintf("%.2f %cB", f, all[i])
	case f < 99.95:
		return fmt.Sprintf("%.1f %cB", f, all[i])
	}
	return fmt.Sprintf("%.0f %cB", f, all[i])
}
