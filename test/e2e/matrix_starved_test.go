package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// slack is what a busy machine may add to a time that is demanded. Who measures has none.
func slack() time.Duration {
	if measures() {
		return 0
	}
	return 12 * time.Second
}

// starved says whether a victim's row says something else than it would on a machine with a processor for each node, and all
// else shows that what was to be said is true: a reason that came after it took its place, and it was told before, or the
// victim stood for much longer than it was stopped, which its link was named for.
func (s *scene) starved(t *testing.T, row row, told []map[string]any, reason, link string) bool {
	if slack() > 0 && s.stopped > 0 && s.stood > s.stopped+500*time.Millisecond && nothingMoved(row) {
		t.Logf("a busy machine: %s stood for %v: %q", row.Node, s.stood, row.Reason)
		return true
	}
	return busy(t, row, told) && (reason == "" || slices.ContainsFunc(told, func(e map[string]any) bool {
		if link != "" {
			return e["link"] == link && e["up"] != true
		}
		said, _ := e["reason"].(string)
		return e["node"] == row.Node && strings.Contains(said, reason)
	}))
}

func nothingMoved(row row) bool { return row.Reason == "link "+row.Link+": nothing moved for 3s" }

// busy says whether a node is called slow, or the link into it stood, because the machine, which all of them share, has no
// processor for it: a rate that it can keep is not limited by the processor. Who writes the table has it for himself.
func busy(t *testing.T, row row, told []map[string]any) bool {
	limited := 0
	for _, e := range told {
		if e["limit"] == "processor" {
			limited++
		}
	}
	yes := slack() > 0 && (strings.HasPrefix(row.Reason, "slow: processor ") && row.Link == "" || nothingMoved(row) && limited > 1)
	if yes {
		t.Logf("a busy machine: %s is %q", row.Node, row.Reason)
	}
	return yes
}

func TestStarved(t *testing.T) {
	together(t)
	if measures() {
		t.Skip("who measures has no busy machine")
	}
	const link = "a -> b"
	told := func(events ...map[string]any) []map[string]any { return events }
	back := map[string]any{"event": "node", "node": "b", "state": "serving", "reason": "came back: silent for 5s"}
	down := map[string]any{"event": "link", "link": link, "reason": "down: i/o timeout"}
	up := map[string]any{"event": "link", "link": link, "reason": "up", "up": true}
	limit := map[string]any{"event": "progress", "limit": "processor"}
	slow := row{Node: "b", Reason: "slow: processor 18 MB/s; served behind the others"}
	stood := row{Node: "b", Reason: "link a -> b: nothing moved for 3s", Link: link}
	for _, tt := range []struct {
		name         string
		scene        scene
		row          row
		told         []map[string]any
		reason, link string
		starved      bool
	}{
		{"came back, then slow", scene{}, slow, told(back), "came back", "", true},
		{"slow, and never came back", scene{}, slow, told(down), "came back", "", false},
		{"another came back", scene{}, row{Node: "a", Reason: slow.Reason}, told(back), "came back", "", false},
		{"link lost, then slow", scene{}, slow, told(down), "link", link, true},
		{"slow, and the link was up", scene{}, slow, told(up), "link", link, false},
		{"slow, and another link was lost", scene{}, slow, told(down), "link", "b -> c", false},
		{"slow for its disk", scene{}, row{Node: "b", Reason: "slow: disk 18 MB/s; served behind the others"}, told(back), "came back", "", false},
		{"slow where nothing is to be said", scene{}, slow, told(up), "", "", true},
		{"stood for as long as it was stopped", scene{stopped: 2 * time.Second, stood: 2300 * time.Millisecond}, stood, told(down), "", "", false},
		{"stood for longer", scene{stopped: 2 * time.Second, stood: 3 * time.Second}, stood, told(down), "", "", true},
		{"stood for longer, and something else is said", scene{stopped: 2 * time.Second, stood: 3 * time.Second}, row{Node: "b", Reason: "came back: silent for 5s"}, told(back), "", "", false},
		{"stood where nobody was stopped", scene{}, stood, told(down), "", "", false},
		{"stood, and the processor was the limit", scene{}, stood, told(down, limit, limit), "", "", true},
		{"stood, and the processor was the limit once", scene{}, stood, told(down, limit), "", "", false},
	} {
		if got := tt.scene.starved(t, tt.row, tt.told, tt.reason, tt.link); got != tt.starved {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
