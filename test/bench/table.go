package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// reference is what the others are compared with: the least that a chain which verifies can cost here.
const reference = "bare"

// figure is one column of the table, made of a sample.
type figure struct {
	head   string
	of     func(s scenario, x *sample) float64
	format string
	ratio  bool // also as a ratio to the reference, of the same round
}

var figures = []figure{
	{"MB/s", func(s scenario, x *sample) float64 { return float64(s.Size) / 1e6 / x.Seconds }, "%.0f", true},
	{"CPU-s/GB/node", func(s scenario, x *sample) float64 {
		return x.CPU / (float64(s.Size) / 1e9) / float64(s.Nodes)
	}, "%.2f", true},
	{"switches/MiB", func(s scenario, x *sample) float64 {
		return float64(x.Switches) / (float64(s.Size) / (1 << 20))
	}, "%.1f", true},
	{"s", func(_ scenario, x *sample) float64 { return x.Seconds }, "%.2f", false},
	{"s reported", func(_ scenario, x *sample) float64 { return x.Report }, "%.2f", false},
	{"sent/image", func(s scenario, x *sample) float64 { return float64(x.Sent) / float64(s.Size) }, "%.3f", false},
	{"anon MiB", func(_ scenario, x *sample) float64 { return float64(x.Peak) / (1 << 20) }, "%.0f", false},
}

var slowFigures = []figure{
	{"s/(bytes/rate)", func(s scenario, x *sample) float64 {
		return x.Seconds / (float64(s.Size) * 8 / float64(s.Rate))
	}, "%.3f", false},
}

// print writes the table of the scenario. All has the results so far. If the same scenario with one
// node is among them, the table compares with it.
func (r *result) print(w io.Writer, all []*result) {
	link := "unshaped"
	if r.Rate > 0 {
		link = fmt.Sprintf("%.0f Mbit/s", float64(r.Rate)/1e6)
	}
	beside := ""
	if r.OneCore {
		beside += ", all processes on one core"
	}
	if r.Load > 0 {
		beside += fmt.Sprintf(", beside %d busy loops", r.Load)
	}
	fmt.Fprintf(w, "\nN=%d, %d MiB to %s, %s%s: median (least-most) of %d rounds\n", r.Nodes, r.Size>>20, r.Sink, link, beside, r.rounds())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	columns := slices.Clone(figures)
	if r.Rate > 0 {
		columns = append(slowFigures, columns...)
	}
	fmt.Fprint(t, "\t")
	for _, f := range columns {
		fmt.Fprintf(t, "%s\t", f.head)
		if f.ratio {
			fmt.Fprintf(t, "to %s\t", reference)
		}
	}
	one := r.alone(all)
	if one != nil {
		fmt.Fprintf(t, "T(%d)/T(1)\t", r.Nodes)
	}
	fmt.Fprintln(t)
	for _, name := range names() {
		samples := r.Samples[name]
		if len(samples) == 0 {
			continue
		}
		fmt.Fprintf(t, "%s\t", name)
		for _, f := range columns {
			values := each(samples, func(x *sample) float64 { return f.of(r.scenario, x) })
			if slices.Max(values) == 0 { // the program does not report this
				fmt.Fprint(t, "-\t")
				continue
			}
			fmt.Fprintf(t, f.format+" ("+f.format+"-"+f.format+")\t", median(values), slices.Min(values), slices.Max(values))
			if f.ratio {
				fmt.Fprintf(t, "%s\t", r.ratio(f, samples))
			}
		}
		if one != nil && len(one.Samples[name]) > 0 {
			seconds := func(x *sample) float64 { return x.Seconds }
			fmt.Fprintf(t, "%.3f\t", median(each(samples, seconds))/median(each(one.Samples[name], seconds)))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	r.printCalls(w)
}

func (r *result) rounds() (n int) {
	for _, samples := range r.Samples {
		n = max(n, len(samples))
	}
	return n
}

// ratio compares round by round.
func (r *result) ratio(f figure, samples []*sample) string {
	others := r.Samples[reference]
	if len(others) != len(samples) {
		return "-"
	}
	var ratios []float64
	for i, x := range samples {
		ratios = append(ratios, f.of(r.scenario, x)/f.of(r.scenario, others[i]))
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

// alone is the result for one node of what is the same otherwise.
func (r *result) alone(all []*result) *result {
	want := r.scenario
	want.Nodes = 1
	i := slices.IndexFunc(all, func(x *result) bool { return x.scenario == want })
	if r.Nodes == 1 || i < 0 {
		return nil
	}
	return all[i]
}

func each(samples []*sample, f func(*sample) float64) (values []float64) {
	for _, x := range samples {
		values = append(values, f(x))
	}
	return values
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
