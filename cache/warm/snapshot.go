package warm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// ImageState is that of an image of one platform.
type ImageState string

// States of images.
const (
	ImageWarm     ImageState = "warm"
	ImageWarming  ImageState = "warming"
	ImageDegraded ImageState = "degraded"
	ImageBlocked  ImageState = "blocked"
)

// NodeState is that of a node and an image.
type NodeState string

// States of nodes.
const (
	NodeWarm     NodeState = "warm"
	NodeWarming  NodeState = "warming"
	NodeBehind   NodeState = "behind"
	NodeMissing  NodeState = "missing"
	NodeFull     NodeState = "full"
	NodeFailed   NodeState = "failed"
	NodeConflict NodeState = "conflict"
	NodeAway     NodeState = "away"
	NodeUnknown  NodeState = "unknown"
)

// A Snapshot is what a controller knows at a moment. Times are of the clock on the wall, and zero where there is none. Its form as JSON is
// described in the comment of this package.
type Snapshot struct {
	At time.Time `json:"at"`
	// Refused says why the file of the list does not count, since RefusedSince. The last good list stands. "" is none.
	Refused      string    `json:"refused,omitempty"`
	RefusedSince time.Time `json:"refused_since,omitzero"`
	// Trouble says why the state cannot be kept, since TroubleSince. "" is none.
	Trouble      string        `json:"trouble,omitempty"`
	TroubleSince time.Time     `json:"trouble_since,omitzero"`
	Groups       []GroupStatus `json:"groups"`
	Images       []ImageStatus `json:"images"`
	// Unwished is how many nodes answer and have not confirmed the wishes that they are to have. It is not in the form as JSON.
	Unwished int `json:"-"`
}

// A GroupStatus is that of a list of nodes.
type GroupStatus struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`
	// Stale says why the list could not be read again, since Since. "" is none.
	Stale string    `json:"stale,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Members are the names of the nodes. They are not in the form as JSON.
	Members []string `json:"-"`
}

