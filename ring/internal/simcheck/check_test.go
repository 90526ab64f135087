package simcheck

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// load reads the good history: three nodes, of which the first is killed while
// it writes, and one that held the first of two blobs.
func load(t *testing.T) []Event {
	t.Helper()
	f, err := os.Open("testdata/good.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	events, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestGood(t *testing.T) {
	events := load(t)
	for _, err := range Check(events) {
		t.Error(err)
	}
	again, err := Decode(bytes.NewReader(Encode(events)))
	if err != nil || !reflect.DeepEqual(again, events) {
		t.Errorf("encoded and read again it differs: %v", err)
	}
	if _, err := Decode(strings.NewReader(`{"t":1,"ev":"run","foo":1}`)); err == nil {
		t.Error("a line with an unknown field is read")
	}
}

// at is the first event of a kind and node from line from on.
func at(t *testing.T, events []Event, kind, node string) int {
	t.Helper()
	i := slices.IndexFunc(events, func(ev Event) bool { return ev.Kind == kind && ev.Node == node })
	if i < 0 {
		t.Fatalf("no %s of %q", kind, node)
	}
	return i
}

// Each doctored history breaks a rule and is rejected for it.
func TestDoctored(t *testing.T) {
	type events = []Event
	drop := func(kind, node string) func(*testing.T, events) events {
		return func(t *testing.T, e events) events { i := at(t, e, kind, node); return slices.Delete(e, i, i+1) }
	}
	edit := func(kind, node string, f func(*Event)) func(*testing.T, events) events {
		return func(t *testing.T, e events) events { f(&e[at(t, e, kind, node)]); return e }
	}
	repeat := func(kind, node string) func(*testing.T, events) events {
		return func(t *testing.T, e events) events { i := at(t, e, kind, node); return slices.Insert(e, i, e[i]) }
	}
	// move puts an event right before or behind another one, at its time.
	move := func(kind, node, to, toNode string, behind int) func(*testing.T, events) events {
		return func(t *testing.T, e events) events {
			i := at(t, e, kind, node)
			ev := e[i]
			e = slices.Delete(e, i, i+1)
			j := at(t, e, to, toNode)
			ev.T = e[j].T
			return slices.Insert(e, j+behind, ev)
		}
	}
	add := func(ev Event, to, toNode string, behind int) func(*testing.T, events) events {
		return func(t *testing.T, e events) events {
			j := at(t, e, to, toNode)
			ev.T = e[j].T
			return slices.Insert(e, j+behind, ev)
		}
	}
	other := strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		rule   string
		doctor func(*testing.T, events) events
	}{
		"no header":                 {RuleForm, func(_ *testing.T, e events) events { return e[1:] }},
		"cut short":                 {RuleForm, func(_ *testing.T, e events) events { return e[:len(e)-1] }},
		"time goes back":            {RuleForm, edit(Close, "n2", func(e *Event) { e.T = 1 })},
		"unknown fault":             {RuleForm, add(Event{Kind: Fault, What: "gremlins", Node: "n2"}, Close, "n2", 0)},
		"foreign row":               {RuleRows, edit(Row, "n1", func(e *Event) { e.Node = "n9" })},
		"no row":                    {RuleRows, drop(Row, "n1")},
		"two rows":                  {RuleRows, repeat(Row, "n1")},
		"unfinished row":            {RuleRows, edit(Row, "n1", func(e *Event) { e.State = "serving" })},
		"good without publishing":   {RuleGood, drop(Publish, "n2")},
		"dead but committed":        {RuleGood, edit(Row, "n1", func(e *Event) { e.State, e.Sum = "committed", "sha256:bb" })},
		"row with another digest":   {RuleGood, edit(Row, "n2", func(e *Event) { e.Sum = "sha256:" + other })},
		"published another blob":    {RuleGood, edit(Publish, "n3", func(e *Event) { e.Sums[0] = "sha256:" + other })},
		"published twice":           {RuleOnce, repeat(Publish, "n3")},
		"published early":           {RuleEarly, move(Publish, "n3", SourceDone, "", 0)},
		"published of a bad source": {RuleEarly, func(t *testing.T, e events) events { e[at(t, e, SourceDone, "")].Kind = SourceBad; return e }},
		"published without commit":  {RuleWhole, edit(Offer, "n3", func(e *Event) { e.Held[0] = false })},
		"exit 0 with a failed node": {RuleExit, edit(End, "", func(e *Event) { e.Exit = 0 })},
		"never ended":               {RuleEnds, drop(End, "")},
		"ended too late": {RuleEnds, func(t *testing.T, e events) events {
			for i := at(t, e, End, ""); i < len(e); i++ {
				e[i].T += time.Hour
			}
			return e
		}},
		"everything too late": {RuleEnds, func(t *testing.T, e events) events { // the liar may end late, and the others not
			e = slices.Insert(e, 1, Event{Kind: Fault, What: Liar, Node: "n1"})
			for i := at(t, e, Commit, "n2"); i < len(e); i++ {
				e[i].T += 6 * time.Minute
			}
			return e
		}},
		"failed without cause": {RuleUntouched, func(t *testing.T, e events) events {
			e = slices.Delete(e, at(t, e, Publish, "n2"), at(t, e, Publish, "n2")+1)
			e[at(t, e, Row, "n2")].State = "failed"
			return e
		}},
		"blamed on another's death":  {RuleUntouched, edit(Row, "n3", func(e *Event) { e.State = "failed" })},
		"more than the source has":   {RuleBounds, edit(Write, "n1", func(e *Event) { e.N = 5000 })},
		"written after the close":    {RuleOrder, move(Write, "n3", Close, "n3", 1)},
		"written after the commit":   {RuleOrder, add(Event{Kind: Write, Node: "n2", Blob: 1, Off: 10, N: 0}, Commit, "n2", 2)},
		"a gap":                      {RuleOrder, edit(Write, "n1", func(e *Event) { e.Off = 100 })},
		"begun twice":                {RuleOrder, repeat(Begin, "n1")},
		"closed while it is written": {RuleOrder, drop(Commit, "n3")},
		"stale bytes":                {RuleBytes, edit(Write, "n1", func(e *Event) { e.Bad = true })},
		"wrong digest made durable":  {RuleSum, edit(Commit, "n3", func(e *Event) { e.Sum = "sha256:" + other })},
		"half made durable":          {RuleSum, edit(Commit, "n3", func(e *Event) { e.N-- })},
		"more than the server may feed": {RuleUntouched, func(t *testing.T, e events) events {
			e[0].Direct = 1 // but nobody was cut off
			i := at(t, e, Row, "n3")
			e[i].State, e[i].Code = "failed", "unreached"
			return e
		}},
		"one of two names is served": {RuleTwins, add(Event{Kind: Fault, What: Twin, Node: "n2", Peer: "n1"}, Offer, "n1", 0)},
		"never closed":               {RuleClosed, drop(Close, "n3")},
		"closed twice":               {RuleClosed, repeat(Close, "n3")},
	} {
		t.Run(name, func(t *testing.T) {
			bad := Check(c.doctor(t, load(t)))
			if len(bad) == 0 {
				t.Fatal("accepted")
			}
			found := false
			for _, err := range bad {
				var v Violation
				if !errors.As(err, &v) {
					t.Fatalf("%T", err)
				}
				found = found || v.Rule == c.rule
				t.Log(err)
			}
			if !found {
				t.Errorf("rejected, but not for %q", c.rule)
			}
		})
	}
}

