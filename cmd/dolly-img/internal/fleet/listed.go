package fleet

import (
	"fmt"
	"slices"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// This file joins what nodes say with what the controller of a list of images knows (package cache/warm). What a node holds is always what the
// node itself says.

// Rename gives the nodes of a snapshot the names that nodes have in a Config with this port.
func Rename(s *warm.Snapshot, port int) error {
	known := map[string]string{}
	for i := range s.Images {
		nodes := s.Images[i].Nodes
		for k := range nodes {
			name := nodes[k].Node
			if known[name] == "" {
				names, err := hostlist.Parse([]string{name}, hostlist.Options{Port: port})
				if err != nil || len(names) != 1 {
					return fmt.Errorf("the controller has a node %q, which is no name of one", name)
				}
				known[name] = names[0]
			}
			nodes[k].Node = known[name]
		}
	}
	return nil
}

// ListedNodes returns the nodes of some images of a list, in order.
func ListedNodes(images []*warm.ImageStatus) (names []string) {
	seen := map[string]bool{}
	for _, i := range images {
		for _, n := range i.Nodes {
			if !seen[n.Node] {
				names = append(names, n.Node)
			}
			seen[n.Node] = true
		}
	}
	return names
}

// OfListed sums up what the replies say of an image of a list. It has one element for each reply whose node has the image in the list, and
// for those that others adds.
func OfListed(replies []ring.Reply, l *warm.ImageStatus, others func(node string) bool) Image {
	listed := map[string]*warm.NodeStatus{}
	for k := range l.Nodes {
		listed[l.Nodes[k].Node] = &l.Nodes[k]
	}
	some := slices.DeleteFunc(slices.Clone(replies), func(r ring.Reply) bool { return listed[r.Node] == nil && !others(r.Node) })
	var image Image
	if l.Digest == "" {
		image = ofUnknown(some)
	} else {
		image = Of(some, l.Name, l.Digest)
	}
	image.Listed = l
	for k := range image.Nodes {
		n := &image.Nodes[k]
		n.Listed = listed[n.Node]
		// The controller knows what it wants, and the node says whether the name is still another one's.
		if n.Listed != nil && n.Listed.State == warm.NodeConflict && n.State == Behind && n.Holding.NameOwner != "" {
			n.State = Conflict
		}
	}
	return image
}

// ofUnknown is an image of which nobody knows yet what it is.
func ofUnknown(replies []ring.Reply) Image {
	var image Image
	for _, r := range replies {
		node := Node{Node: r.Node, State: Unknown}
		if r.State != "" {
			node.State = stateOf(r, "", ring.HeldImage{}, "")
		}
		image.Nodes = append(image.Nodes, node)
	}
	return image
}
