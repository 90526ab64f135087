package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// mostPending is how many images a line of --wait names.
const mostPending = 5

// pending says for people what --wait waits for, and what changes only when they should be told again: numbers of nodes do so all the time.
func (a *statusAsks) pending(s *status, err error) (what, text string) {
	if err != nil {
		return err.Error(), "the controller: " + err.Error()
	}
	wanted := len(a.wanted) > 0 || s.own
	var whats, texts []string
	for _, i := range s.images {
		all, ready := 0, 0
		for _, n := range i.Nodes {
			if due(n, wanted) {
				all++
			}
			if due(n, wanted) && good(n, wanted) {
				ready++
			}
		}
		if ready == all && len(i.Nodes) > 0 {
			continue
		}
		name := s.imageText(i)
		if i.Name == "" && i.Listed == nil {
			name = shortDigest(i.Digest)
		}
		what, text := name, fmt.Sprintf("%s: %d of %d warm", name, ready, all)
		if l := i.Listed; l != nil && l.State == warm.ImageBlocked {
			what += "; blocked: " + l.Reason
			text += "; blocked: " + l.Reason
		}
		whats, texts = append(whats, what), append(texts, text)
	}
	for _, r := range s.replies {
		if r.State != "" && len(s.images) == 0 {
			whats, texts = append(whats, r.Node), append(texts, r.Node+", which does not tell what it has")
		}
	}
	for _, g := range s.unread() {
		whats, texts = append(whats, g.Name), append(texts, "the list of nodes."+g.Name)
	}
	if more := len(texts) - mostPending; more > 0 {
		texts = append(slices.Clone(texts[:mostPending]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(whats, "\n"), strings.Join(texts, ", and ")
}