// An ImageStatus is that of an image of one platform. Where nothing was found yet, it has no Platform, Name and Digest.
type ImageStatus struct {
	Ref      string        `json:"ref"`
	Platform string        `json:"platform,omitempty"`
	Name     string        `json:"name,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"`
	State    ImageState    `json:"state"`
	// Reason says why it is degraded or blocked.
	Reason string `json:"reason,omitempty"`
	// Groups are those whose nodes it is for. They are not in the form as JSON.
	Groups []string `json:"-"`
	// Warm of Nodes are warm.
	Warm int `json:"warm"`
	// Nodes are in the order of the list. Those that cannot have it beside their other images are last.
	Nodes []NodeStatus `json:"nodes"`
	// Rate, in bytes per second, and Left are those of the rings that run, together. 0 is not known.
	Rate int64         `json:"rate,omitempty"`
	Left time.Duration `json:"left_ns,omitempty"`
	// Stale says why the digest could not be asked for, since Since. "" is none.
	Stale string    `json:"stale,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Awaited says that an earlier controller may have found it, and that nodes that have what somebody wants are pushed to only when it is
	// found, or has failed often enough. It is not in the form as JSON.
	Awaited bool `json:"-"`
	// Found is when the digest was last asked for with success, Next when it will be asked for again.
	Found time.Time `json:"found,omitzero"`
	Next  time.Time `json:"next,omitzero"`
	// LastWarm is when it last was warm.
	LastWarm time.Time `json:"last_warm,omitzero"`
}

// Called returns how people are told of the image: its name in the caches or, before that is known, its Ref as a cache would have it.
func (i *ImageStatus) Called() string {
	if i.Name != "" {
		return i.Name
	}
	return strings.TrimPrefix(strings.TrimPrefix(i.Ref, "docker://"), "oras://")
}

// A NodeStatus is that of a node and an image.
type NodeStatus struct {
	Node  string    `json:"node"`
	State NodeState `json:"state"`
	// Reason says why it is full, failed, in conflict or away.
	Reason string `json:"reason,omitempty"`
	// Behind is the digest that the name leads to, if that is another one.
	Behind digest.Digest `json:"behind,omitempty"`
	// Since is when it was last away from, or has not told what it holds, Next when a failure is tried again. A full node that waits for room has no Next.
	Since time.Time `json:"since,omitzero"`
	Next  time.Time `json:"next,omitzero"`
}

// Snapshot returns what is known now.
func (m *Machine) Snapshot(now Now) *Snapshot {
	m.now = now
	s := &Snapshot{
		At: now.Wall, Refused: m.refused.why, RefusedSince: m.refused.since, Trouble: m.trouble.why, TroubleSince: m.trouble.since,
		Groups: []GroupStatus{}, Images: []ImageStatus{},
	}
	for _, n := range m.order {
		if m.unwished(n) {
			s.Unwished++
		}
	}
	for _, g := range m.list.Groups {
		g := m.groups[g.Name]
		s.Groups = append(s.Groups, GroupStatus{g.Name, len(g.names), g.stale.why, g.stale.since, slices.Clone(g.names)})
	}
	for _, e := range m.entries {
		status := ImageStatus{Ref: e.Ref, Groups: e.Image.Nodes, State: ImageBlocked, Reason: "not found yet", Found: e.found, Next: m.wall(max(e.next, m.hosts[registry(e.Ref)]))}
		if status.Stale = e.stale.why; status.Stale != "" {
			status.Since, status.Reason = e.stale.since, e.stale.why
			status.Awaited = m.doubts(e)
		}
		if len(e.tags) == 0 {
			unfound := status
			unfound.Nodes = m.unfound(e, func(string) bool { return true })
			s.Images = append(s.Images, unfound)
		}
		for _, t := range e.tags {
			status := status
			if t.stale.why != "" && status.Stale == "" {
				status.Stale, status.Since = t.stale.why, t.stale.since
			}
			for _, v := range t.variants {
				s.Images = append(s.Images, m.imageStatus(v, status))
			}
			for _, p := range e.platforms {
				if t.variant(p) == nil {
					missing := status
					missing.Ref, missing.Platform, missing.Reason = t.ref, p, "there is no image of this platform"
					if len(t.variants) == 0 && t.stale.why != "" {
						missing.Reason = t.stale.why
					}
					missing.Nodes = m.unfound(e, func(platform string) bool { return platform == p })
					s.Images = append(s.Images, missing)
				}
			}
		}
	}
	return s
}

// outside says until when the windows are closed. It is worked out again when that has come.
func (m *Machine) outside() string {
	if !m.opens.After(m.now.Wall) {
		m.opens = m.list.Opens(m.now.Wall)
	}
	return m.opens.Format("outside of the windows until Mon 15:04")
}

// unfound returns the nodes of an entry that have one of some platforms, where it is not known what they are to hold.
func (m *Machine) unfound(e *entry, of func(platform string) bool) []NodeStatus {
	list, seen := []NodeStatus{}, map[string]bool{}
	for _, g := range e.Nodes {
		for _, name := range m.groups[g].names {
			if !seen[name] && of(m.groups[g].Platform) {
				s := NodeStatus{Node: name, State: NodeUnknown}
				if n := m.nodes[name]; n.away.why != "" {
					s.State, s.Reason, s.Since = n.unheard(), n.away.why, n.away.since
				}
				list = append(list, s)
			}
			seen[name] = true // It has the platform of its first group.
		}
	}
	return list
}

// imageStatus puts to a status of an entry what is known of a variant.
func (m *Machine) imageStatus(v *variant, s ImageStatus) ImageStatus {
	s.Ref, s.Platform, s.Name, s.Digest, s.LastWarm = v.ref, v.Platform, v.Name, v.Digest, v.warm
	count := map[NodeState]int{}
	can := false
	s.Nodes = make([]NodeStatus, 0, len(v.pairs)+len(v.left))
	for _, p := range v.pairs {
		n := m.nodeStatus(p)
		count[n.State]++
		can = can || p.lacking(m.now.Since) || n.State == NodeUnknown
		s.Nodes = append(s.Nodes, n)
	}
	for _, l := range v.left {
		count[NodeFailed]++
		s.Nodes = append(s.Nodes, NodeStatus{Node: l.name, State: NodeFailed, Reason: l.why})
	}
	for _, p := range m.pushes {
		if p.variant == v {
			s.Rate += p.rate
			s.Left = max(s.Left, p.left)
		}
	}
	s.Warm = count[NodeWarm]
	s.State, s.Reason = ImageDegraded, ""
	switch {
	case len(s.Nodes) == 0:
		s.State, s.Reason = ImageBlocked, "no nodes"
	case len(v.pairs) == 0:
		s.State, s.Reason = ImageBlocked, v.left[0].name+" "+v.left[0].why
	case v.enough(s.Warm):
		s.State = ImageWarm
	case count[NodeWarming] > 0:
		s.State = ImageWarming
	case v.fails > 0:
		s.State, s.Reason = ImageBlocked, v.why
	case can && m.off:
		s.State, s.Reason = ImageBlocked, m.outside()
	case can:
		s.State = ImageWarming
	default:
		for _, state := range []NodeState{NodeFull, NodeFailed, NodeConflict, NodeAway, NodeMissing, NodeBehind} {
			if count[state] > 0 && s.Reason == "" {
				s.Reason = fmt.Sprintf("%d of %d %s", count[state], len(s.Nodes), state)
			} else if count[state] > 0 {
				s.Reason += fmt.Sprintf(", %d %s", count[state], state)
			}
		}
	}
	return s
}

func (m *Machine) nodeStatus(p *pair) NodeStatus {
	s := NodeStatus{Node: p.node.name}
	if p.named != "" && p.named != p.v.Digest {
		s.Behind = p.named
	}
	if p.fails > 0 {
		s.Reason, s.Next = p.why, m.wall(p.next)
	}
	switch {
	case p.push != nil:
		s.State = NodeWarming
	case p.node.away.why != "":
		s.State, s.Reason, s.Since, s.Next = p.node.unheard(), p.node.away.why, p.node.away.since, time.Time{}
	case p.conflict != "":
		s.State, s.Reason, s.Next = NodeConflict, p.conflict, time.Time{} // It is tried when an answer says that the name is free.
	case p.holds():
		s.State = NodeWarm
	case p.fails > 0 && p.outcome == Conflict: // since the last answer
		s.State = NodeConflict
	case !p.fits():
		s.State, s.Next = NodeFull, time.Time{} // It is tried when it says that it has more room.
		if p.fails == 0 || p.outcome != Full {
			s.Reason = p.short()
		}
	case p.fails > 0 && p.outcome == Full:
		s.State = NodeFull
	case p.fails > 0:
		s.State = NodeFailed
	case s.Behind != "":
		s.State = NodeBehind
	case p.asked != p.v.Digest:
		s.State = NodeUnknown
	default:
		s.State = NodeMissing
	}
	return s
}