// A node is excused only by what happened to it, and the runs with faults the
// ring does not survive yet are judged by the other rules.
func TestExcuses(t *testing.T) {
	failed := func(t *testing.T, faults []Event, code, note string, weak ...string) []error {
		e := load(t)
		i := at(t, e, Publish, "n2")
		e = slices.Delete(e, i, i+1)
		row := at(t, e, Row, "n2")
		e[row].State, e[row].Code, e[row].Note = "failed", code, note
		e[0].Weak = weak
		for i := range faults {
			faults[i].Kind, faults[i].T = Fault, e[at(t, e, Begin, "n2")].T
		}
		return Check(slices.Insert(e, at(t, e, Begin, "n2"), faults...))
	}
	for name, c := range map[string]struct {
		fault  Event
		weak   []string
		excuse bool
	}{
		"own death":          {Event{What: Freeze, Node: "n2"}, nil, true},
		"another's death":    {Event{What: Freeze, Node: "n3"}, nil, false},
		"slow disk":          {Event{What: SlowDisk, Node: "n2"}, nil, false},
		"link cut":           {Event{What: CutLink, Node: "n2", Peer: "n1"}, nil, false},
		"link cut, not yet":  {Event{What: CutLink, Node: "n2", Peer: "n1"}, []string{CutLink}, true},
		"another not yet":    {Event{What: CutLink, Node: "n2", Peer: "n1"}, []string{Lie}, false},
		"early control loss": {Event{What: ResetControl, Node: "n2"}, nil, true},
		"interrupt":          {Event{What: Interrupt}, nil, true},
	} {
		bad := failed(t, []Event{c.fault}, "", "", c.weak...)
		if (len(bad) == 0) != c.excuse {
			t.Errorf("%s: %v", name, bad)
		}
	}
	// Who is between two liars is given up, and only he.
	const between = "changed-twice"
	one, other, again := Event{What: Lie, Node: "n1"}, Event{What: Rot, Node: "n3"}, Event{What: Rot, Node: "n1"}
	lies := []Event{{What: Liar, Node: "n1", Peer: "n3"}, {What: Liar, Node: "n3", Peer: "n1"}}
	const noAgreement = "does not agree with a second node on what the link between them carries"
	for _, c := range []struct {
		faults     []Event
		code, note string
		excuse     bool
	}{
		{[]Event{one, other}, between, "", true},
		{[]Event{one, other}, "changed", "", false},
		{[]Event{one}, between, "", false},
		{[]Event{one, again}, between, "", false},
		{lies, between, "", true},
		{lies, "stuck", noAgreement, true},
		{lies, "stuck", "hangs", false},
		{lies[:1], "stuck", noAgreement, false},
	} {
		if bad := failed(t, c.faults, c.code, c.note); (len(bad) == 0) != c.excuse {
			t.Errorf("%v, %q %q: %v", c.faults, c.code, c.note, bad)
		}
	}
}
