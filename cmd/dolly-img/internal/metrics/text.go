package metrics

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Put adds a series to a scrape: its value, and the values of the metric's labels in their order.
type Put func(m *Metric, value float64, labels ...string)

// A Source puts what it knows at each scrape. It does not wait for anything: a scrape must not be slow where a node is busy.
type Source func(ctx context.Context, put Put)

// A series is one line of a scrape.
type series struct {
	labels string
	value  float64
}

// Text returns what sources know of all metrics, in the text format of Prometheus.
func Text(ctx context.Context, all []*Metric, sources ...Source) []byte {
	found := map[*Metric][]series{}
	for _, source := range sources {
		source(ctx, func(m *Metric, value float64, labels ...string) {
			found[m] = append(found[m], series{labelText(m, labels), value})
		})
	}
	var b bytes.Buffer
	for _, m := range all {
		if len(found[m]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, helpEscapes.Replace(m.Help), m.Name, m.Type)
		for _, s := range found[m] {
			b.WriteString(m.Name + s.labels + " " + strconv.FormatFloat(s.value, 'f', -1, 64) + "\n")
		}
	}
	return b.Bytes()
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func labelText(m *Metric, values []string) string {
	if len(values) != len(m.Labels) {
		panic(fmt.Sprintf("metrics: %s has %d labels, not %d", m.Name, len(m.Labels), len(values)))
	}
	if len(values) == 0 {
		return ""
	}
	pairs := make([]string, len(values))
	for i, v := range values {
		pairs[i] = m.Labels[i] + `="` + labelEscapes.Replace(strings.ToValidUTF8(v, "\uFFFD")) + `"`
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// A Counter counts for each value of a metric's only label.
type Counter struct {
	m *Metric
	n []atomic.Int64
}

// NewCounter returns a counter at 0.
func NewCounter(m *Metric) *Counter { return &Counter{m, make([]atomic.Int64, len(m.Values))} }

// Add counts one more for a value. One that the metric does not have counts as its last.
func (c *Counter) Add(value string) {
	i := slices.Index(c.m.Values, value)
	if i < 0 {
		i = len(c.n) - 1
	}
	c.n[i].Add(1)
}

// Put is a Source.
func (c *Counter) Put(_ context.Context, put Put) {
	for i, value := range c.m.Values {
		put(c.m, float64(c.n[i].Load()), value)
	}
}

// PutTime puts a moment, in seconds since 1970. The zero time is not known, and is left out.
func PutTime(put Put, m *Metric, t time.Time, labels ...string) {
	if !t.IsZero() {
		put(m, float64(t.UnixMilli())/1000, labels...)
	}
}

// PutBool puts 1 for true and 0 for false.
func PutBool(put Put, m *Metric, yes bool) {
	value := 0.0
	if yes {
		value = 1
	}
	put(m, value)
}

// Build says which program this is.
type Build struct{ Version, Revision, Go string }

// Put is a Source.
func (b Build) Put(_ context.Context, put Put) { put(BuildInfo, 1, b.Version, b.Revision, b.Go) }
