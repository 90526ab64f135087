package bytesize

import (
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "1000": 1000, "9B": 9,
		"1k": 1000, "1K": 1000, "1Ki": 1024, "1KiB": 1024, "200M": 200e6, "200MB": 200e6,
		"64Mi": 64 << 20, "1.5G": 1.5e9, "0.5k": 500, "2T": 2e12, "1P": 1e15, "1Pi": 1 << 50, ".5k": 500,
		"9223372036854775807": math.MaxInt64, "9007199254740993": 9007199254740993,
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "M", "B", "i", "1i", "-1", "+1", "1 M", " 1M", "1X", "1Mk", "1MiM", "1BB", "1Bi", "1e3", "0x10", "1.5", "1..5k",
		"1.2.3M", "NaN", "Inf", "1M/s", "9223372036854775808", "10000P", "9999999999Ti", "9300.0P", "99999999999999999999.0P",
	} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"500M", "1.5G", "64MiB", "9223372036854775807", "9007199254740993k", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Parse(s); err == nil && n < 0 {
			t.Errorf("Parse(%q) = %d", s, n)
		}
	})
}

func TestText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 99_960: "100 kB",
		999_499: "999 kB", 999_500: "1.00 MB", 268_435_456: "268 MB", 1<<63 - 1: "9.22 EB",
	} {
		if got := Text(n); got != want {
			t.Errorf("Text(%d) = %q, want %q", n, got, want)
		}
	}
}
