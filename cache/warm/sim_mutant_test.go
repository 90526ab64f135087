package warm

import (
	"slices"
	"testing"
	"time"
)

// eachAction makes what a broken controller does of what it does with each action.
func eachAction(do func(w *world, a Action) []Action) func(*world, []Action) []Action {
	return func(w *world, acts []Action) (out []Action) {
		for _, a := range acts {
			out = append(out, do(w, a)...)
		}
		return out
	}
}

// eachQuery does the same with each query.
func eachQuery(do func(w *world, q *Query)) func(*world, []Action) []Action {
	return eachAction(func(w *world, a Action) []Action {
		if ask, ok := a.(ActAsk); ok {
			for _, q := range ask.Queries {
				do(w, q)
			}
		}
		return []Action{a}
	})
}

// eachPair does something with each pair after each step.
func eachPair(do func(w *world, p *pair)) func(*world, []Action) []Action {
	return func(w *world, acts []Action) []Action {
		for _, v := range w.m.variants {
			for _, p := range v.pairs {
				do(w, p)
			}
		}
		return acts
	}
}

// brokenControllers are controllers that break a promise.
var brokenControllers = map[string]func(*world, []Action) []Action{
	"no wishes": eachQuery(func(_ *world, q *Query) { q.Wishes = nil }),
	"old digests are not wished": eachQuery(func(_ *world, q *Query) {
		q.Wishes = slices.DeleteFunc(q.Wishes, func(wish Wish) bool {
			return !slices.ContainsFunc(q.Images, func(i Question) bool { return i.Digest == wish.Digest })
		})
	}),
	"a new life pushes before it asks": eachPair(func(w *world, p *pair) {
		if w.life > 1 && w.now-w.born < time.Minute {
			p.asked, p.lacks, p.wished, p.node.away = p.v.Digest, 1, p.v.Digest, notice{}
		}
	}),
	"all are pushed to": eachAction(func(w *world, a Action) []Action {
		if p, ok := a.(ActPush); ok && w.now > 2*time.Hour {
			p.Push.Nodes = w.nodesOf["gpu"]
			return []Action{p}
		}
		return []Action{a}
	}),
	"a node is forgotten": eachAction(func(w *world, a Action) []Action {
		if p, ok := a.(ActPush); ok {
			p.Push.Nodes = slices.DeleteFunc(slices.Clone(p.Push.Nodes), func(n string) bool { return n == w.order[1].name })
			if len(p.Push.Nodes) == 0 {
				return nil
			}
			return []Action{p}
		}
		return []Action{a}
	}),
	"lookups in a loop": func(w *world, acts []Action) []Action {
		if w.now > time.Hour && w.m.entries[0].next > w.m.now.Since {
			w.m.entries[0].next = w.m.now.Since
		}
		return acts
	},
	"no backoff": eachPair(func(_ *world, p *pair) { p.next = 0 }),
	"full ones are tried again": eachPair(func(_ *world, p *pair) {
		if p.outcome == Full {
			p.room, p.needs = -1, 0
		}
	}),
	"a name that a sender has moved stays": eachPair(func(_ *world, p *pair) {
		if p.lacks == 0 && p.named != "" {
			p.named = p.v.Digest
		}
	}),
	"a name of another warmer is pushed": eachPair(func(_ *world, p *pair) {
		if p.conflict != "" {
			p.conflict, p.named = "", ""
		}
	}),
	"a conflict is known only after a push": eachPair(func(_ *world, p *pair) {
		if p.fails == 0 || p.outcome != Conflict {
			p.conflict = ""
		}
	}),
	"a name that is free again is not pushed": eachPair(func(_ *world, p *pair) {
		if p.conflict != "" {
			p.next = p.node.since + 1000*time.Hour
		}
	}),
	"one that says it has no room is pushed": eachPair(func(_ *world, p *pair) { p.lacks = min(p.lacks, 1) }),
	"one whose cache is too small is pushed": eachPair(func(_ *world, p *pair) { p.node.most = 0 }),
	"no rings end with the windows": eachAction(func(w *world, a Action) []Action {
		if _, ok := a.(ActStop); ok {
			return nil
		}
		return []Action{a}
	}),
	"nothing is asked any more": eachAction(func(w *world, a Action) []Action {
		if _, ok := a.(ActAsk); ok && w.now > 6*time.Hour {
			return nil
		}
		return []Action{a}
	}),
	"new tags are left out": func(w *world, acts []Action) []Action {
		for _, e := range w.m.entries {
			if e.Tags != "" && len(e.tags) > 1 {
				e.tags = e.tags[:1]
				w.m.rebuild()
			}
		}
		return acts
	},
	"tags that are gone are pushed": eachAction(func(w *world, a Action) []Action {
		if p, ok := a.(ActPush); ok && w.now > 6*time.Hour {
			if repository, _, _ := cutTag(p.Push.Ref); repository == simTags {
				p.Push.Ref = simTags + ":1.0"
				return []Action{p}
			}
		}
		return []Action{a}
	}),
	"the state is not saved again": eachAction(func(w *world, a Action) []Action {
		if _, ok := a.(ActSave); ok && w.m.trouble.why != "" {
			return nil
		}
		return []Action{a}
	}),
	"the state is saved in a loop": func(w *world, acts []Action) []Action {
		w.m.lastSave = -time.Hour
		return acts
	},
	"a full disk is not told": func(w *world, acts []Action) []Action {
		w.m.trouble = notice{}
		return acts
	},
}

// The checker finds a controller that breaks a promise, and nothing in the same weeks of one that does not.
func TestSimFinds(t *testing.T) {
	week := func(name string, broken func(*world, []Action) []Action) string {
		w := newWorld(28, 12, 10*time.Minute)
		w.broken = broken
		if name != "no rings end with the windows" {
			w.quiet = 40 * time.Hour // much happens in little time
		}
		return w.week()
	}
	for _, name := range []string{"", "no rings end with the windows"} {
		if wrong := week(name, nil); wrong != "" {
			t.Errorf("not broken, %q: %s", name, wrong)
		}
	}
	for name, broken := range brokenControllers {
		wrong := week(name, broken)
		t.Logf("%s: %s", name, wrong)
		if wrong == "" {
			t.Errorf("%s: not found", name)
		}
	}
}
