package ring

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
)

// supported says which faults the ring survives as PROTOCOL.md wants it; comments say
// by what. Runs with others are judged by the weaker rules (no wrong success, one
// row for each node, an end in time), and those faults pass by themselves, since
// nothing else would end them.
var supported = map[string]bool{
	simcheck.Kill:         true,
	simcheck.Return:       true, // a lost node is dialled again and served the rest
	simcheck.Freeze:       true,
	simcheck.Pause:        true,
	simcheck.CutServer:    true,
	simcheck.CutLink:      true, // a link on which nothing moves for 3 s is made anew, then routed around
	simcheck.Island:       true, // nodes are asked who reaches it, else the server feeds it
	simcheck.Stall:        true, // the same
	simcheck.SlowLink:     true,
	simcheck.SlowDisk:     true,
	simcheck.Corrupt:      true,
	simcheck.Lie:          true, // after a mismatch those below fall back to the last good mark
	simcheck.Rogue:        true,
	simcheck.Liar:         true, // what a node says of itself only counts against it
	simcheck.Stutter:      true,
	simcheck.Rot:          true, // as a lie
	simcheck.Late:         true,
	simcheck.Twin:         true,
	simcheck.Hang:         true, // a slow node is bypassed, served behind the others
	simcheck.Full:         true,
	simcheck.Refuse:       true,
	simcheck.ResetControl: true,
	simcheck.ResetLink:    true,
	simcheck.Interrupt:    true,
	simcheck.KillServer:   true,
}

// simCase is all that is decided before a run. Nodes count from 1, the server is
// 0, times are microseconds of fake time.
type simCase struct {
	Cause   string        `json:"cause,omitempty"` // of a regression: what was wrong
	Seed    uint64        `json:"seed"`
	Nodes   int           `json:"nodes"`
	Blobs   []simBlobCase `json:"blobs"`
	Held    [][2]int      `json:"held,omitempty"`   // node, blob
	Parts   [][4]int      `json:"parts,omitempty"`  // node, blob, bytes that it has of it, 1: others than the source's
	Ahead   [][4]int      `json:"ahead,omitempty"`  // node, blob, what chooses the leaves that it holds, so many of which differ
	Update  bool          `json:"update,omitempty"` // nodes compare what they have first; Ahead has what is right of it
	Blind   []int         `json:"blind,omitempty"`  // nodes that cannot replay
	Retries int           `json:"retries,omitempty"`
	Direct  int           `json:"direct,omitempty"`  // nodes that the server feeds itself because no node reaches them; 0: all
	Patient bool          `json:"patient,omitempty"` // slow nodes are left where they are
	Pace    int           `json:"pace"`              // of the source, for each frame
	Fsync   int           `json:"fsync"`             // at most, of a commit
	Rate    int64         `json:"rate,omitempty"`    // of all ways, bytes per second; 0: no limit
	Latency int           `json:"latency,omitempty"`
	Buffer  int           `json:"buffer"`           // of a connection
	Window  int           `json:"window,omitempty"` // 0: the smallest
	Source  string        `json:"source,omitempty"`
	Wait    int           `json:"wait,omitempty"` // for nodes that are not there yet
	Faults  []fault       `json:"faults,omitempty"`
}

type simBlobCase struct {
	Size   int64 `json:"size"`
	Digest bool  `json:"digest,omitempty"` // told in the offer
	Stream bool  `json:"stream,omitempty"` // the size is not
}

type fault struct {
	What string `json:"what"`
	Node int    `json:"node,omitempty"`
	Peer int    `json:"peer,omitempty"`
	At   int    `json:"at"`           // since the start, or since On
	On   *call  `json:"on,omitempty"` // nil: the start
	For  int    `json:"for,omitempty"`
	Way  string `json:"way,omitempty"`  // of cuts: in, out (of Node), "" both
	Rate int64  `json:"rate,omitempty"` // or bytes: of Full, and between two of Corrupt
	How  string `json:"how,omitempty"`
}

// call is a moment: the Nth call of a node's storage, or of the source.
type call struct {
	Node int    `json:"node"`
	Call string `json:"call"`
	Nth  int    `json:"nth"`
}

// static is a property of its node rather than something that happens.
func (f fault) static() bool {
	switch f.What {
	case simcheck.Full, simcheck.Lie, simcheck.Refuse, simcheck.Rogue, simcheck.Stutter, simcheck.Late, simcheck.Rot, simcheck.Twin, simcheck.Liar:
		return true
	}
	return false
}

