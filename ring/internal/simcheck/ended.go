package simcheck

import "strings"

func good(state string) bool { return state == "committed" || state == "held" }

// ended judges what can be said at the end.
func (j *judge) ended() {
	if j.end == nil {
		j.broken(RuleEnds, "the run has no end")
		return
	}
	if j.end.T > j.bound+j.ending {
		j.broken(RuleEnds, "ended after %v, the bound is %v", j.end.T, j.bound+j.ending)
	}
	all := true
	for _, name := range j.head.Nodes {
		n := j.nodes[name]
		state := ""
		if len(n.rows) != 1 {
			j.broken(RuleRows, "%s has %d rows", name, len(n.rows))
		} else {
			state = n.rows[0].State
			if !good(state) && state != "failed" && state != "refused" && state != "unreachable" {
				j.broken(RuleRows, "%s ends as %q", name, state)
			}
		}
		if n.stored > j.bound && !n.liar {
			j.broken(RuleEnds, "%s has everything after %v, the bound is %v", name, n.stored, j.bound)
		}
		all = all && good(state) && (n.liar || n.published == 1 && n.right)
		if good(state) && !n.liar {
			switch {
			case n.published == 0:
				j.broken(RuleGood, "%s is %s and published nothing", name, state)
			case !n.right:
				j.broken(RuleGood, "%s is %s and published other bytes than the source's", name, state)
			case n.rows[0].Sum != j.head.Blobs[len(j.head.Blobs)-1].Sum:
				j.broken(RuleGood, "%s is %s with digest %q", name, state, n.rows[0].Sum)
			}
		}
		if n.published > 0 && !n.right {
			j.broken(RuleGood, "%s published other bytes than the source's", name)
		}
		// Of two links on which bytes were changed nobody can tell that both other ends did it,
		// unless it is the same one: who is between two liars is given up.
		// So it is where the two ends of a link do not agree on what it carries.
		between := len(j.liars) > 1 && (n.code() == "changed-twice" || n.code() == "stuck" && strings.Contains(n.note(), "agree with a second node"))
		// Of those whom no node reaches the server feeds so many as it may.
		alone := j.cut && j.head.Direct > 0 && n.code() == "unreached"
		if j.serverLived && !j.weak && len(n.harm) == 0 && !good(state) && !between && !alone {
			j.broken(RuleUntouched, "nothing happened to %s, and it ends as %s: %s", name, state, n.note())
		}
		for i, p := range n.procs {
			if p.closed > 1 || !p.killed && p.closed != p.opened {
				j.broken(RuleClosed, "%s, process %d: asked %d times, closed %d times", name, i, p.opened, p.closed)
			}
		}
	}
	for _, t := range j.twins {
		machine, name := j.nodes[t[0]], j.nodes[t[1]]
		if name.good() || j.faults == 1 && (machine.good() || machine.published > 0) {
			j.broken(RuleTwins, "%s and %s are one machine: %s, %s", t[0], t[1], machine.note(), name.note())
		}
	}
	if (j.end.Exit == 0) != all {
		j.broken(RuleExit, "exit status %d, every node good: %v", j.end.Exit, all)
	}
}

// good reports whether the node has a good row.
func (n *node) good() bool { return len(n.rows) == 1 && good(n.rows[0].State) }

func (n *node) code() string {
	if len(n.rows) == 0 {
		return ""
	}
	return n.rows[0].Code
}

func (n *node) note() string {
	if len(n.rows) == 0 {
		return ""
	}
	return n.rows[0].Note
}
