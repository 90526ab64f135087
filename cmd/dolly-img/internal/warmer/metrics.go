package warmer

import (
	"context"
	"regexp"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
)

// mostSeries is how many images have metrics of their own. Patterns of tags may match any number. The others have rows together.
const (
	mostSeries = 1000
	others     = "(others)"
)

var nodeStates = []warm.NodeState{
	warm.NodeWarm, warm.NodeWarming, warm.NodeBehind, warm.NodeMissing, warm.NodeFull, warm.NodeFailed, warm.NodeConflict, warm.NodeAway, warm.NodeUnknown,
}

// digestPart is what a reference with a digest ends with.
var digestPart = regexp.MustCompile(`@[a-z0-9+._-]+:[0-9a-fA-F]{32,}$`)

// PutCertificate is a metrics.Source: when the key of the controller ends, as it is on disk now.
func (e *Effects) PutCertificate(_ context.Context, put metrics.Put) {
	id, err := e.identity()
	if err != nil {
		return // It is in the log at each use.
	}
	own, authority := id.Until()
	metrics.PutTime(put, metrics.CertificateExpiry, own, "own")
	metrics.PutTime(put, metrics.CertificateExpiry, authority, "authority")
}

// measured is what metrics say of the images with one name.
type measured struct {
	nodes map[warm.NodeState]int
	// last is when all of them were last warm. It is zero if one never was.
	last time.Time
}

// Metrics returns a source of what snapshots have.
func Metrics(snapshot func(context.Context) (*warm.Snapshot, error)) metrics.Source {
	return func(ctx context.Context, put metrics.Put) {
		s, err := snapshot(ctx)
		if err != nil {
			return // The controller has ended, or is so busy that nothing is known in time.
		}
		metrics.PutBool(put, metrics.ConfigValid, s.Refused == "")
		images, order := byName(s)
		for _, name := range order {
			i := images[name]
			for _, state := range nodeStates {
				put(metrics.WarmNodes, float64(i.nodes[state]), name, string(state))
			}
			metrics.PutTime(put, metrics.WarmLastSuccess, i.last, name)
		}
	}
}

// byName adds up the images of a snapshot that have one name, in the order of the list.
func byName(s *warm.Snapshot) (images map[string]*measured, order []string) {
	images = map[string]*measured{}
	called := map[string]string{} // by Ref, as there may be no image of some of the platforms
	for _, status := range s.Images {
		if status.Name != "" || called[status.Ref] == "" {
			called[status.Ref] = status.Called()
		}
	}
	for _, status := range s.Images {
		name := digestPart.ReplaceAllString(called[status.Ref], "")
		if images[name] == nil && len(images) >= mostSeries {
			name = others
		}
		last := status.LastWarm
		if status.State == warm.ImageWarm {
			last = s.At
		}
		i := images[name]
		if i == nil {
			i = &measured{map[warm.NodeState]int{}, last}
			images[name], order = i, append(order, name)
		}
		if last.Before(i.last) {
			i.last = last
		}
		for _, n := range status.Nodes {
			i.nodes[n.State]++
		}
	}
	return images, order
}
