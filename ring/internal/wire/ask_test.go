package wire

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Questions and wishes have bounds, which are refused on both ends.
func TestAskBounds(t *testing.T) {
	some := digest.FromString("some")
	many := make([]Image, MaxImages+1)
	for i := range many {
		many[i].Digest = some
	}
	held := func(edit func(h *Holding)) Message {
		h := Holding{Digest: some, State: HoldsAll}
		edit(&h)
		return &Holds{Images: []Holding{h}}
	}
	for name, c := range map[string]struct {
		m    Message
		good bool
	}{
		"most images":     {&Ask{Images: many[1:]}, true},
		"too many images": {&Ask{Images: many}, false},
		"nothing":         {&Ask{Images: []Image{{}}}, false},
		"longest name":    {&Ask{Images: []Image{{Name: strings.Repeat("a", MaxName)}}}, true},
		"long name":       {&Ask{Images: []Image{{Name: strings.Repeat("a", MaxName+1)}}}, false},
		"no digest":       {&Ask{Images: []Image{{Digest: "sha256:x"}}}, false},
		"another digest":  {&Ask{Images: []Image{{Digest: "md5:d41d8cd98f00b204e9800998ecf8427e"}}}, false},
		"wish":            {&Want{"o", []Wish{{"", some, false, MaxKeep}}}, true},
		"nameless owner":  {&Want{"", nil}, false},
		"long owner":      {&Want{strings.Repeat("o", MaxOwner+1), nil}, false},
		"wish for a name": {&Want{"o", []Wish{{"a", "", false, 0}}}, false},
		"keeps too many":  {&Want{"o", []Wish{{"a", some, false, MaxKeep + 1}}}, false},
		"keeps less":      {&Want{"o", []Wish{{"a", some, false, -1}}}, false},
		"held":            {held(func(*Holding) {}), true},
		"unknown size":    {held(func(h *Holding) { h.Bytes, h.Lacks = -1, -1 }), true},
		"negative size":   {held(func(h *Holding) { h.Bytes = -2 }), false},
		"negative lack":   {held(func(h *Holding) { h.Lacks = -2 }), false},
		"another state":   {held(func(h *Holding) { h.State = "warm" }), false},
		"names no digest": {held(func(h *Holding) { h.Named = "x" }), false},
		"an owned name":   {held(func(h *Holding) { h.Name, h.Named, h.NameOwner = "a", some, strings.Repeat("o", MaxOwner) }), true},
		"owned, no name":  {held(func(h *Holding) { h.Named, h.NameOwner = some, "o" }), false},
		"owned, no image": {held(func(h *Holding) { h.Name, h.NameOwner = "a", "o" }), false},
		"owned by a long": {held(func(h *Holding) { h.Name, h.Named, h.NameOwner = "a", some, strings.Repeat("o", MaxOwner+1) }), false},
		"many owners":     {held(func(h *Holding) { h.Owners = make([]string, MaxOwners+1) }), false},
		"an empty owner":  {held(func(h *Holding) { h.Owners = []string{""} }), false},
		"long reason":     {held(func(h *Holding) { h.Why = strings.Repeat("a", maxReason+1) }), false},
		"unknown room":    {&Holds{Free: -1}, true},
		"negative room":   {&Holds{Free: -2}, false},

		"removes":             {&Tend{Do: DoRemove, Names: []string{strings.Repeat("a", MaxName)}}, true},
		"removes nothing":     {&Tend{Do: DoRemove}, false},
		"removes a long name": {&Tend{Do: DoRemove, Names: []string{strings.Repeat("a", MaxName+1)}}, false},
		"removes no name":     {&Tend{Do: DoRemove, Names: []string{""}}, false},
		"removes too many":    {&Tend{Do: DoRemove, Names: slices.Repeat([]string{"a"}, MaxImages+1)}, false},
		"pins with a limit":   {&Tend{Do: DoPin, Names: []string{"a"}, Max: 1}, false},
		"collects":            {&Tend{Do: DoCollect, Grace: 1}, true},
		"collects a name":     {&Tend{Do: DoCollect, Names: []string{"a"}}, false},
		"collects below 0":    {&Tend{Do: DoCollect, Free: -1}, false},
		"formats":             {&Tend{Do: "format"}, false},
		"done below 0":        {&Tending{Done: -1}, false},
		"no blob":             {&Tended{Images: []TendedImage{{Why: "no blob"}}}, true},
		"nothing tended":      {&Tended{Images: []TendedImage{{}}}, false},
		"tended below 0":      {&Tended{Waits: -1}, false},
		"many want it":        {&Tended{Images: []TendedImage{{Name: "a", Owners: make([]string, MaxOwners+1)}}}, false},
	} {
		if _, err := Encode(c.m); (err == nil) != c.good {
			t.Errorf("%s: encoded: %v", name, err)
		}
		body, err := json.Marshal(c.m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(append([]byte{c.m.kind()}, body...)); (err == nil) != c.good {
			t.Errorf("%s: decoded: %v", name, err)
		}
	}
}
