package coordinator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// verdict is that a node was called slow, and what the progress line named right before.
type verdict struct {
	node, link string // called slow, and the slow link into it
	named      string
	// lost says that right after it the progress line, which may be asked only then, no longer named it.
	lost bool
}

// step applies an event and keeps the verdicts that it causes.
func (s *scenario) step(ev Event) []Action {
	_, named := s.c.Bottleneck()
	slow := make([]bool, len(s.c.nodes))
	for i := range s.c.nodes {
		slow[i] = s.c.nodes[i].pace.slow
	}
	out := s.c.Step(ev)
	for i := range s.c.nodes {
		if n := &s.c.nodes[i]; n.pace.slow && !slow[i] {
			_, still := s.c.Bottleneck()
			s.verdicts = append(s.verdicts, verdict{n.name, n.pace.why.Link, named, n.phase == phServing && who(still) != who(named)})
		}
	}
	return out
}

// who is a name of the progress line without the rate, which each look measures anew.
func who(named string) string {
	name, _, _ := strings.Cut(named, ": ")
	return name
}

// Whoever is called slow was named in the progress line before: as a node, by the link into it, or, where a node
// sends too slowly, by a link from it.
func TestVerdictWasNamed(t *testing.T) {
	files, err := filepath.Glob("testdata/chain/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		verdicts := playChain(t, string(b)).verdicts
		total += len(verdicts)
		for _, v := range verdicts {
			if v.lost {
				t.Errorf("%s: %s is called slow, and the progress line no longer names it", file, v.node)
			}
			if !strings.HasPrefix(v.named, v.node+": ") && !strings.HasPrefix(v.named, "link "+v.node+" -> ") &&
				(v.link == "" || !strings.HasPrefix(v.named, "link "+v.link+": ")) {
				t.Errorf("%s: %s (link %q) is called slow, and the progress line named %q", file, v.node, v.link, v.named)
			}
		}
	}
	if total < 20 {
		t.Errorf("only %d verdicts in %d scenarios", total, len(files))
	}
}
