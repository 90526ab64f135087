package identity

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const someSerial = "5f0c31a2b4c6d8e0f1a3b5c7d9ebfd0f"

func TestParseRevocation(t *testing.T) {
	for s, want := range map[string]Revocation{
		someSerial:                  {Serial: someSerial},
		strings.ToUpper(someSerial): {Serial: someSerial},
		"00" + someSerial:           {Serial: someSerial},
		"5F:0C:31:A2:B4:C6:D8:E0:F1:A3:B5:C7:D9:EB:FD:0F": {Serial: someSerial}, // openssl
		"0x2a":                                   {Serial: "2a"},
		"0x00002A":                               {Serial: "2a"},
		"n07":                                    {Name: "n07"},
		"cafe":                                   {Name: "cafe"},
		"node/cafe":                              {Role: Node, Name: "cafe"},
		"node/" + someSerial:                     {Role: Node, Name: someSerial},
		"sender/login1.example":                  {Role: Sender, Name: "login1.example"},
		"fe80::1":                                {Name: "fe80::1"},
		"2001:db8:1111:2222:3333:4444:5555:6666": {Name: "2001:db8:1111:2222:3333:4444:5555:6666"},
		"10:20:30:40:50:60:70:80":                {Name: "10:20:30:40:50:60:70:80"}, // an address, too short for a serial
	} {
		got, err := ParseRevocation(s)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", s, got, err, want)
		}
		if again, err := ParseRevocation(got.String()); err != nil || again != got {
			t.Errorf("%q as %q: %+v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "node/", "sender/", "/n07", "ca/", "ca/x", "dolly-img://c/node/n07", "0x", "0xg", "0x0", "0x-1",
		strings.Repeat("a", 41), "-n07", "n07,n08", "n[1-3]", "n07\x00", "nö"} {
		if r, err := ParseRevocation(s); err == nil {
			t.Errorf("%q was read as %+v", s, r)
		}
	}
}

func TestRevokedFile(t *testing.T) {
	for _, c := range []struct {
		text    string
		entries int
		want    string // the error
	}{
		{"", 0, ""},
		{"# nothing\n\n  # more\r\n", 0, ""},
		{someSerial + "\r\n node/n07 # stolen\nalice", 3, ""},
		{"alice\nnode n07\n", 0, `line 2: "node n07": want one serial number or name a line`},
		{"\n\nnodes/n07\n", 0, "line 3: "},
		{"#! warmer/w # gone\n#!viewer/v\nwarmer/x\n # ! viewer/y", 3, ""},
		{"#! node/n07\n", 0, "line 1: #! node/n07: want warmer/NAME or viewer/NAME"},
		{"alice\n#! warmr/w\n", 0, "line 2: "},
		{"#!\n", 0, "line 1: "},
		{"alice, bob\n", 0, "line 1: "},
		{"\ufeffalice\n", 0, "line 1: "},
	} {
		dir := keys(t, InitOptions{})
		write(t, dir+"/revoked", 0o644, []byte(c.text))
		id, err := Load(dir, Node)
		if c.want == "" {
			if err != nil || id.Revocations() != c.entries {
				t.Errorf("%q: %v", c.text, err)
			}
			continue
		}
		wantProblem(t, err, "revoked", Malformed)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	dir := keys(t, InitOptions{})
	write(t, dir+"/revoked", 0o666, []byte("alice\n"))
	_, err := Load(dir, Node)
	wantProblem(t, err, "revoked", Writable)
	os.Remove(dir + "/revoked")
	os.Mkdir(dir+"/revoked", 0o700)
	_, err = Load(dir, Node)
	wantProblem(t, err, "revoked", Unreadable)
	if entries, err := Show(dir); err != nil || len(entries[len(entries)-1].Problems) == 0 {
		t.Errorf("Show says nothing of a list that cannot be read: %v, %v", entries, err)
	}
}

// Whoever is revoked is refused by those that have the list, from either end of a connection, and
// nobody else is.
func TestRevokedHandshake(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "alice", Nodes: []string{"n07"}})
	if _, _, err := Add(dir, Sender, []string{"bob"}, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	alice, shared := load(t, dir, Sender), load(t, dir, Node)
	bob, n07 := unchecked(t, dir, "sender-bob.pem"), unchecked(t, dir, "node-n07.pem")
	for entry, out := range map[string][]*Identity{
		"":                              {},
		"alice":                         {alice},
		"SENDER/alice":                  nil, // no role
		"sender/ALICE":                  {alice},
		"node/alice":                    {},
		serial(alice.cert.Leaf):         {alice},
		serial(shared.cert.Leaf):        {shared},
		"node/n07\nbob":                 {n07, bob},
		serial(alice.ca[0]) + " # ours": {alice, bob, n07, shared}, // an authority
	} {
		write(t, dir+"/revoked", 0o644, []byte(entry))
		list, err := loadRevoked(dir)
		if out == nil {
			wantProblem(t, err, "revoked", Malformed)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		node, sender := *shared, *alice
		node.revoked, sender.revoked = list, list
		for _, who := range []*Identity{alice, bob} {
			if slices.Contains(out, who) {
				byServer(t, both(&node), who.ClientConfig(ControlProtocol, ""), "its certificate, serial "+serial(who.cert.Leaf)+", is revoked: line ")
			} else {
				accepted(t, both(&node), who.ClientConfig(ControlProtocol, ""))
			}
		}
		for _, who := range []*Identity{shared, n07} {
			if slices.Contains(out, who) {
				byServer(t, both(&node), who.ClientConfig(DataProtocol, ""), "is revoked: line ")
				byClient(t, both(who), sender.ClientConfig(ControlProtocol, "n07"), "is revoked: line ")
			} else {
				accepted(t, both(&node), who.ClientConfig(DataProtocol, ""))
				accepted(t, both(who), sender.ClientConfig(ControlProtocol, "n07"))
			}
		}
	}
}

var someDay = time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)

// revokeRig is a directory of keys with entries in its list: bob, n07, the number of the shared node
// key, nobody.
func revokeRig(t *testing.T) (dir, list string) {
	t.Helper()
	dir = keys(t, InitOptions{Sender: "alice", Nodes: []string{"n07", "n08"}})
	revoke := func(s string, want ...string) {
		t.Helper()
		r, err := ParseRevocation(s)
		if err != nil {
			t.Fatal(err)
		}
		if meant, err := Revoke(dir, []Revocation{r}, s == "nobody", someDay); err != nil || len(meant) != 1 || !slices.Equal(meant[0].Files, want) {
			t.Errorf("Revoke(%s) = %q, %v; want %q", s, meant, err, want)
		}
	}
	write(t, dir+"/revoked", 0o644, []byte("# mine\nbob")) // no end of line
	shared := serial(load(t, dir, Node).cert.Leaf)
	revoke("n07", "node-n07.pem")
	revoke("n07", "node-n07.pem")
	revoke(shared, "node.pem")
	revoke("nobody")
	return dir, "# mine\nbob\nn07  # 2026-11-28\n" + shared + "  # 2026-11-28\nnobody  # 2026-11-28\n"
}

func TestRevoke(t *testing.T) {
	dir, want := revokeRig(t)
	if got := string(content(t, dir+"/revoked")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err := Load(dir, Node)
	wantProblem(t, err, "node.pem", Revoked)
	entries, err := Show(dir)
	if err != nil {
		t.Fatal(err)
	}
	var bad, notes []string
	for _, e := range entries {
		if len(e.Problems) > 0 {
			bad = append(bad, filepath.Base(e.File))
		}
		if len(e.Notes) > 0 {
			notes = append(notes, filepath.Base(e.File))
		}
	}
	if !slices.Equal(bad, []string{"node.pem"}) || !slices.Equal(notes, []string{"node-n07.pem"}) {
		t.Errorf("Show finds wrong %q, and notes %q", bad, notes)
	}
}

// Programs that know no warmers and viewers read the lists that this one writes, and find nothing there that they do not know.
func TestListsOfEarlierPrograms(t *testing.T) {
	dir := keys(t, InitOptions{})
	now := time.Now()
	entries := []Revocation{{Role: Warmer, Name: "warmer"}, {Role: Viewer, Name: "viewer"}, {Role: Node, Name: "n07"}}
	for range 2 { // what is listed is not listed again
		if _, err := Revoke(dir, entries, true, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"revoked", "issued"} {
		text := string(content(t, dir+"/"+file))
		if strings.Count(text, "\n#! ")+strings.Count(text[:3], "#! ") != 2 {
			t.Errorf("%s: %s", file, text)
		}
		for line := range strings.Lines(text) {
			if earlier, _, _ := strings.Cut(line, "#"); strings.Contains(earlier, "warmer") || strings.Contains(earlier, "viewer") {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
	list, err := loadRevoked(dir)
	if err != nil || !slices.Equal(list.entries, entries) {
		t.Errorf("%+v, %v", list, err)
	}
	if issued, err := loadIssued(dir); err != nil || !slices.ContainsFunc(issued, func(i Issued) bool { return i.Role == Warmer }) {
		t.Errorf("%+v, %v", issued, err)
	}
	if _, err := Load(dir, Warmer); err == nil {
		t.Error("a warmer that is revoked has a key")
	}
}

// What was hardly meant is refused, and nothing is changed.
func TestRevokeRefuses(t *testing.T) {
	dir, want := revokeRig(t)
	// The only authority is not given away by mistake.
	r, err := ParseRevocation(serial(load(t, dir, Sender).ca[0]))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Revoke(dir, []Revocation{r}, true, someDay)
	wantProblem(t, err, "ca.pem", Needed)

	// With a name that nobody has, the names beside it are not revoked, either.
	_, err = Revoke(dir, []Revocation{{Name: "n08"}, {Role: Sender, Name: "n07"}}, false, someDay)
	var unknown *UnknownKeyError
	if !errors.As(err, &unknown) || unknown.Name != "n07" || string(content(t, dir+"/revoked")) != want {
		t.Errorf("%v, and the list is %q", err, content(t, dir+"/revoked"))
	}

	// A list with a mistake in it is not added to.
	write(t, dir+"/revoked", 0o644, []byte("a b\n"))
	_, err = Revoke(dir, []Revocation{{Name: "x"}}, true, someDay)
	wantProblem(t, err, "revoked", Malformed)
	if got := string(content(t, dir+"/revoked")); got != "a b\n" {
		t.Errorf("got %q", got)
	}
}

// A name that is revoked is not issued again: nobody would believe the new certificate.
func TestRevokedIsNotIssued(t *testing.T) {
	dir, _ := revokeRig(t)
	_, _, err := Add(dir, Sender, []string{"bob"}, InitOptions{})
	wantProblem(t, err, "revoked", Revoked)
	wantProblem(t, Init(dir, InitOptions{Nodes: []string{"bob"}}), "revoked", Revoked)
	if _, left, err := Renew(dir, nil, InitOptions{}); err != nil || len(left) != 1 || left[0].File != "node-n07.pem" {
		t.Errorf("left %q, %v", left, err)
	}
	_, _, err = Renew(dir, []string{"n07"}, InitOptions{})
	wantProblem(t, err, "revoked", Revoked)
	if _, err := Load(dir, Node); err != nil { // it has another number now
		t.Error(err)
	}
}

// What parses is written and read again the same.
func FuzzRevoked(f *testing.F) {
	f.Add([]byte("# list\n" + someSerial + "\nnode/n07 # x\nalice\n0x2a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseRevoked(data)
		if err != nil {
			var at *lineError
			if !errors.As(err, &at) || at.line < 1 {
				t.Errorf("no line in %v", err)
			}
			return
		}
		var text []byte
		for _, r := range list.entries {
			text = append(text, r.String()+"\n"...)
		}
		again, err := parseRevoked(text)
		if err != nil || !slices.Equal(again.entries, list.entries) {
			t.Errorf("%q became %q: %v", data, text, err)
		}
	})
}
