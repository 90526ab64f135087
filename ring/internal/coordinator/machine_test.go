package coordinator

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios in testdata/chain cause into their files")

// The files in testdata/chain are scenarios for the coordinator: each line that
// starts with "> " is an event, the lines below it are what it causes.
// go test ./ring/internal/coordinator -run TestChain -rewrite writes the latter anew; read the diff.
func TestChain(t *testing.T) {
	files, err := filepath.Glob("testdata/chain/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playChain(t, string(b)).out.String()
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("got\n%s\nwant\n%s", got, b)
			}
		})
	}
}

// scenario plays events on a chain and prints what they cause.
type scenario struct {
	reports  map[int]bool // nodes that report
	version  int          // that nodes speak, where none is named
	verdicts []verdict
	t        *testing.T
	c        *Machine
	out      strings.Builder
}

func playChain(t *testing.T, text string) *scenario {
	s := &scenario{t: t}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&s.out, line)
		case strings.HasPrefix(line, "> "):
			fmt.Fprintln(&s.out, line)
			s.event(strings.Fields(line[2:]))
		}
	}
	return s
}

var testBlob = v1.Descriptor{Digest: digest.FromString("image"), Size: 100}

// bigBlob has marks.
var bigBlob = v1.Descriptor{Digest: digest.FromString("image"), Size: 64 << 30}