func (s simCase) text() []byte {
	flat, _ := json.Marshal(s)
	var b []byte
	depth, quoted := 0, false
	for i, c := range flat { // a line for each field and for each fault
		quoted = quoted != (c == '"' && flat[i-1] != '\\')
		switch {
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth == 0 && c == '}' {
			b = append(b, '\n')
		}
		b = append(b, c)
		if !quoted && (depth == 1 && (c == '{' || c == ',') || depth == 2 && c == ',' && flat[i+1] == '{') {
			b = append(append(b, '\n'), "\t\t\t"[:depth]...)
		}
	}
	return append(b, '\n')
}

func parseScenario(b []byte) (s simCase, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return s, d.Decode(&s)
}

// generate makes the scenario of a seed.
func generate(seed uint64) simCase {
	r := rand.New(rand.NewPCG(seed, 0x646f6c6c79))
	s := simCase{Seed: seed, Nodes: 2 + r.IntN(7), Fsync: []int{0, 1000, 20_000}[r.IntN(3)]}
	most := int64(512 << 10) // bytes in all
	switch k := r.IntN(100); {
	case k < 2:
		s.Nodes, most = 64, 256<<10
	case k < 30:
		s.Nodes = 9 + r.IntN(8)
	case k < 34:
		s.Nodes = 1
	}
	if s.Nodes < 8 && r.IntN(8) == 0 {
		most = 3 << 20
	}
	n := 1 + r.IntN(6)
	for i := range n {
		b := simBlobCase{Digest: r.IntN(4) > 0}
		switch k := r.IntN(10); {
		case k == 0:
		case k < 3:
			b.Size = r.Int64N(100)
		case k < 4:
			b.Size = simMark * r.Int64N(most/simMark/int64(n)+1)
		default:
			b.Size = r.Int64N(2 * most / int64(n))
		}
		if i == n-1 && r.IntN(4) == 0 {
			b.Digest, b.Stream = false, true
		}
		s.Blobs = append(s.Blobs, b)
	}
	if r.IntN(3) == 0 {
		for node := 1; node <= s.Nodes; node++ {
			for b := range s.Blobs {
				if s.Blobs[b].Digest && r.IntN(3) == 0 {
					s.Held = append(s.Held, [2]int{node, b})
				}
			}
		}
	}
	if r.IntN(4) == 0 {
		for node := 1; node <= s.Nodes; node++ {
			if b := r.IntN(n); r.IntN(2) == 0 && !slices.Contains(s.Held, [2]int{node, b}) {
				s.Parts = append(s.Parts, [4]int{node, b, r.IntN(int(s.Blobs[b].Size) + 1), r.IntN(4) / 3})
			}
		}
	}
	s.Retries, s.Patient = []int{0, 1, 3}[r.IntN(3)], r.IntN(4) == 0
	for node := 1; node <= s.Nodes; node++ {
		if r.IntN(10) == 0 {
			s.Blind = append(s.Blind, node)
		}
	}
	s.Pace = []int{100, 1000, 5000}[r.IntN(3)]
	s.Buffer = []int{16 << 10, 64 << 10, 128 << 10}[r.IntN(3)]
	if r.IntN(3) == 0 {
		s.Latency = []int{50, 500, 5000}[r.IntN(3)]
		s.Rate = []int64{0, 2 << 20, 20 << 20}[r.IntN(3)]
	}
	if r.IntN(25) == 0 {
		s.Source = []string{"error", "shrink", "grow", "changed"}[r.IntN(4)]
	}
	faults := []int{0, 1, 1, 1, 2, 2, 3, 3, 4, 6}[r.IntN(10)]
	for range faults {
		s.Faults = append(s.Faults, s.fault(r))
	}
	if r.IntN(20) == 0 { // a firewall between all nodes, or most
		s.Direct = r.IntN(3)
		for node := 1; node <= s.Nodes; node++ {
			if r.IntN(5) > 0 {
				s.Faults = append(s.Faults, fault{What: simcheck.Island, Node: node, Peer: node - 1})
			}
		}
	}
	if r.IntN(40) == 0 && s.Nodes > 1 {
		s.Faults = append(s.Faults, fault{What: simcheck.Twin, Node: s.Nodes, Peer: 1 + r.IntN(s.Nodes-1)})
	}
	if s.inLeaves() && r.IntN(2) == 0 {
		if s.holdAhead(r); r.IntN(3) == 0 {
			s.update(r)
		}
	}
	return s
}

// fault makes one. Nodes hit by several faults are more interesting than many
// nodes with one each.
func (s *simCase) fault(r *rand.Rand) fault {
	kinds := []string{
		simcheck.Kill, simcheck.Kill, simcheck.Kill, simcheck.Kill, simcheck.Return, simcheck.Freeze, simcheck.Freeze, simcheck.Pause,
		simcheck.CutServer, simcheck.CutLink, simcheck.Island, simcheck.Stall, simcheck.SlowLink, simcheck.SlowDisk,
		simcheck.Corrupt, simcheck.Corrupt, simcheck.Lie, simcheck.Full, simcheck.Full, simcheck.Refuse,
		simcheck.ResetControl, simcheck.ResetControl, simcheck.ResetControl, simcheck.ResetLink, simcheck.ResetLink,
		simcheck.Interrupt, simcheck.KillServer, simcheck.Rogue, simcheck.Rogue, simcheck.Hang,
		simcheck.Stutter, simcheck.Late, simcheck.Rot,
	}
	f := fault{What: kinds[r.IntN(len(kinds))], Node: 1 + r.IntN(s.Nodes)}
	if len(s.Faults) > 0 && r.IntN(3) == 0 {
		last := s.Faults[len(s.Faults)-1].Node
		f.Node = max(1, min(s.Nodes, last+r.IntN(3)-1))
	}
	f.Peer = f.Node - 1 // its feeder, most likely
	if r.IntN(4) == 0 {
		for f.Peer = r.IntN(s.Nodes); f.Peer >= f.Node; {
			f.Peer--
		}
	}
	var total int64
	for _, b := range s.Blobs {
		total += b.Size
	}
	span := int(total/simFrame+2)*s.Pace + 1000
	switch k := r.IntN(10); {
	case k < 5:
		f.At = r.IntN(span * 3 / 2)
	case k < 9:
		f.On = &call{Node: f.Node, Call: []string{"offer", "begin", "write", "write", "commit", "prepare", "publish", "published"}[r.IntN(8)], Nth: 1}
		if r.IntN(3) == 0 {
			f.On.Node = 1 + r.IntN(s.Nodes)
		}
		if f.On.Call == "write" {
			f.On.Nth = 1 + r.IntN(int(total/simFrame)+1)
		}
		f.At = []int{0, 0, 100, 10_000}[r.IntN(4)]
	default:
		f.On = &call{Call: "done", Nth: 1}
		f.At = []int{0, 100, 10_000}[r.IntN(3)]
	}
	some := func() int { return []int{100_000, 2_500_000, 7_000_000, 12_000_000}[r.IntN(4)] }
	switch f.What {
	case simcheck.Pause:
		f.For = 50_000 + r.IntN(1_000_000)
	case simcheck.Freeze:
		if r.IntN(2) == 0 {
			f.For = some()
		}
	case simcheck.CutServer:
		if f.Way = []string{"", "in", "out"}[r.IntN(3)]; r.IntN(2) == 0 {
			f.For = some()
		}
	case simcheck.Hang:
		f.For = some()
	case simcheck.CutLink, simcheck.Island, simcheck.Stall:
		if f.Way = []string{"", "in", "out"}[r.IntN(3)]; r.IntN(2) == 0 || !supported[f.What] {
			f.For = some()
		}
	case simcheck.Return:
		f.For = 10_000 + r.IntN(6_000_000)
	case simcheck.SlowLink:
		f.Rate = 64<<10 + r.Int64N(1<<20)
	case simcheck.SlowDisk:
		f.Rate = simFrame * 1000 / (1 + r.Int64N(200)) // so many ms for a write
	case simcheck.Corrupt:
		f.How = []string{"flip", "flip", "drop", "repeat"}[r.IntN(4)]
		f.At, f.On = 0, nil
		if f.Rate = 100 + r.Int64N(total/2+1); r.IntN(2) == 0 {
			f.Rate = 150<<10 + r.Int64N(200<<10) // a replayed frame has up to 64 KiB
			f.How += " often"
		}
	case simcheck.Lie, simcheck.Rot:
		f.At, f.On = 0, nil
		f.Rate = r.Int64N(total + 1)
	case simcheck.Full:
		f.How = []string{"write", "write", "begin", "commit", "prepare", "publish"}[r.IntN(6)]
		f.Rate = r.Int64N(total + 1)
		f.At, f.On = 0, nil
	case simcheck.Late:
		f.At, f.On = 0, nil
		if f.For = 100_000 + r.IntN(2_000_000); r.IntN(3) > 0 {
			s.Wait = 5_000_000
		}
	case simcheck.Stutter:
		f.At, f.On = 0, nil
		f.Rate = 40<<10 + r.Int64N(300<<10)
		f.How = []string{"skip", "repeat", "reorder", "fin"}[r.IntN(4)]
	case simcheck.Refuse, simcheck.Rogue:
		f.At, f.On = 0, nil
	}
	return f
}
