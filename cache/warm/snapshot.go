package warm

import (
	"fmt"
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

// A Snapshot is what a controller knows at a moment. Times are of the clock on the wall, and zero where there is none.
type Snapshot struct {
	At time.Time
	// Refused says why the file of the list does not count, since RefusedSince. The last good list stands. "" is none.
	Refused      string
	RefusedSince time.Time
	// Trouble says why the state cannot be kept, since TroubleSince. "" is none.
	Trouble      string
	TroubleSince time.Time
	Groups       []GroupStatus
	Images       []ImageStatus
}

// A GroupStatus is that of a list of nodes.
type GroupStatus struct {
	Name  string
	Nodes int
	// Stale says why the list could not be read again, since Since. "" is none.
	Stale string
	Since time.Time
}

// An ImageStatus is that of an image of one platform. Where nothing was found yet, it has no Platform, Name and Digest.
type ImageStatus struct {
	Ref      string
	Platform string
	Name     string
	Digest   digest.Digest
	State    ImageState
	// Reason says why it is degraded or blocked.
	Reason string
	// Warm of Nodes are warm.
	Warm int
	// Nodes are in the order of the list.
	Nodes []NodeStatus
	// Rate, in bytes per second, and Left are those of the rings that run, together. 0 is not known.
	Rate int64
	Left time.Duration
	// Stale says why the digest could not be asked for, since Since. "" is none.
	Stale string
	Since time.Time
	// Found is when the digest was last asked for with success, Next when it will be asked for again.
	Found, Next time.Time
	// LastWarm is when it last was warm.
	LastWarm time.Time
}

// A NodeStatus is that of a node and an image.
type NodeStatus struct {
	Node  string
	State NodeState
	// Reason says why it is full, failed, in conflict or away.
	Reason string
	// Behind is the digest that the name leads to, if that is another one.
	Behind digest.Digest
	// Since is when it was last away from, Next when a failure is tried again.
	Since, Next time.Time
}

// Snapshot returns what is known now.
func (m *Machine) Snapshot(now Now) *Snapshot {
	m.now = now
	s := &Snapshot{At: now.Wall, Refused: m.refused.why, RefusedSince: m.refused.since, Trouble: m.trouble.why, TroubleSince: m.trouble.since}
	for _, g := range m.list.Groups {
		g := m.groups[g.Name]
		s.Groups = append(s.Groups, GroupStatus{g.Name, len(g.names), g.stale.why, g.stale.since})
	}
	for _, e := range m.entries {
		status := ImageStatus{Ref: e.Ref, State: ImageBlocked, Reason: "not found yet", Found: e.found, Next: m.wall(e.next)}
		if status.Stale = e.stale.why; status.Stale != "" {
			status.Since, status.Reason = e.stale.since, e.stale.why
		}
		if len(e.tags) == 0 {
			s.Images = append(s.Images, status)
		}
		for _, t := range e.tags {
			for _, v := range t.variants {
				s.Images = append(s.Images, m.imageStatus(v, status))
			}
			for _, p := range e.platforms {
				if t.variant(p) == nil {
					missing := status
					missing.Ref, missing.Platform, missing.Reason = t.ref, p, "there is no image of this platform"
					s.Images = append(s.Images, missing)
				}
			}
		}
	}
	return s
}

// imageStatus puts to a status of an entry what is known of a variant.
func (m *Machine) imageStatus(v *variant, s ImageStatus) ImageStatus {
	s.Ref, s.Platform, s.Name, s.Digest, s.LastWarm = v.ref, v.Platform, v.Name, v.Digest, v.warm
	count := map[NodeState]int{}
	can := false
	for _, p := range v.pairs {
		n := m.nodeStatus(p)
		count[n.State]++
		can = can || p.lacking(m.now.Since) || n.State == NodeUnknown
		s.Nodes = append(s.Nodes, n)
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
	case v.left != "":
		s.State, s.Reason = ImageBlocked, v.left
	case len(v.pairs) == 0:
		s.State, s.Reason = ImageBlocked, "no nodes"
	case v.entry.Min.Of(s.Warm, len(v.pairs)):
		s.State = ImageWarm
	case count[NodeWarming] > 0:
		s.State = ImageWarming
	case v.fails > 0:
		s.State, s.Reason = ImageBlocked, v.why
	case can && m.off:
		s.State, s.Reason = ImageBlocked, "outside of the windows"
	case can:
		s.State = ImageWarming
	default:
		for _, state := range []NodeState{NodeFull, NodeFailed, NodeConflict, NodeAway, NodeMissing, NodeBehind} {
			if count[state] > 0 && s.Reason == "" {
				s.Reason = fmt.Sprintf("%d of %d %s", count[state], len(v.pairs), state)
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
		s.State, s.Reason, s.Since, s.Next = NodeAway, p.node.away.why, p.node.away.since, time.Time{}
	case p.conflict != "":
		s.State, s.Reason = NodeConflict, p.conflict
	case p.holds():
		s.State = NodeWarm
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
