//go:build !race

package coordinator

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are faults that somebody could make in the state machines: the text old of a
// file becomes new. The explorer has to find each.
var mutants = []struct{ name, file, old, new string }{
	{"a frame of an old generation is taken", "../member/machine.go",
		"m.phase != Started || ev.Generation != m.feedGen || !m.feedOpen", "m.phase != Started"},
	{"published before COMMIT", "../member/machine.go",
		"			m.sayVerified()\n		}\n	case EvPublished:", "			m.sayVerified()\n			m.phase = Publishing\n			m.do(ActPublish{})\n		}\n	case EvPublished:"},
	{"COMMIT before the source was read to its end", "commit.go",
		"n.phase != phVerified || !c.sourceDone || c.interrupted", "n.phase != phVerified || c.interrupted"},
	{"a mark is not compared", "../member/marks.go",
		"case !bytes.Equal(s.sum, k.sum[:]):", "case !bytes.Equal(s.sum, k.sum[:]) && len(s.sum) == 0:"},
	{"neither marks nor the final sum are compared", "../member/marks.go",
		"case !bytes.Equal(s.sum, k.sum[:]):", "case !bytes.Equal(s.sum, k.sum[:]) && len(s.sum) == 0:\x00if b.sum != b.final {\x00if b.sum != b.final && b.sum == \"\" {"},
	{"falling back keeps the bytes", "../member/marks.go",
		"b.accepted, b.claim, b.sum, b.sums = b.good,", "b.accepted, b.claim, b.sum, b.sums = b.accepted,"},
	{"those behind a lost node are forgotten", "feeders.go",
		"		if fed {\n			c.relink(j)\n		}", ""},
	{"the end waits for a lost node", "commit.go",
		"case p == phAway || p == phDialing", "case p == phDialing"},
	{"an unconfirmed COMMIT counts", "commit.go",
		"		c.end(ev.Node, Failed, ev.Cause.orCause(", "		c.nodeCommitted(EvCommitted{ev.Node, ev.Digest + c.finals[0].String()[len(ev.Digest):]})\n		c.end(ev.Node, Failed, ev.Cause.orCause("},
	{"who waits for a feeder is forgotten when nobody reaches it", "search.go",
		"	if n.reach.waits && n.feed.state == feedAsked {", "	if n.reach.waits && n.reach.found != 0 && n.feed.state == feedAsked {"},
	{"the first of two names is served", "join.go",
		"		c.end(known, Failed, why)\n", ""},
	{"nobody is blamed for changed bytes", "suspects.go",
		"			c.blame(s.feeder, i, s.link)", "			continue"},
	{"a node that resumed gets no new feed", "commit.go",
		"linked && (j == i || f.feeder == i) || j == i && f.state == feedAsked {", "linked && f.feeder == i && false {"},
}

// TestMutants builds the package anew with each mutant and has the explorer look at it.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a build for each mutant takes time")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			text, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			mutated := string(text)
			// Two edits are one text, apart by a NUL.
			edits := strings.Split(m.old+"\x00"+m.new, "\x00")
			for i := 0; i < len(edits); i += 2 {
				if strings.Count(mutated, edits[i]) != 1 {
					t.Fatalf("%s does not have once: %s", m.file, edits[i])
				}
				mutated = strings.Replace(mutated, edits[i], edits[i+1], 1)
			}
			dir := t.TempDir()
			file, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
			abs, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			list, err := json.Marshal(map[string]any{"Replace": map[string]string{abs: file}})
			if err != nil {
				t.Fatal(err)
			}
			for name, b := range map[string][]byte{file: []byte(mutated), overlay: list} {
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-run", "^TestExplore$", "-short", ".").CombinedOutput()
			if err == nil {
				t.Fatalf("the explorer finds nothing\n%s", out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestExplore") || !strings.Contains(string(out), ", after") {
				t.Fatalf("it ended otherwise: %v\n%s", err, out)
			}
			what, _, _ := strings.Cut(string(out[strings.Index(string(out), "explore_test.go"):]), ", after")
			t.Log(what)
		})
	}
}
