//go:build !race

package coordinator

// setMutants are of sets of leaves, and of comparing before the start. The explorer has to find each.
var setMutants = []mutant{
	{"a claim that differs is held against the link", []edit{
		{"suspects.go",
			"own := n.holdings.owns(m.Blob, m.Good, m.Offset)",
			"own := m.Good < 0 && n.holdings.owns(m.Blob, m.Good, m.Offset)"},
		{"suspects.go",
			" || c.spared(ev.Node, m)",
			""},
	}},
	{"a claim that differs stays in the set", []edit{
		{"../member/blob.go",
			"		b.set.Remove(off - 1)\n",
			""},
	}},
	{"a link brings also what its receiver holds", []edit{
		{"feeders.go",
			"n.feed.needs, n.feed.leaves, n.pace.slow",
			"n.feed.needs, nil, n.pace.slow"},
	}},
	{"the server leaves out what some node has", []edit{
		{"compare.go",
			"all[b].Keep(set)",
			"_ = set"},
	}},
	{"who does not compare is waited for", []edit{
		{"compare.go",
			"case !waits || !moves || p.late(c.size, c.now):",
			"case !waits:"},
	}},
	{"what was compared counts whatever its mark", []edit{
		{"../member/compare.go",
			"if c.own[c.judged] == k.sum {",
			"if c.own[c.judged] != k.sum || k.off > 0 {"},
	}},
}

// scenarioMutants are those that break no promise, only a rule. The scenarios have to find each.
var scenarioMutants = []mutant{
	{"slow nodes are not waited for twice as long as the quickest took", []edit{
		{"compare.go",
			"> 2*float64(size)/c.rate",
			"> 0"},
	}},
	{"slow nodes are waited for as long as they get on", []edit{
		{"compare.go",
			"return c.rate > 0 && ",
			"return c.rate < 0 && "},
	}},
	{"who had little to compare is as quick as if it had compared all", []edit{
		{"compare.go",
			"c.comparing.ended(min(ev.Bytes, c.size), c.now)",
			"c.comparing.ended(c.size, c.now)"},
	}},
	{"a node that stands still while it compares is waited for", []edit{
		{"compare.go",
			"moves = moves || c.now-n.compared.moved < timings.hung",
			"moves = true"},
	}},
	{"COMPARE is not said again", []edit{
		{"commit.go",
			"if n.phase == phReady && n.compared.waits() {",
			"if n.phase < phReady {"},
	}},
	{"who begins when an update has started gets no marks", []edit{
		{"join.go",
			"if c.comparing.begun {",
			"if c.comparing.read && n.phase < phReady {"},
	}},
	{"a second COMPARED counts", []edit{
		{"compare.go",
			"if !n.compared.waits() || n.phase",
			"if n.phase"},
	}},
	{"a node that knows no sets feeds one that has some", []edit{
		{"feeders.go",
			"if len(n.feed.leaves) > 0 {",
			"if len(n.feed.needs) > 9 {"},
	}},
}
