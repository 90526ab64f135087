package warmer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
)

// scraped returns the lines with values that a snapshot makes.
func scraped(t *testing.T, s *warm.Snapshot, err error) []string {
	t.Helper()
	text := metrics.Text(t.Context(), metrics.Controller, Metrics(func(context.Context) (*warm.Snapshot, error) { return s, err }))
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// An image has rows by the name that status has for it. No digest and no node is in them, and what is not known is left out.
func TestMetrics(t *testing.T) {
	at := time.Unix(2e9, 0)
	nodes := func(states ...warm.NodeState) (list []warm.NodeStatus) {
		for i, s := range states {
			list = append(list, warm.NodeStatus{Node: fmt.Sprint("gpu", i), State: s})
		}
		return list
	}
	digest := strings.Repeat("0123456789abcdef", 4)
	s := &warm.Snapshot{At: at, Refused: "line 1: unknown key", Images: []warm.ImageStatus{
		{Ref: "docker://r/warm:1", Platform: "linux/amd64", State: warm.ImageWarm, LastWarm: at.Add(-time.Minute), Nodes: nodes(warm.NodeWarm, warm.NodeAway)},
		{Ref: "docker://r/warm:1", Platform: "linux/arm64", State: warm.ImageDegraded, LastWarm: at.Add(-time.Hour), Nodes: nodes(warm.NodeFull, warm.NodeWarm)},
		{Ref: "docker://r/a\"b@sha256:" + digest, State: warm.ImageWarm, Nodes: nodes(warm.NodeWarm)},
		{Ref: "docker://r/half:2@sha256:" + digest, Name: "r/half:two", Platform: "linux/amd64", State: warm.ImageWarm, Nodes: nodes(warm.NodeWarm)},
		{Ref: "docker://r/half:2@sha256:" + digest, Platform: "linux/arm64", State: warm.ImageBlocked, Reason: "there is no image of this platform"},
		{Ref: "/srv/never@home.sif", State: warm.ImageBlocked},
	}}
	got := strings.Join(scraped(t, s, nil), "\n")
	if strings.Contains(got, "gpu") || strings.Contains(got, digest) || len(strings.Split(got, "\n")) != 1+4*len(nodeStates)+2 {
		t.Errorf("names, digests or too many lines in\n%s", got)
	}
	for line := range strings.SplitSeq(`dolly_img_config_valid 0
dolly_img_warm_nodes{image="r/warm:1",state="warm"} 2
dolly_img_warm_nodes{image="r/warm:1",state="away"} 1
dolly_img_warm_nodes{image="r/warm:1",state="full"} 1
dolly_img_warm_nodes{image="r/warm:1",state="missing"} 0
dolly_img_warm_nodes{image="r/a\"b",state="warm"} 1
dolly_img_warm_nodes{image="r/half:two",state="warm"} 1
dolly_img_warm_nodes{image="/srv/never@home.sif",state="unknown"} 0
dolly_img_warm_last_success_timestamp_seconds{image="r/warm:1"} 1999996400
dolly_img_warm_last_success_timestamp_seconds{image="r/a\"b"} 2000000000`, "\n") {
		if !strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
	if lines := scraped(t, nil, errors.New("it has ended")); len(lines) != 0 {
		t.Errorf("without a snapshot: %q", lines)
	}
	for n := range mostSeries + 500 {
		s.Images = append(s.Images, warm.ImageStatus{Ref: fmt.Sprint("docker://r/many:", n), Nodes: nodes(warm.NodeWarm)})
	}
	lines := scraped(t, s, nil)
	if want := `dolly_img_warm_nodes{image="(others)",state="warm"} 504`; len(lines) != 1+(mostSeries+1)*len(nodeStates)+2 || !strings.Contains(strings.Join(lines, "\n"), want) {
		t.Errorf("%d lines, or no %s", len(lines), want)
	}
}