// event is VERB NODE key=value…
func (s *scenario) event(f []string) {
	arg := map[string]string{}
	node := 0
	for _, a := range f[1:] {
		if k, v, ok := strings.Cut(a, "="); ok {
			arg[k] = v
		} else if n, err := strconv.Atoi(a); err == nil {
			node = n
		} else {
			arg[a] = "yes"
		}
	}
	num := func(key string, other int) int {
		if n, err := strconv.Atoi(arg[key]); err == nil {
			return n
		}
		return other
	}
	feed := func() (uint32, uint32) {
		x := &s.c.nodes[node].feed
		return uint32(num("link", int(x.link))), uint32(num("gen", int(x.gen)))
	}
	var ev Event
	switch f[0] {
	case "nodes":
		peers := make([]Peer, node)
		for i := range peers {
			peers[i] = Peer{Name: fmt.Sprint("n", i+1), Dials: fmt.Sprintf("n%d:9998", i+1), Port: "9998"}
		}
		d := testBlob
		if arg["big"] != "" {
			d = bigBlob
		}
		s.reports = nil
		s.version = wire.AckedSince - 1
		if n := num("leaves", 0); n > 0 {
			d = v1.Descriptor{MediaType: leaf.MediaType, Size: int64(n) * leaf.Size}
		}
		if arg["acked"] != "" || arg["leaves"] != "" { // feeders tell what was acknowledged
			s.version = wire.Version
		}
		s.c = New(Config{Nodes: peers, Retries: num("retries", 0), Straggler: Straggler(arg["straggler"]), Rate: int64(num("rate", 0)), MaxDirect: num("direct", 0), Check: arg["check"] != "", Confirm: arg["confirm"] != "", MarkEvery: wire.MarkEvery, NoSHA: arg["nosha"] != "", Compare: arg["compare"] != ""}, []v1.Descriptor{d})
		s.c.nodes[0].contact.version = s.version
		return
	case "started": // all answer
		for i := range s.c.nodes[1:] {
			s.quiet(EvWelcome{i + 1, wire.ID{byte(i + 1)}, wire.StateNew, "", "", num("version", s.version), false})
			s.quiet(EvAnswer{i + 1, []int64{0}, -1, true, false, wire.CodeNone, "", nil, nil})
		}
		return
	case "serving": // the usual beginning: all answer, all links come up; nosha=NODE,NODE have no SHA instructions
		without := func(i int) bool { return slices.Contains(strings.Split(arg["nosha"], ","), fmt.Sprint(i)) }
		for i := range s.c.nodes[1:] {
			s.quiet(EvWelcome{i + 1, wire.ID{byte(i + 1)}, wire.StateNew, "", "", s.version, without(i + 1)})
			s.quiet(EvAnswer{i + 1, []int64{0}, -1, true, false, wire.CodeNone, "", nil, nil})
		}
		for i := range s.c.nodes[1:] {
			x := s.c.nodes[i+1].feed
			s.quiet(EvNeed{i + 1, x.link, x.gen, [][2]int64{{0, 0}}, nil})
			s.quiet(EvLink{i, x.link, x.gen, wire.LinkUp, wire.CodeNone, ""})
		}
		return
	case "welcome":
		ev = EvWelcome{node, wire.ID{byte(num("instance", node))}, cmp.Or(arg["state"], wire.StateNew), arg["reason"], arg["addr"], num("version", s.version), arg["nosha"] != ""}
	case "nocontact":
		ev = EvNoContact{node, Unreachable, false, Cause{Kind: KindContact, Text: "connection refused"}}
	case "answer":
		a := EvAnswer{Node: node, Held: []int64{int64(num("held", 0))}, Free: int64(num("free", -1)), Replay: true, Change: arg["switch"] != "", Code: wire.Code(arg["code"]), Reason: arg["reason"], Target: []byte(arg["target"]), Leaves: s.leaves(arg["set"])}
		ev = a
	case "need":
		link, gen := feed()
		n := EvNeed{node, link, gen, [][2]int64{{0, int64(num("at", 0)) + int64(num("leaf", 0))*leaf.Size}}, s.leaves(arg["set"])}
		if arg["nothing"] != "" {
			n.Needs = nil
		}
		ev = n
	case "link":
		link, gen := feed()
		ev = EvLink{num("by", s.c.nodes[node].feed.feeder), link, gen, arg["state"], wire.Code(arg["code"]), cmp.Or(arg["reason"], "broken")}
	case "verified":
		ev = EvVerified{node, &wire.Verified{Digests: []string{cmp.Or(arg["digest"], testBlob.Digest.String())}, InPlace: arg["inplace"] != ""}}
	case "committed":
		ev = EvCommitted{node, cmp.Or(arg["digest"], testBlob.Digest.String())}
	case "fail":
		ev = EvFail{node, wire.Code(arg["code"]), "because"}
	case "lost":
		ev = EvControlLost{node, arg["silent"] != "", "connection lost"}
	case "resumed":
		ev = EvResumed{node, arg["committed"] != "", wire.ID{byte(num("instance", node))}, arg["state"], testBlob.Digest.String(), Said(wire.CodeNone, arg["reason"])}
	case "source":
		ev = EvSourceDone{[]digest.Digest{testBlob.Digest}, s.c.sizes}
		if arg["failed"] != "" {
			ev = EvSourceFailed{errors.New("source: it shrank"), false}
			if arg["failed"] == "unreadable" {
				ev = EvSourceFailed{errors.New("source: connection reset"), true}
			}
		}
	case "confirmed":
		ev = EvConfirmed{}
		if arg["not"] != "" {
			ev = EvConfirmed{errors.New("nobody agreed")}
		}
	case "interrupt":
		ev = EvInterrupt{}
	case "deadline":
		ev = EvDeadline{}
	case "tick": // seconds later
		sec, _ := strconv.ParseFloat(cmp.Or(arg["s"], "0.25"), 64)
		for range int(sec * 4) { // as often as the sender does
			for i := range s.reports { // and who reported once goes on to, with nothing new
				if n := &s.c.nodes[i]; s.c.now-n.progress.told > 5*time.Second {
					n.progress.told = s.c.now
				}
			}
			s.print(s.step(EvTick{s.c.now + TickEvery}))
		}
		return
	case "report": // link=ID:RATE,ID:RATE with ! behind the rate when it is not idle: else it is that of a burst; ID:held!; /ACKED behind it all
		r := wire.Report{
			Received: int64(num("received", 0)), Marked: int64(num("marked", 0)), Durable: int64(num("durable", 0)), Checked: int64(num("checked", 0)), Zeros: int64(num("zeros", 0)), Wait: wire.Wait(arg["wait"]), Blob: num("blob", 0), Good: int64(num("good", 0)),
			Relay: int64(num("relay", 0)), Hash: int64(num("hash", 0)), Disk: int64(num("disk", 0)),
		}
		for l := range strings.SplitSeq(arg["link"], ",") {
			id, rate, ok := strings.Cut(l, ":")
			if !ok {
				continue
			}
			n, _ := strconv.Atoi(id)
			rate, acked, _ := strings.Cut(rate, "/")
			rate, busy := strings.CutSuffix(rate, "!")
			k, _ := strconv.ParseInt(rate, 10, 64)
			sending := wire.Sending{Link: uint32(n), Idle: !busy, Burst: k, Held: rate == "held"}
			if busy {
				sending.Rate, sending.Burst = k, 0
			}
			sending.Acked, _ = strconv.ParseInt(acked, 10, 64)
			r.Links = append(r.Links, sending)
		}
		if s.reports == nil {
			s.reports = map[int]bool{}
		}
		s.reports[node] = true
		ev = EvReport{node, r}
	case "compared": // NODE set=BITS, and leaves=N if it had not all leaves to compare
		n := num("leaves", len(arg["set"]))
		ev = EvCompared{node, s.leaves(arg["set"]), int64(n) * leaf.Size}
	case "read": // the source, for the first time
		ev = EvCompareRead{}
	case "undialled": // NODE link=ID: it has read UNDIAL
		ev = EvUndialled{node, uint32(num("link", 0))}
	case "probed": // FROM to=NODE, with cut=REASON when it was not reached
		ev = EvProbed{Node: node}
		for _, p := range s.c.search.probes {
			if p.from == node && p.to == num("to", 0) {
				ev = EvProbed{node, p.id, wire.CodeNone, ""}
				if arg["cut"] != "" {
					ev = EvProbed{node, p.id, wire.CodeNetwork, arg["cut"]}
				}
			}
		}
	case "fallback":
		link, gen := feed()
		ev = EvFallback{node, &wire.Fallback{Link: link, Generation: gen, Offset: int64(num("mark", 0)), Good: int64(num("good", 0))}, arg["unsent"] != ""}
	case "bottleneck":
		limit, name := s.c.Bottleneck()
		fmt.Fprintf(&s.out, "limit %s, slower than the others: %s\n", cmp.Or(string(limit), "unknown"), cmp.Or(name, "none"))
		return
	default:
		s.t.Fatalf("unknown event %q", f[0])
	}
	s.print(s.step(ev))
}

