package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
)

// People are told again what --wait waits for if it is another image or has another reason, and not whenever a node becomes warm.
func TestPending(t *testing.T) {
	image := func(name string, states ...fleet.State) fleet.Image {
		i := fleet.Image{Name: name}
		for k, state := range states {
			i.Nodes = append(i.Nodes, fleet.Node{Node: fmt.Sprint("n", k), State: state})
		}
		return i
	}
	asks := &statusAsks{wanted: []wanted{{}}}
	pending := func(images ...fleet.Image) (what, text string) { return asks.pending(&status{images: images}, nil) }

	first, text := pending(image("a", fleet.Warm, fleet.Behind, fleet.Away), image("b", fleet.Warm))
	if text != "a: 1 of 3 warm" {
		t.Errorf("got %s", text)
	}
	if what, text := pending(image("a", fleet.Warm, fleet.Warm, fleet.Away)); what != first || text != "a: 2 of 3 warm" {
		t.Errorf("got %s: %s", what, text)
	}
	blocked := image("a", fleet.Missing)
	blocked.Listed = &warm.ImageStatus{State: warm.ImageBlocked, Reason: "404"}
	if what, text := pending(blocked); what == first || text != "a: 0 of 1 warm; blocked: 404" {
		t.Errorf("got %s: %s", what, text)
	}
	var many []fleet.Image
	for k := range mostPending + 2 {
		many = append(many, image(fmt.Sprint("i", k), fleet.Missing))
	}
	if _, text := pending(many...); !strings.HasSuffix(text, "i4: 0 of 1 warm, and 2 more") {
		t.Errorf("got %s", text)
	}
	if _, text := asks.pending(nil, errors.New("it does not answer")); text != "the controller: it does not answer" {
		t.Errorf("got %s", text)
	}
}
