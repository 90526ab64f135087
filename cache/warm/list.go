package warm

import (
	"path"
	"strings"
	"time"
)

// A List says what is to be warm where. Its file is TOML 1.0 (https://toml.io/en/v1.0.0), and a key that is not in this
// example is an error:
//
//	[defaults]
//	every    = "10m"                 # how often a tag is asked for
//	windows  = ["Mon-Fri 20:00-06:00", "Sat-Sun"] # when rings run at their full rate; none is always
//	zone     = "Europe/Zurich"       # of the windows; the local one without it
//	outside  = "100M"                # bytes per second outside of the windows, or "off", or "full"
//	rings    = 2                     # at once
//	retry    = "1m..1h"              # after a failure, doubled between the two
//	catch-up = "60s"                 # how often nodes are asked; newcomers of so long share a ring
//	keys     = "/etc/dolly-img/warmer"
//	state    = "/var/lib/dolly-img/warm"
//	socket   = "/run/dolly-img/warm.sock"
//
//	[nodes.gpu]                      # a group
//	list     = "gpu[001-128]"        # or file = "…", or command = "sinfo -hN -o %N -p gpu"
//	platform = "linux/amd64"
//
//	[[image]]
//	ref      = "docker://registry.example/ml/torch:25.10"
//	tags     = "25.*"                # instead of a tag in ref: all that match (path.Match)
//	nodes    = ["gpu"]
//	pin      = true                  # wanted whatever room others need
//	keep     = 2                     # digests of a name that stay wanted
//	min      = "98%"                 # of the nodes, from which on the image counts as warm
//	name     = "torch"               # in the caches, instead of ref's own
//	rate     = "500M"                # bytes per second
//	priority = 10                    # the higher goes first
//	authfile = "/etc/dolly-img/auth.json"
//
// Only ref and nodes are needed. No two entries may have one name in the caches.
type List struct {
	// Every is how often a tag is asked for, at least leastEvery.
	Every time.Duration
	// Windows are when rings run at their full rate. Without any they always do.
	Windows []Window
	// Zone is the zone of the windows.
	Zone *time.Location
	// Outside is what rings do outside of the windows.
	Outside Outside
	// Rings is how many run at once.
	Rings int
	// Retry is when failures are tried again.
	Retry Retry
	// CatchUp is how often nodes are asked.
	CatchUp time.Duration
	// Keys is the directory of the keys, State that of the file of the state, Socket a path. Each is "" where the list
	// does not say.
	Keys, State, Socket string
	// Groups are in the order of their names.
	Groups []Group
	// Images are in the order of the list.
	Images []Image
}

// Outside is what rings do outside of the windows.
type Outside struct {
	// Off says that no ring runs. Otherwise Rate bounds each one, in bytes per second; 0 is no bound.
	Off  bool
	Rate int64
}

// Retry says when a failure is tried again: after Least, then after twice as long each time, up to Most.
type Retry struct{ Least, Most time.Duration }

// After returns how long to wait after so many failures in a row, from 1.
func (r Retry) After(failures int) time.Duration {
	wait := r.Least
	for ; failures > 1 && wait < r.Most; failures-- {
		wait *= 2
	}
	return min(wait, r.Most)
}

// A Group is a list of nodes. One of Names, File and Command says which.
type Group struct {
	Name string
	// Names are the nodes as hostlist.Parse returns them.
	Names []string
	// File has the nodes, as the argument @FILE has them. It is read in each round.
	File string
	// Command prints the same. A shell runs it in each round.
	Command string
	// Platform is that of the nodes, as in "linux/amd64". "" is that of the controller.
	Platform string
}

// An Image is one entry of a list. With Tags it stands for several.
type Image struct {
	Ref string
	// Tags is a pattern (path.Match) of the tags of Ref, which then has none. "" is Ref alone.
	Tags string
	// Nodes are names of groups.
	Nodes []string
	Pin   bool
	Keep  int
	Min   Share
	// Name is the name in the caches. "" is Ref's own.
	Name string
	// Rate is in bytes per second. 0 is no limit.
	Rate     int64
	Priority int
	// AuthFile is the path of a file with credentials, which is read at each use. "" is the default.
	AuthFile string
}

// Matches reports whether a tag is one of those that an image with Tags stands for.
func (i *Image) Matches(tag string) bool {
	is, _ := path.Match(i.Tags, tag)
	return is
}

// key tells an entry of a list from the others.
func (i *Image) key() string { return i.Ref + " " + i.Tags }

// A Share is a part of some nodes, in percent.
type Share float64

// Of reports whether some of all nodes are at least this share.
func (s Share) Of(some, all int) bool { return float64(some)*100 >= float64(s)*float64(all) }

// registry returns the host of an image that is in a registry, else "". Names without a host are of docker.io.
func registry(ref string) string {
	transport, rest, ok := strings.Cut(ref, "://")
	if !ok || transport != "docker" && transport != "oras" {
		return ""
	}
	host, _, ok := strings.Cut(rest, "/")
	if !ok || !isHost(host) {
		return "docker.io"
	}
	return host
}

// isHost reports whether the first part of a name is a host, by the rule of container tools.
func isHost(part string) bool { return strings.ContainsAny(part, ".:") || part == "localhost" }