func (s *scenario) print(out []Action) {
	for _, a := range out {
		fmt.Fprintln(&s.out, s.text(a))
	}
}

func (s *scenario) quiet(ev Event) { s.step(ev) }

func (s *scenario) text(a Action) string {
	name := func(i int) string {
		if i == 0 {
			return "server"
		}
		return s.c.nodes[i].name
	}
	switch a := a.(type) {
	case ActSend:
		if start, ok := a.Msg.(*wire.Start); ok {
			return strings.TrimSpace("tell " + name(a.Node) + " START " + string(start.Target))
		}
		return fmt.Sprintf("tell %s %s%s", name(a.Node), strings.ToUpper(strings.TrimPrefix(fmt.Sprintf("%T", a.Msg), "*wire.")), strings.TrimPrefix(fmt.Sprintf(" %+v", a.Msg), " &{}"))
	case ActOffer:
		return "tell " + name(a.Node) + " OFFER"
	case ActConfirm:
		return "have the plan confirmed"
	case ActPlan:
		return fmt.Sprint("plan ", a.Nodes)
	case ActFeed:
		return fmt.Sprintf("feed %s link %d generation %d", name(a.Node), a.Link, a.Generation)
	case ActDial:
		lag := ""
		if a.Lag {
			lag = ", may lag"
		}
		return fmt.Sprintf("dial %s -> %s link %d generation %d from %d%s%s", name(a.Feeder), name(a.Node), a.Link, a.Generation, a.Needs[0][1], lag, s.without(a.Leaves))
	case ActUndial:
		return fmt.Sprintf("undial %s link %d", name(a.Feeder), a.Link)
	case ActProbe:
		return fmt.Sprintf("does %s reach %s", name(a.From), name(a.To))
	case ActMarks:
		return "tell " + name(a.Node) + " all marks"
	case ActCompare:
		return "read the source for its marks"
	case ActSource:
		return strings.TrimSpace("read the source" + s.without(common(a)))
	case ActRedial:
		return "dial " + name(a.Node) + " until it answers"
	case ActResume:
		return fmt.Sprintf("ask %s again, committed %v", name(a.Node), a.Committed)
	case ActHangup:
		return "hang up " + name(a.Node)
	case ActFinal:
		n := &s.c.nodes[a.Node]
		r := n.row
		what, code := "", ""
		if r.Cause.Code() != "" {
			code = " [" + r.Cause.Code() + "]"
		}
		if r.Bytes > 0 || r.Skipped > 0 {
			what = fmt.Sprintf(", %d received, %d held", r.Bytes, r.Skipped)
		}
		return strings.TrimRight(fmt.Sprintf("row %s %s%s%s: %s %s", n.name, r.State, what, code, r.Cause, r.Link), " :")
	case ActNode:
		return strings.TrimRight(fmt.Sprintf("event node %s %s %s", name(a.Node), a.State, a.Cause), " ")
	case ActLink:
		return fmt.Sprintf("event link %s %s", a.Link, a.Reason)
	case ActCommit:
		return "event commit"
	case ActFinish:
		return fmt.Sprint("finish, error ", a.Err)
	}
	return fmt.Sprintf("%#v", a)
}

