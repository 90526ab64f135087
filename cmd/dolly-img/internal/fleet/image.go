package fleet

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

// State is what an image is on a node.
type State string

// These are the states of an image on a node.
const (
	Warm     State = "warm"     // the node has every blob of the digest, and the name leads to it
	Behind   State = "behind"   // the name leads to another digest there
	Conflict State = "conflict" // and it is of a warmer that does not want the digest there, while another one does
	Partly   State = "partly"   // the name leads to the digest, and blobs are missing
	Unnamed  State = "unnamed"  // the node has every blob of the digest, and the name leads to nothing
	Missing  State = "missing"  // the name leads to nothing
	Away     State = "away"     // the node does not answer
	Refused  State = "refused"  // the node refuses to tell
	Failed   State = "failed"   // the node answers, and cannot tell
	Unsaid   State = "unsaid"   // the node has more images than it can list at once, and this is none of those that it lists
	Unknown  State = "unknown"  // nobody knows yet what should be there
	Unasked  State = "unasked"  // the node was not asked, and a controller may know
)

// Image is an image, and what it is on each node.
type Image struct {
	// Name is "" if only a digest was asked for.
	Name string
	// Digest is the one that was asked for, else the one to which the name leads on most nodes. It is "" if the name leads
	// to nothing anywhere.
	Digest digest.Digest
	Nodes  []Node
	// Listed is what a controller knows of the image, or nil.
	Listed *warm.ImageStatus
}

// Node is what an image is on one node.
type Node struct {
	Node  string
	State State
	// Holding is what the node says. It is zero if the node says nothing of the image.
	Holding ring.HeldImage
	// Listed is what a controller knows of the image on this node, or nil.
	Listed *warm.NodeStatus
}

// Warm returns how many nodes are warm.
func (i Image) Warm() int {
	n := 0
	for _, node := range i.Nodes {
		if node.State == Warm {
			n++
		}
	}
	return n
}

// Of sums up what the replies say of an image. If want is "", its digest is the one to which the name leads on most nodes, and
// of two with as many nodes the first one of the alphabet.
func Of(replies []ring.Reply, name string, want digest.Digest) Image {
	if want == "" {
		want = commonest(replies, name)
	}
	image := Image{Name: name, Digest: want}
	for _, r := range replies {
		node := Node{Node: r.Node}
		for k := range r.Images { // the nodes may have been asked about several digests of the name
			h := &r.Images[k]
			if exact := h.Digest == want; h.Name == name && (exact || name != "" && node.Holding.Name == "") {
				node.Holding = *h
				if exact {
					break
				}
			}
		}
		node.State = stateOf(r, name, node.Holding, want)
		image.Nodes = append(image.Nodes, node)
	}
	image.disputes()
	return image
}

// disputes finds the nodes where the name cannot lead to the digest because it is of a warmer that wants another one. It is enough to know
// which warmers want the digest: those that say so to a node, and those whose name leads to it.
func (i *Image) disputes() {
	wanted := map[string]bool{}
	for _, n := range i.Nodes {
		if h := n.Holding; h.Digest == i.Digest {
			for _, owner := range h.Owners {
				wanted[owner] = true
			}
			if h.Named == i.Digest && h.NameOwner != "" {
				wanted[h.NameOwner] = true
			}
		}
	}
	delete(wanted, ring.OwnerLocal)
	for k := range i.Nodes {
		n := &i.Nodes[k]
		if n.State == Behind && n.Holding.NameOwner != "" && len(wanted) > 0 && !wanted[n.Holding.NameOwner] {
			n.State = Conflict
		}
	}
}

func stateOf(r ring.Reply, name string, h ring.HeldImage, want digest.Digest) State {
	switch r.State {
	case "":
	case ring.Unreachable:
		return Away
	case ring.Refused:
		return Refused
	case NotAsked:
		return Unasked
	default:
		return Failed
	}
	has := h.Digest == want && want != ""
	switch {
	case h.Named != "" && h.Named != want:
		return Behind
	case has && h.State == ring.HoldsAll && (h.Named == want || name == ""):
		return Warm
	case has && h.State == ring.HoldsAll:
		return Unnamed
	case has && (h.Named == want || h.State == ring.HoldsPart):
		return Partly
	case h.Name == "" && h.Digest == "" && r.More > 0:
		return Unsaid
	}
	return Missing
}

// commonest returns the digest to which a name leads on most nodes.
func commonest(replies []ring.Reply, name string) digest.Digest {
	count := map[digest.Digest]int{}
	for _, r := range replies {
		for _, h := range r.Images {
			if name != "" && h.Name == name && h.Named != "" {
				count[h.Named]++
				break
			}
		}
	}
	list := slices.Collect(maps.Keys(count))
	if len(list) == 0 {
		return ""
	}
	return slices.MinFunc(list, func(a, b digest.Digest) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
}

// Names returns all names that nodes have, in order.
func Names(replies []ring.Reply) []string {
	seen := map[string]bool{}
	for _, r := range replies {
		for _, h := range r.Images {
			if h.Name != "" && h.Named != "" {
				seen[h.Name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// OwnedBy says whose a name is that somebody else wants to lead to another digest.
func OwnedBy(warmer string) string { return "the name is of the warmer " + warmer }
