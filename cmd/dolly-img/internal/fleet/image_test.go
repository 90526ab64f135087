package fleet

import (
	"reflect"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

var one, two = digest.FromString("one"), digest.FromString("two")

// held is what a node says of an image of the name n: that which was asked about, what the name leads to, and how much there is.
func held(d, named digest.Digest, state ring.HoldState) ring.HeldImage {
	return ring.HeldImage{Name: "n", Digest: d, Named: named, State: state}
}

func says(images ...ring.HeldImage) ring.Reply {
	return ring.Reply{Holdings: ring.Holdings{Images: images}}
}

func saysMore(images ...ring.HeldImage) ring.Reply {
	r := says(images...)
	r.More = 1
	return r
}

// What a node is for an image follows from what it says, and from nothing else.
func TestOf(t *testing.T) {
	other := ring.HeldImage{Name: "m", Digest: one, Named: one, State: ring.HoldsAll}
	bare := ring.HeldImage{Digest: one, State: ring.HoldsAll}
	for what, is := range map[string]struct {
		reply ring.Reply
		name  string
		want  digest.Digest
		state State
	}{
		"all of it":                      {says(held(one, one, ring.HoldsAll)), "n", one, Warm},
		"all of it, behind another name": {says(other, held(one, one, ring.HoldsAll)), "n", one, Warm},
		"a part":                         {says(held(one, one, ring.HoldsPart)), "n", one, Partly},
		"a part without a name":          {says(held(one, "", ring.HoldsPart)), "n", one, Partly},
		"a name that leads to nothing":   {says(held(one, one, ring.HoldsNone)), "n", one, Partly},
		"another digest":                 {says(held(one, two, ring.HoldsAll)), "n", one, Behind},
		"another digest, unasked":        {says(held(two, two, ring.HoldsAll)), "n", one, Behind},
		"asked for two, this second":     {says(held(two, one, ring.HoldsNone), held(one, one, ring.HoldsAll)), "n", one, Warm},
		"no name":                        {says(held(one, "", ring.HoldsAll)), "n", one, Unnamed},
		"nothing":                        {says(held(one, "", ring.HoldsNone)), "n", one, Missing},
		"not a word":                     {says(other), "n", one, Missing},
		"not a word, of many":            {saysMore(other), "n", one, Unsaid},
		"of many, and said":              {saysMore(held(one, "", ring.HoldsNone)), "n", one, Missing},
		"of many, and warm":              {saysMore(held(one, one, ring.HoldsAll)), "n", one, Warm},
		"by its digest":                  {says(bare), "", one, Warm},
		"by another digest":              {says(bare), "", two, Missing},
		"whatever most have":             {says(held(two, two, ring.HoldsAll)), "n", "", Warm},
		"nobody has the name":            {says(other), "n", "", Missing},
		"away":                           {ring.Reply{State: ring.Unreachable}, "n", one, Away},
		"refused":                        {ring.Reply{State: ring.Refused}, "n", one, Refused},
		"failed":                         {ring.Reply{State: ring.Failed}, "n", one, Failed},
	} {
		i := Of([]ring.Reply{is.reply}, is.name, is.want)
		if i.Nodes[0].State != is.state || (i.Warm() == 1) != (is.state == Warm) {
			t.Errorf("%s: %+v, want %s", what, i.Nodes[0], is.state)
		}
	}
}

// A node whose name is of a warmer is in conflict for a digest that other warmers want, and only they.
func TestDisputes(t *testing.T) {
	says := func(d, named digest.Digest, owner string, owners ...string) ring.HeldImage {
		h := held(d, named, ring.HoldsAll)
		h.NameOwner, h.Owners = owner, owners
		return h
	}
	for what, is := range map[string]struct {
		first, other ring.HeldImage
		state        State
	}{
		"another one's, who wants its own": {says(one, one, "a", "a"), says(two, two, "b", "b"), Conflict},
		"wanted where it is not":           {says(one, "", ""), says(one, two, "b", "a", "local"), Conflict},
		"both want it":                     {says(one, one, "a", "a"), says(one, two, "b", "a", "b"), Behind},
		"behind its owner":                 {says(one, one, "a", "a"), says(two, two, "a", "a"), Behind},
		"nobody's":                         {says(one, one, "a", "a"), says(two, two, "", "b"), Behind},
		"wanted by no warmer":              {says(one, one, "", "local"), says(two, two, "b", "b"), Behind},
		"warm, whoever wants it":           {says(one, one, "a", "a"), says(one, one, "b", "b"), Warm},
	} {
		replies := []ring.Reply{{Holdings: ring.Holdings{Images: []ring.HeldImage{is.first}}}, {Holdings: ring.Holdings{Images: []ring.HeldImage{is.other}}}}
		if i := Of(replies, "n", one); i.Nodes[1].State != is.state {
			t.Errorf("%s: %+v, want %s", what, i.Nodes[1], is.state)
		}
	}
	// A controller says that it is in conflict, until the node says that the name is free.
	for owner, state := range map[string]State{"b": Conflict, "": Behind} {
		l := &warm.ImageStatus{Name: "n", Digest: one, Nodes: []warm.NodeStatus{{Node: "n1", State: warm.NodeConflict}}}
		replies := []ring.Reply{{Node: "n1", Holdings: ring.Holdings{Images: []ring.HeldImage{says(one, two, owner)}}}}
		if i := OfListed(replies, l, nil); i.Nodes[0].State != state {
			t.Errorf("listed, of %q: %+v", owner, i.Nodes[0])
		}
	}
}

// The digest of a name is that of most nodes, and of two with as many always the same one.
func TestCommonest(t *testing.T) {
	a, b := min(one, two), max(one, two)
	leads := func(list ...digest.Digest) (replies []ring.Reply) {
		for _, d := range list {
			replies = append(replies, says(held(d, d, ring.HoldsAll)))
		}
		return append(replies, ring.Reply{State: ring.Unreachable}, says(ring.HeldImage{Name: "m", Digest: b, Named: b}), says(held(b, "", ring.HoldsAll)))
	}
	for _, c := range []struct {
		replies []ring.Reply
		want    digest.Digest
	}{
		{leads(), ""}, {leads(a), a}, {leads(b), b}, {leads(b, a), a}, {leads(b, a, b), b},
		{append(leads(a), says(held(b, b, ring.HoldsAll), held(b, b, ring.HoldsAll))), a}, // a node counts once
	} {
		if got := Of(c.replies, "n", "").Digest; got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if got := Names(leads(a, b)); !reflect.DeepEqual(got, []string{"m", "n"}) {
		t.Errorf("names: %v", got)
	}
}

// A row says whether a node did anything, and that a name is on none of the nodes.
func TestRows(t *testing.T) {
	did := func(images ...string) ring.TendReply {
		r := ring.TendReply{}
		for _, name := range images {
			r.Images = append(r.Images, ring.TendedImage{Name: name})
		}
		return r
	}
	freed := ring.TendReply{Tended: ring.Tended{Blobs: 1}}
	over := freed
	over.Over = true
	away := ring.TendReply{State: ring.Unreachable}
	removes := ring.Work{Do: ring.Removes, Names: []string{"app:v1", "docker://nginx"}}
	for what, c := range map[string]struct {
		w       ring.Work
		replies []ring.TendReply
		want    []ring.State
	}{
		"removed":            {removes, []ring.TendReply{did("localhost/app:v1"), did("docker.io/library/nginx:latest"), did(), away}, []ring.State{ring.Committed, ring.Committed, ring.Held, ring.Unreachable}},
		"one name nowhere":   {removes, []ring.TendReply{did("localhost/app:v1"), did(), away}, []ring.State{ring.Failed, ring.Failed, ring.Unreachable}},
		"nobody answers":     {removes, []ring.TendReply{away}, []ring.State{ring.Unreachable}},
		"collected":          {ring.Work{Do: ring.Collects}, []ring.TendReply{freed, did(), over}, []ring.State{ring.Committed, ring.Held, ring.Failed}},
		"verified":           {ring.Work{Do: ring.Verifies}, []ring.TendReply{freed, did("bad")}, []ring.State{ring.Held, ring.Failed}},
		"pinned, and was so": {ring.Work{Do: ring.Pins, Names: []string{"a"}}, []ring.TendReply{did("a"), did()}, []ring.State{ring.Committed, ring.Held}},
	} {
		var got []ring.State
		for _, row := range rows(c.replies, c.w) {
			got = append(got, row.State)
			if (row.State == ring.Failed) != (row.Reason != "") {
				t.Errorf("%s: %+v", what, row)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