// A feeder that says that bytes arrive is believed for as long as a frame of 1 MiB takes at the rate that it tells.
func TestChainStalledHowever(t *testing.T) {
	second := "> report 1 received=90 wait=out link=2:250000!\n> report 2 received=10 wait=in\n> tick s=1\n"
	begin := "> nodes 3\n> serving\n> report 2 received=9 wait=in\n> tick s=1\n"
	const down = "event link n1 -> n2 down"
	if got := playChain(t, begin+strings.Repeat(second, 7)).out.String(); strings.Contains(got, down) {
		t.Errorf("lost while a frame may arrive:\n%s", got)
	}
	if got := playChain(t, begin+strings.Repeat(second, 8)).out.String(); !strings.Contains(got, down) {
		t.Error("never lost")
	}
}

// A search is at most 16 probes, and where all links of a long chain cannot be opened at once, as on machines that are
// overloaded, all searches together are a bounded number of them.
func TestProbesAreBounded(t *testing.T) {
	const nodes = 60
	script := fmt.Sprintf("> nodes %d\n> started\n", nodes)
	all := func(line string) {
		for i := 2; i <= nodes; i++ {
			script += fmt.Sprintf("> "+line+"\n", i)
		}
	}
	script += "> need 1\n"
	all("need %d")
	for range 2 {
		all("link %d state=down code=network reason=timeout")
		all("need %d")
	}
	out := playChain(t, script).out.String()
	if asked := strings.Count(out, " reach n"); asked != maxUnderWay {
		t.Errorf("%d probes, want %d", asked, maxUnderWay)
	}
	if !strings.Contains(out, fmt.Sprintf("dial n%d -> n%d link", nodes-2, nodes)) {
		t.Errorf("the last node gets no other feeder:\n%s", out[strings.LastIndex(out, "> link"):])
	}
}
