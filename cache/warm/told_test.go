package warm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// toldSnapshot is what someSnapshot is told as. Programs of others read it, so a change of it is a new version.
const toldSnapshot = `{"version":1,"at":"2026-11-29T20:05:00Z","refused":"line 7","refused_since":"2026-11-29T20:01:00Z","trouble":"full","trouble_since":"2026-11-29T20:02:00Z",` +
	`"groups":[{"name":"gpu","nodes":2,"stale":"exit status 1","since":"2026-11-29T20:03:00Z"}],` +
	`"images":[{"ref":"docker://registry.example/torch:25.10","platform":"linux/amd64","name":"registry.example/torch:25.10",` +
	`"digest":"sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437","state":"warming","warm":1,"nodes":[{"node":"gpu1","state":"warm"},` +
	`{"node":"gpu2","state":"failed","reason":"lost","behind":"sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4","since":"2026-11-29T09:12:00Z","next":"2026-11-29T20:07:00Z"}],` +
	`"rate":112000000,"left_ns":180000000000,"stale":"429","since":"2026-11-29T19:00:00Z","found":"2026-11-29T18:50:00Z","next":"2026-11-29T20:10:00Z","last_warm":"2026-11-29T20:03:00Z"},` +
	`{"ref":"/images/chem.sif","state":"blocked","reason":"not found yet","warm":0,"nodes":[]}]}` + "\n"

func someSnapshot() *Snapshot {
	at := func(hour, minute int) time.Time { return time.Date(2026, 11, 29, hour, minute, 0, 0, time.UTC) }
	return &Snapshot{
		At: at(20, 5), Refused: "line 7", RefusedSince: at(20, 1), Trouble: "full", TroubleSince: at(20, 2),
		Groups: []GroupStatus{{Name: "gpu", Nodes: 2, Stale: "exit status 1", Since: at(20, 3)}},
		Images: []ImageStatus{
			{Ref: "docker://registry.example/torch:25.10", Platform: "linux/amd64", Name: "registry.example/torch:25.10", Digest: digest.FromString("new"), State: ImageWarming, Warm: 1,
				Nodes: []NodeStatus{{Node: "gpu1", State: NodeWarm}, {"gpu2", NodeFailed, "lost", digest.FromString("old"), at(9, 12), at(20, 7)}},
				Rate:  112e6, Left: 3 * time.Minute, Stale: "429", Since: at(19, 0), Found: at(18, 50), Next: at(20, 10), LastWarm: at(20, 3)},
			{Ref: "/images/chem.sif", State: ImageBlocked, Reason: "not found yet", Nodes: []NodeStatus{}},
		},
	}
}

// The form is as it is documented, what is told is read back, and what is wrong or of another version is refused.
func TestSnapshotTold(t *testing.T) {
	want := someSnapshot()
	data, err := want.Encode()
	if err != nil || string(data) != toldSnapshot {
		t.Fatalf("%v\n%s\n%s", err, data, toldSnapshot)
	}
	if got, err := ParseSnapshot(data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, wrong := range [][2]string{
		{`"warming"`, `"cold"`}, {`"failed"`, `"lost"`}, {`"warm":1`, `"warm":2`}, {`"gpu2"`, `"gpu1"`}, {`"gpu2"`, `""`}, {`sha256:c`, `sha256:`}, {`"rate":`, `"rate":-`},
		{`"nodes":[]`, `"nodes":null`}, {`"reason"`, `"why"`}, {`"groups"`, `"images"`}, {`:"registry.example/torch:25.10"`, `:""`}, {"}\n", "}{}"}, {"]}\n", ""},
	} {
		text := strings.Replace(toldSnapshot, wrong[0], wrong[1], 1)
		if s, err := ParseSnapshot([]byte(text)); err == nil || text == toldSnapshot {
			t.Errorf("%s for %s: %+v", wrong[1], wrong[0], s)
		}
	}
	var other *VersionError
	if _, err := ParseSnapshot([]byte(`{"version":2,"new":1}`)); !errors.As(err, &other) || other.Version != 2 {
		t.Error(err)
	}
}

// What is read is written as the same.
func FuzzParseSnapshot(f *testing.F) {
	f.Add([]byte(toldSnapshot))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSnapshot(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			return // A year of more than four digits.
		}
		if s2, err := ParseSnapshot(again); err != nil || !reflect.DeepEqual(again, must(s2.Encode())) {
			t.Errorf("%s: %v", again, err)
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// What was never found is told with the nodes that are to have it, each in its first group, since nobody may take it for warm.
func TestSnapshotUnfound(t *testing.T) {
	list, err := Parse([]byte("[nodes.a]\nlist = \"n[1-2]\"\n[nodes.b]\nlist = \"n[2-3]\"\nplatform = \"linux/arm64\"\n[[image]]\nref = \"docker://r.example/a:1\"\nnodes = [\"a\", \"b\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := Now{Wall: time.Unix(1e9, 0)}
	m := New(now, list, nil, 1)
	nodes := func(i ImageStatus) (names string) {
		for _, n := range i.Nodes {
			names += n.Node + " " + string(n.State) + " "
		}
		return names
	}
	s := m.Snapshot(now)
	if len(s.Images) != 1 || nodes(s.Images[0]) != "n1 unknown n2 unknown n3 unknown " || s.Images[0].State != ImageBlocked {
		t.Errorf("%+v", s.Images)
	}
	for _, a := range m.Step(now, EvTick{}) {
		if l, ok := a.(ActLookup); ok {
			found := Found{Name: "r.example/a:1", Digest: digest.FromString("a"), Bytes: 1}
			m.Step(now, EvFound{Lookup: l.Lookup, Tags: []Tag{{Ref: l.Lookup.Image.Ref, List: found.Digest, Variants: []Found{found}}}})
		}
	}
	s = m.Snapshot(now)
	if len(s.Images) != 2 || nodes(s.Images[0]) != "n1 unknown n2 unknown " || nodes(s.Images[1]) != "n3 unknown " || s.Images[1].Platform != "linux/arm64" {
		t.Errorf("%+v", s.Images)
	}
}
