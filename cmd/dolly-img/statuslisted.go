package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// statusAsks is what status asks, and of whom. A controller is asked each time, because its list, and the digests of it, move.
type statusAsks struct {
	socket string
	config fleet.Config
	wanted []wanted
	// nodes are those that the command line names. There are none if it leaves them to the controller, and then listed makes them.
	nodes []string
	// one is the --node of the command line, as it stands there, or "".
	one    string
	listed func(names []string) ([]string, error)
}

// asks reads the command line.
func (f *statusFlags) asks(cmd *cobra.Command, args []string) (*statusAsks, error) {
	flags := f.fleet
	if f.node != "" {
		flags.nodes = []string{f.node}
	}
	a := &statusAsks{socket: f.socket, one: f.node}
	var err error
	if len(flags.nodes) > 0 {
		if a.config, err = flags.config(cmd); err == nil {
			a.nodes = a.config.Nodes
		}
	} else {
		a.listed = func(names []string) ([]string, error) { return flags.parse(cmd, names) }
		a.config, err = flags.base()
	}
	if err == nil && f.node != "" && len(a.nodes) != 1 {
		err = usagef("--node %s: want one node", f.node)
	}
	if err == nil {
		a.wanted, err = wants(args)
	}
	return a, err
}

// A controllerError says why the controller does not say which nodes there are. It may, later.
type controllerError struct{ error }

func (e *controllerError) Unwrap() error { return e.error }

// once asks the controller, and then the nodes.
func (a *statusAsks) once(ctx context.Context) (*status, error) {
	s := &status{socket: a.socket, own: a.nodes == nil}
	if a.socket != "" {
		if s.list, s.silentWhy = warmer.FetchSnapshot(ctx, a.socket); s.silentWhy == nil {
			if s.silentWhy = fleet.Rename(s.list, a.config.Port); s.silentWhy != nil {
				s.list = nil
			}
		}
	}
	c := a.config
	if c.Nodes = a.nodes; a.one != "" && s.list != nil {
		c.Nodes = []string{listedAs(a.one, a.nodes[0], s.list)}
	}
	if s.own {
		if s.list == nil {
			return nil, a.unlisted(s.silentWhy)
		}
		var err error
		names := fleet.ListedNodes(s.wantedOfList(a.wanted))
		if len(names) == 0 {
			return nil, &controllerError{fmt.Errorf("the controller at %s has no nodes in its list", a.socket)}
		}
		if c.Nodes, err = a.listed(names); err != nil {
			return nil, err
		}
	}
	var err error
	s.replies, err = fleet.Ask(ctx, c, s.question(a.wanted))
	if err != nil && c.Keys == "" && fleet.NoKey(err) && s.list != nil && (s.own || a.one != "") {
		s.unasked, s.replies = err, fleet.Unanswered(c.Nodes)
	} else if err != nil {
		return nil, err
	}
	s.sum(a.wanted)
	if s.unasked != nil && !s.onlyListed() { // a controller knows nothing of what is beside its list
		return nil, err
	}
	return s, nil
}

