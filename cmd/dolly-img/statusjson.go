package main

import (
	"cmp"
	"encoding/json"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/ring"
)

// statusController, statusNode and statusImage are the lines of --json. What has no value is there and empty, but times of a controller.

// statusController is what the controller says of itself.
type statusController struct {
	Controller string `json:"controller"` // its socket
	Reason     string `json:"reason"`     // why it says nothing, or ""
	*statusControllerSays
}

type statusControllerSays struct {
	At           time.Time          `json:"at"`
	Refused      string             `json:"refused"`
	RefusedSince time.Time          `json:"refused_since,omitzero"`
	Trouble      string             `json:"trouble"`
	TroubleSince time.Time          `json:"trouble_since,omitzero"`
	Groups       []warm.GroupStatus `json:"groups"`
}

type statusNode struct {
	Node     string     `json:"node"`
	State    ring.State `json:"state"` // "answered", or that of a row of push
	Fault    ring.Fault `json:"fault"`
	Reason   string     `json:"reason"`
	Software string     `json:"software"`
	Platform string     `json:"platform"`
	Free     int64      `json:"free"`
	Max      int64      `json:"max"`
	Reserve  int64      `json:"reserve"`
	Wanted   int64      `json:"wanted"`
	More     int        `json:"more"`
}

type statusImage struct {
	Image  string          `json:"image"`
	Digest digest.Digest   `json:"digest"`
	Warm   int             `json:"warm"`
	Nodes  []statusOnANode `json:"nodes"`
	// Listed is what the controller says of the image. It has no nodes.
	Listed *statusListed `json:"listed,omitempty"`
}

type statusListed struct {
	Ref      string          `json:"ref"`
	Platform string          `json:"platform"`
	State    warm.ImageState `json:"state"`
	Reason   string          `json:"reason"`
	Rate     int64           `json:"rate"` // bytes per second
	Left     float64         `json:"left"` // seconds
	Warm     int             `json:"warm"` // nodes that it takes to be
	Stale    string          `json:"stale"`
	Since    time.Time       `json:"since,omitzero"` // stale since
	Found    time.Time       `json:"found,omitzero"`
	Next     time.Time       `json:"next,omitzero"`
	LastWarm time.Time       `json:"last_warm,omitzero"`
}

type statusOnANode struct {
	Node  string        `json:"node"`
	State fleet.State   `json:"state"`
	Named digest.Digest `json:"named"`
	// NameOwner is the warmer whose name it is.
	NameOwner string   `json:"name_owner"`
	Bytes     int64    `json:"bytes"`
	Lacks     int64    `json:"lacks"`
	Owners    []string `json:"owners"`
	Reason    string   `json:"reason"`
	// Listed is what the controller says of the image on the node. State is what the node says.
	Listed *statusOnListed `json:"listed,omitempty"`
}

type statusOnListed struct {
	State  warm.NodeState `json:"state"`
	Reason string         `json:"reason"`
	Since  time.Time      `json:"since,omitzero"` // away since
	Next   time.Time      `json:"next,omitzero"`  // next try
}

// controller returns the line of the controller.
func (s *status) controller() statusController {
	c := statusController{Controller: s.socket}
	if s.silentWhy != nil {
		c.Reason = s.silentWhy.Error()
	}
	if l := s.list; l != nil {
		c.statusControllerSays = &statusControllerSays{l.At, l.Refused, l.RefusedSince, l.Trouble, l.TroubleSince, l.Groups}
	}
	return c
}

// printJSON prints an object for the controller, one for each node, then one for each image, and at last the exit status.
func (s *status) printJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	if s.socket != "" {
		if err := enc.Encode(s.controller()); err != nil {
			return err
		}
	}
	for _, r := range s.replies {
		reason := r.Cause.String()
		if r.State == fleet.NotAsked {
			reason = s.unasked.Error()
		}
		err := enc.Encode(statusNode{
			r.Node, cmp.Or(r.State, "answered"), r.Cause.Fault, reason, r.Software, r.Platform,
			r.Free, r.Max, r.Reserve, r.Wanted, r.More,
		})
		if err != nil {
			return err
		}
	}
	for _, image := range s.images {
		line := statusImage{Image: image.Name, Digest: image.Digest, Warm: image.Warm(), Nodes: []statusOnANode{}}
		if l := image.Listed; l != nil {
			line.Listed = &statusListed{l.Ref, l.Platform, l.State, l.Reason, l.Rate, l.Left.Seconds(), l.Warm, l.Stale, l.Since, l.Found, l.Next, l.LastWarm}
		}
		for _, n := range image.Nodes {
			h := n.Holding
			on := statusOnANode{n.Node, n.State, h.Named, h.NameOwner, h.Bytes, h.Lacks, append([]string{}, h.Owners...), h.Why, nil}
			if l := n.Listed; l != nil {
				on.Listed = &statusOnListed{l.State, l.Reason, l.Since, l.Next}
			}
			line.Nodes = append(line.Nodes, on)
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return enc.Encode(struct {
		Exit int `json:"exit"`
	}{s.exit})
}
