//go:build !race

package coordinator

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mutant is a fault that somebody could make in the state machines.
type mutant struct {
	name  string
	edits []edit
}

// The explorer has to find each of mutants.
var mutants = []mutant{
	{"a frame of an old generation is taken", []edit{
		{"../member/machine.go",
			"m.phase != Started || ev.Generation != m.feedGen || !m.feedOpen",
			"m.phase != Started"},
	}},
	{"published before COMMIT", []edit{
		{"../member/machine.go",
			"			m.sayVerified()\n		}\n	case EvPublished:",
			"			m.sayVerified()\n			m.phase = Publishing\n			m.do(ActPublish{})\n		}\n	case EvPublished:"},
	}},
	{"COMMIT before the source was read to its end", []edit{
		{"commit.go",
			"n.phase != phVerified || !c.sourceDone || c.interrupted",
			"n.phase != phVerified || c.interrupted"},
	}},
	{"a mark is not compared", []edit{
		{"../member/marks.go",
			"case !bytes.Equal(s.sum, k.sum[:]):",
			"case !bytes.Equal(s.sum, k.sum[:]) && len(s.sum) == 0:"},
	}},
	{"neither marks nor the final sum are compared", []edit{
		{"../member/marks.go",
			"case !bytes.Equal(s.sum, k.sum[:]):",
			"case !bytes.Equal(s.sum, k.sum[:]) && len(s.sum) == 0:"},
		{"../member/marks.go",
			"if b.sum != b.final {",
			"if b.sum != b.final && b.sum == \"\" {"},
	}},
	{"falling back keeps the bytes", []edit{
		{"../member/marks.go",
			"b.walk(b.good)",
			"b.walk(b.accepted)"},
	}},
	{"those behind a lost node are forgotten, and who is not dialled is not missed", []edit{
		{"feeders.go",
			"		if fed {\n			c.relink(j)\n		}",
			""},
		{"watch.go",
			"case n.feed.state == feedDialled && asked >= timings.mute:",
			"case false:"},
	}},
	{"the end waits for a lost node", []edit{
		{"commit.go",
			"case p == phAway || p == phDialing",
			"case p == phDialing"},
	}},
	{"an unconfirmed COMMIT counts", []edit{
		{"commit.go",
			"		c.end(ev.Node, Failed, ev.Cause.orCause(",
			"		c.nodeCommitted(EvCommitted{ev.Node, ev.Digest + c.finals[0].String()[len(ev.Digest):]})\n		c.end(ev.Node, Failed, ev.Cause.orCause("},
	}},
	{"who waits for a feeder is forgotten when nobody reaches it", []edit{
		{"search.go",
			"	if n.reach.waits && n.feed.state == feedAsked {",
			"	if n.reach.waits && n.reach.found != 0 && n.feed.state == feedAsked {"},
	}},
	{"the first of two names is served", []edit{
		{"join.go",
			"		c.end(known, Failed, why)\n",
			""},
	}},
	{"nobody is blamed for changed bytes", []edit{
		{"suspects.go",
			"			c.blame(s.feeder, i, s.link)",
			"			continue"},
	}},
	{"a node that resumed gets no new feed", []edit{
		{"commit.go",
			"linked && (j == i || f.feeder == i) || j == i && f.state == feedAsked {",
			"linked && f.feeder == i && false {"},
	}},
	// These only the liar finds.
	{"a node is excused because it says so", []edit{
		{"watch.go",
			"progress.report.Wait == wire.WaitOut &&\n		c.feeds(i, func(j int) bool { return c.now-c.nodes[j].progress.busy >= timings.stalled })",
			"progress.report.Wait == wire.WaitOut"},
	}},
	{"a node has received what it says", []edit{
		{"taken.go",
			"	return min(says, n.taken.most())",
			"	return says"},
	}},
	{"who does not say what it needs is waited for", []edit{
		{"watch.go",
			"case n.feed.state == feedAsked && asked >= timings.hung:",
			"case asked < 0:"},
	}},
	{"who does not verify is waited for", []edit{
		{"watch.go",
			"case still >= timings.verify && c.wasSent(i):",
			"case still < 0:"},
		{"watch.go",
			"case c.now-n.progress.owes >= timings.verify && c.wasSent(i):",
			"case asked < 0:"},
	}},
	{"a feeder that does not say that it has dialled is waited for", []edit{
		{"watch.go",
			"case n.feed.state == feedDialled && asked >= timings.mute:",
			"case asked < 0:"},
	}},
}

// edit makes the text old of a file new.
type edit struct{ file, old, new string }

// TestMutants builds the package once with all mutants, which a variable of the environment chooses, and has the explorer look at
// each of them. Without one, it finds nothing.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a build takes time")
	}
	all := slices.Concat(mutants, setMutants, scenarioMutants)
	program := buildMutants(t, all)
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if out, err := runMutant(t, program, 0, "TestExplore|TestChain"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	for i, m := range all {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			test := "TestExplore"
			if i >= len(mutants)+len(setMutants) {
				test = "TestChain"
			}
			out, err := runMutant(t, program, i+1, test)
			if err == nil {
				t.Fatalf("%s finds nothing\n%s", test, out)
			}
			if !strings.Contains(out, "--- FAIL: "+test) {
				t.Fatalf("it ended otherwise: %v\n%s", err, out)
			}
			if test != "TestExplore" {
				return
			}
			if !strings.Contains(out, ", after") {
				t.Fatalf("it ended otherwise:\n%s", out)
			}
			what, _, _ := strings.Cut(out[strings.Index(out, "explore_test.go"):], ", after")
			t.Log(what)
		})
	}
}

// runMutant returns what tests say of a mutant, counted from 1.
func runMutant(t *testing.T, program string, mutant int, tests string) (string, error) {
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^("+tests+")$", "-test.short")
	cmd.Env = append(os.Environ(), fmt.Sprint("MUTANT=", mutant))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