// listedAs returns the name of the node in the list that is meant by a name as it was typed: that itself, else the only one that has it as its
// host or as the first part of that. If there is none, it is the name of a node beside the list.
func listedAs(typed, name string, list *warm.Snapshot) string {
	var found []string
	for k := range list.Images {
		for _, n := range list.Images[k].Nodes {
			host, _, err := hostlist.SplitPort(n.Node, 1)
			short, _, _ := strings.Cut(host, ".")
			switch {
			case n.Node == name:
				return name
			case err == nil && (host == typed || short == typed) && !slices.Contains(found, n.Node):
				found = append(found, n.Node)
			}
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return name
}

// unlisted is the error if neither the command line nor a controller says which nodes there are.
func (a *statusAsks) unlisted(why error) error {
	hint := "name them with --nodes node[01-16] or --nodes @FILE"
	switch {
	case why == nil:
		return &usageError{errors.New("no nodes"), hint}
	case errors.Is(why, fs.ErrNotExist):
		hint = "systemctl status dolly-img-warm shows whether a controller runs here, and --socket PATH names the socket of one whose list says another; without a controller, " + hint
		return &controllerError{&usageError{fmt.Errorf("no nodes, and %w", why), hint}}
	}
	if first := hintOf(why); first != "" {
		hint = first + "; without it, " + hint
	}
	return &controllerError{hintf(hint, "no nodes, and %w", why)}
}

// wantedOfList returns the images of the list that are shown. Where an IMAGE is not in the list, these are all, since it may be on any node.
func (s *status) wantedOfList(list []wanted) (images []*warm.ImageStatus) {
	all := len(list) == 0
	for _, w := range list {
		listed := s.unfound(w)
		for _, name := range s.meant(w, s.listedNames()) {
			listed = append(listed, s.variants(name)...)
		}
		all = all || len(listed) == 0
		images = append(images, listed...)
	}
	if all {
		images = nil
		for k := range s.list.Images {
			images = append(images, &s.list.Images[k])
		}
	}
	return images
}

// meant returns those of some names that w means. A ref of the list means the names that it has in the caches.
func (s *status) meant(w wanted, names []string) (found []string) {
	for k := 0; s.list != nil && k < len(s.list.Images); k++ {
		if i := &s.list.Images[k]; i.Name != "" && i.Ref == w.arg && slices.Contains(names, i.Name) && !slices.Contains(found, i.Name) {
			found = append(found, i.Name)
		}
	}
	if len(found) > 0 {
		return found
	}
	return w.meant(names)
}

// unfound returns the images of the list that w means, and of which nobody knows yet what they are.
func (s *status) unfound(w wanted) (images []*warm.ImageStatus) {
	for k := 0; s.list != nil && k < len(s.list.Images); k++ {
		i := &s.list.Images[k]
		if i.Digest == "" && (i.Ref == w.arg || slices.Contains(w.names, i.Called()) || len(w.meant([]string{i.Called()})) > 0) {
			images = append(images, i)
		}
	}
	return images
}

// listedNames returns the names that are in the list.
func (s *status) listedNames() (names []string) {
	if s.list == nil {
		return nil
	}
	for _, i := range s.list.Images {
		if i.Name != "" && !slices.Contains(names, i.Name) {
			names = append(names, i.Name)
		}
	}
	return names
}

// variants returns the images that a name has in the list, one for each platform.
func (s *status) variants(name string) (images []*warm.ImageStatus) {
	if s.list == nil {
		return nil
	}
	for k := range s.list.Images {
		if i := &s.list.Images[k]; i.Name == name {
			images = append(images, i)
		}
	}
	return images
}

// question returns what nodes have to be asked: what the command line wants, and what that is in the list.
func (s *status) question(list []wanted) ring.Question {
	q := question(list)
	if s.list == nil || len(list) == 0 && !s.own {
		return q
	}
	q.All = q.All && len(list) > 0
	for _, i := range s.wantedOfList(list) {
		asked := ring.Image{Name: i.Name, Digest: i.Digest}
		if i.Digest != "" && !slices.Contains(q.Images, asked) {
			q.Images = append(q.Images, asked)
		}
	}
	return q
}

// sum sums up the replies, for the images that are wanted, or else for all in the list or, where nodes were named, also for all that they name.
func (s *status) sum(list []wanted) {
	names := append(fleet.Names(s.replies), s.listedNames()...)
	slices.Sort(names)
	names = slices.Compact(names)
	for _, w := range list {
		found, unfound := s.meant(w, names), s.unfound(w)
		switch {
		case w.ref == "":
			s.images = append(s.images, fleet.Of(s.replies, "", w.digest))
		case len(found)+len(unfound) == 0:
			found = []string{w.unmet()}
		}
		s.images = append(s.images, s.ofList(unfound, len(found) == 0)...)
		for _, name := range found {
			s.images = append(s.images, s.rows(name, w.digest)...)
		}
	}
	if len(list) == 0 && !s.own {
		for _, name := range names {
			s.images = append(s.images, s.rows(name, "")...)
		}
	}
	for k := 0; s.list != nil && len(list) == 0 && k < len(s.list.Images); k++ {
		if i := &s.list.Images[k]; s.own || i.Digest == "" {
			s.images = append(s.images, s.ofList([]*warm.ImageStatus{i}, false)...)
		}
	}
	s.images = slices.DeleteFunc(s.images, s.elsewhere)
	s.exit = s.exitStatus(len(list) > 0 || s.own)
}

// rows returns what a name is, with this digest or any: one image for each platform that the list has it for, else one.
func (s *status) rows(name string, digest digest.Digest) (images []fleet.Image) {
	variants := slices.DeleteFunc(s.variants(name), func(i *warm.ImageStatus) bool { return digest != "" && i.Digest != digest })
	if len(variants) == 0 {
		return []fleet.Image{fleet.Of(s.replies, name, digest)}
	}
	return s.ofList(variants, true)
}

// ofList returns what some images of the list are on the nodes that have them there. If others is true, the first one is shown also of nodes that the
// command line names and that have none of them there.
func (s *status) ofList(list []*warm.ImageStatus, others bool) (images []fleet.Image) {
	listed := map[string]bool{}
	for _, node := range fleet.ListedNodes(list) {
		listed[node] = true
	}
	for k, i := range list {
		images = append(images, fleet.OfListed(s.replies, i, func(node string) bool { return k == 0 && others && !s.own && !listed[node] }))
	}
	return images
}

// elsewhere reports whether an image is on none of the nodes because the list has it for other ones. One that the list has for no node is shown, as
// nobody can have it.
func (s *status) elsewhere(i fleet.Image) bool {
	return len(i.Nodes) == 0 && !(s.own && i.Listed != nil && len(i.Listed.Nodes) == 0)
}

// unread returns the groups of the list whose nodes nobody knows, if those are asked for.
func (s *status) unread() (groups []warm.GroupStatus) {
	for k := 0; s.own && s.list != nil && k < len(s.list.Groups); k++ {
		if g := s.list.Groups[k]; g.Nodes == 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// onlyListed leaves out what is beside the list, and reports whether that is nothing that was asked for.
func (s *status) onlyListed() bool {
	for k := range s.images {
		i := &s.images[k]
		if i.Listed == nil {
			return false
		}
		i.Nodes = slices.DeleteFunc(i.Nodes, func(n fleet.Node) bool { return n.Listed == nil })
	}
	s.images = slices.DeleteFunc(s.images, s.elsewhere)
	s.exit = s.exitStatus(true)
	return len(s.images) > 0
}

// good reports whether an image is on a node as it should be: warm or, if nobody has it in a list and wanted is false, complete.
func good(n fleet.Node, wanted bool) bool {
	switch {
	case n.State == fleet.Unasked:
		return n.Listed != nil && n.Listed.State == warm.NodeWarm
	case wanted || n.Listed != nil:
		return n.State == fleet.Warm
	}
	return n.Holding.State == ring.HoldsAll
}

// due reports whether anybody says that an image should be on a node: who asks, a controller, or the name that the node has for it.
func due(n fleet.Node, wanted bool) bool {
	return wanted || n.Listed != nil || n.State != fleet.Missing
}

// exitStatus returns the exit status: whether all images are on all nodes as they should be, or some image on some node, or none on any.
func (s *status) exitStatus(wanted bool) int {
	r, counted := &ring.Report{}, map[string]bool{}
	for _, i := range s.images {
		for _, n := range i.Nodes {
			row := ring.Row{Node: n.Node, State: ring.Failed}
			switch {
			case !due(n, wanted):
				continue
			case good(n, wanted):
				row.State = ring.Held
			case n.State == fleet.Refused:
				row.State = ring.Refused
			}
			counted[n.Node] = true
			r.Nodes = append(r.Nodes, row)
		}
		if len(i.Nodes) == 0 {
			r.Nodes = append(r.Nodes, ring.Row{State: ring.Failed})
		}
	}
	for range s.unread() {
		r.Nodes = append(r.Nodes, ring.Row{State: ring.Failed})
	}
	missing := ring.Held // on a node that nobody wants anything of
	if wanted {
		missing = ring.Failed
	}
	for _, reply := range s.replies {
		if !counted[reply.Node] {
			r.Nodes = append(r.Nodes, ring.Row{Node: reply.Node, State: cmp.Or(reply.State, missing)})
		}
	}
	return r.Status(nil, 0)
}
