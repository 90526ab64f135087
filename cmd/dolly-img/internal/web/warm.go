package web

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// warmTopic is what the page shows of a controller.
type warmTopic struct {
	mu     sync.Mutex
	number uint64
	event  []byte
}

// warmView is what a controller knows, as the page gets it. Times are in seconds since 1970, and 0 where there is none.
type warmView struct {
	Refused      string      `json:"refused"`
	RefusedSince int64       `json:"refusedSince"`
	Trouble      string      `json:"trouble"`
	TroubleSince int64       `json:"troubleSince"`
	Groups       []warmGroup `json:"groups"`
	Images       []warmImage `json:"images"`
}

type warmGroup struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`
	Stale string `json:"stale"`
	Since int64  `json:"since"`
}

type warmImage struct {
	Image    string `json:"image"` // as status calls it
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Warm     int    `json:"warm"`
	Nodes    int    `json:"nodes"`
	Rate     int64  `json:"rate"`
	Left     int64  `json:"left"` // seconds
	Stale    string `json:"stale"`
	Since    int64  `json:"since"`
	Found    int64  `json:"found"`
	Next     int64  `json:"next"`
	LastWarm int64  `json:"last"`
	// Cells has one for each group, and nil for a group that the image is not for.
	Cells []*warmCell `json:"cells"`
	// Rows are the nodes that are not warm, by what they have in common.
	Rows []warmRow `json:"rows"`
}

type warmCell struct {
	Nodes  int            `json:"nodes"`
	States map[string]int `json:"states"`
}

type warmRow struct {
	State  string `json:"state"`
	Why    string `json:"why"`
	Behind string `json:"behind"`
	Nodes  string `json:"nodes"`
	Count  int    `json:"count"`
	Since  int64  `json:"since"` // the first of them
	Next   int64  `json:"next"`  // the first of them
}

// Warm shows what a controller knows. A snapshot that says the same as the last one is not sent again.
func (s *Server) Warm(snap *warm.Snapshot) {
	e := event("warm", viewOf(snap))
	t := s.warm
	t.mu.Lock()
	first, news := t.number == 0, !bytes.Equal(e, t.event)
	if news {
		t.number++
		t.event = e
	}
	t.mu.Unlock()
	if first {
		s.feed.add(t)
	}
	if news {
		s.feed.wake()
	}
}

// ForgetWarm has the next viewer wait for the next snapshot. It is called while nobody looks and none is made: who comes would take an old one for
// what is.
func (s *Server) ForgetWarm() {
	s.warm.mu.Lock()
	defer s.warm.mu.Unlock()
	s.warm.event = nil
}

func (t *warmTopic) events(seen uint64) ([][]byte, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.number == seen || t.event == nil {
		return nil, seen
	}
	return [][]byte{t.event}, t.number
}

// unix is a time in seconds since 1970, and 0 where there is none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// short is the beginning of a digest, which is enough to tell it from others.
func short(digest string) string {
	const digits = 12
	if algorithm, hex, ok := strings.Cut(digest, ":"); ok && len(hex) > digits {
		return algorithm + ":" + hex[:digits]
	}
	return digest
}

func viewOf(s *warm.Snapshot) *warmView {
	v := &warmView{Refused: s.Refused, RefusedSince: unix(s.RefusedSince), Trouble: s.Trouble, TroubleSince: unix(s.TroubleSince), Groups: []warmGroup{}, Images: []warmImage{}}
	for _, g := range s.Groups {
		v.Groups = append(v.Groups, warmGroup{g.Name, g.Nodes, g.Stale, unix(g.Since)})
	}
	for _, i := range s.Images {
		v.Images = append(v.Images, warmImage{
			Image: i.Called(), Platform: i.Platform, Digest: short(i.Digest.String()), State: string(i.State), Reason: i.Reason, Warm: i.Warm, Nodes: len(i.Nodes),
			Rate: i.Rate, Left: int64(i.Left.Seconds()), Stale: i.Stale, Since: unix(i.Since), Found: unix(i.Found), Next: unix(i.Next), LastWarm: unix(i.LastWarm),
			Cells: cells(s.Groups, &i), Rows: warmRows(i.Nodes),
		})
	}
	return v
}

// cells counts the states of the nodes of an image by group.
func cells(groups []warm.GroupStatus, i *warm.ImageStatus) []*warmCell {
	states := make(map[string]warm.NodeState, len(i.Nodes))
	for _, n := range i.Nodes {
		states[n.Node] = n.State
	}
	all := make([]*warmCell, len(groups))
	for k, g := range groups {
		for _, name := range i.Groups {
			if name == g.Name && all[k] == nil {
				all[k] = &warmCell{States: map[string]int{}}
				for _, member := range g.Members {
					if state, ok := states[member]; ok {
						all[k].Nodes++
						all[k].States[string(state)]++
					}
				}
			}
		}
	}
	return all
}

// warmRows are the nodes that are not warm.
func warmRows(nodes []warm.NodeStatus) []warmRow {
	type key struct {
		state       warm.NodeState
		why, behind string
	}
	known := map[key]int{}
	rows, names := []warmRow{}, [][]string{}
	for _, n := range nodes {
		if n.State == warm.NodeWarm {
			continue
		}
		k := key{n.State, n.Reason, short(n.Behind.String())}
		at, ok := known[k]
		if !ok {
			at = len(rows)
			known[k] = at
			rows, names = append(rows, warmRow{State: string(n.State), Why: n.Reason, Behind: k.behind}), append(names, nil)
		}
		r := &rows[at]
		r.Count++
		r.Since, r.Next = earlier(r.Since, unix(n.Since)), earlier(r.Next, unix(n.Next))
		names[at] = append(names[at], n.Node)
	}
	for i := range rows {
		rows[i].Nodes = hostlist.Fold(names[i])
	}
	return rows
}

// earlier is the earlier of two times, of which 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
