package ring

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
)

var simLiars = flag.Int("sim.liars", 0, "simulate so many seeds with one or two liars; 0: 300, 30 with the race detector or -short")

// traits are what a liar may do wherever an honest node decides something: each line is one decision, and a liar has
// at most one trait of it. PROTOCOL.md section 9 says what becomes of it.
var traits = [][]string{
	{"waits-in", "waits-out", "waits-disk", "waits-cpu", "waits-limit", "waits-nothing", "waits-anything"},
	{"received-none", "received-one-more", "received-all", "received-back-and-forth", "received-least"},
	{"links-none", "links-invented", "links-idle", "links-busy", "links-held", "links-fast"},
	{"acked-none", "acked-little", "acked-all"},
	{"good-nothing"},
	{"no-need", "needs-nothing", "needs-all"},
	{"no-report"},
	{"no-up", "up-always", "down-at-once"},
	{"no-down", "no-done", "done-early"},
	{"falls-back", "falls-back-often"},
	{"no-verified", "verified-early", "verified-wrong"},
	{"committed-wrong", "no-committed"},
	{"closes-control"},
	{"reads-nothing", "stops-reading"},
	{"sends-nothing"},
	{"changes-bytes", "sends-zeros"},
	{"answers-all", "answers-none", "answers-some", "answers-more"},
	{"compared-all", "compared-none", "compared-some", "compared-more", "compared-again", "no-compared"},
	{"spares-all", "spares-none", "spares-some", "spares-more"},
	{"dials-all", "dials-none", "dials-some"},
}

// liars makes the scenario of a seed in which nothing is wrong but one or two nodes, which lie. Two may be neighbours that
// lie together.
func liars(seed uint64) simCase {
	s := generate(seed)
	r := rand.New(rand.NewPCG(seed, 0x6c69617273))
	s.Faults, s.Source, s.Blind, s.Wait, s.Direct = nil, "", nil, 0, 0
	if s.Nodes > 16 {
		s.Nodes = 4
		s.Held, s.Parts = nil, nil
	}
	s.Nodes = max(s.Nodes, 2)
	if s.inLeaves() && len(s.Ahead) == 0 && r.IntN(3) > 0 {
		s.holdAhead(r)
	}
	if s.inLeaves() && !s.Update && r.IntN(2) == 0 {
		s.update(r)
	}
	who := []int{1 + r.IntN(s.Nodes)}
	switch r.IntN(5) {
	case 0, 1: // another one, on its own account
		if other := 1 + r.IntN(s.Nodes); other != who[0] {
			who = append(who, other)
		}
	case 2:
		who[0] = min(who[0], s.Nodes-1)
		who = append(who, who[0]+1)
		s.slow(r)
	default:
		if r.IntN(2) == 0 {
			s.slow(r)
		}
	}
	for k, node := range who {
		f := fault{What: simcheck.Liar, Node: node, How: someTraits(r), Rate: r.Int64N(512 << 10)}
		if len(who) == 2 && who[1] == who[0]+1 {
			f.Peer = who[1-k]
		}
		s.Faults = append(s.Faults, f)
	}
	return s
}

// slow gives the source so much to send, and so slowly, that reports tell of it while it is under way.
func (s *simCase) slow(r *rand.Rand) {
	var total int64
	for _, b := range s.Blobs {
		total += b.Size
	}
	if most := int64(4 << 20); s.Nodes < 8 && r.IntN(2) == 0 && !slices.ContainsFunc(s.Parts, func(p [4]int) bool { return p[1] == 0 }) {
		total += most
		s.Blobs[0].Size += most
	}
	// No read may last longer than a run waits for its nodes once the server has ended.
	s.Pace = min(5_000_000, max(s.Pace, (2+r.IntN(30))*1_000_000/int(total/simFrame+1)))
}

// someTraits chooses from some of the decisions.
func someTraits(r *rand.Rand) string {
	var how []string
	for _, one := range traits {
		if r.IntN(5) == 0 {
			how = append(how, one[r.IntN(len(one))])
		}
	}
	if len(how) == 0 {
		one := traits[r.IntN(len(traits))]
		how = []string{one[r.IntN(len(one))]}
	}
	return strings.Join(how, " ")
}

// TestSimLiars has one or two nodes lie, by seed, at every point at which a node decides something.
func TestSimLiars(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, liars(*simSeed))
		return
	}
	seeds := *simLiars
	switch {
	case seeds != 0:
	case raceDetector, testing.Short():
		seeds = 30
	default:
		seeds = 300
	}
	simulateAll(t, seeds, liars)
}

// longest is how long a run may take. A liar may say that it has everything, or nothing of its end, for 10 minutes.
func (s *sim) longest() time.Duration {
	for _, f := range s.sc.Faults {
		if f.What == simcheck.Liar {
			return 3 * time.Hour
		}
	}
	return 10 * time.Minute
}
