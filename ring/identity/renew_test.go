package identity

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAdd(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "admin"})
	before := listing(t, dir)
	add := func(role Role, names []string, made, there string) error {
		t.Helper()
		m, l, err := Add(dir, role, names, InitOptions{})
		if strings.Join(m, " ") != made || strings.Join(l, " ") != there {
			t.Errorf("Add(%q) made %q, there were %q; want %q, %q", names, m, l, made, there)
		}
		return err
	}
	if err := add(Sender, []string{"login1", "login1"}, "sender-login1.pem", ""); err != nil {
		t.Fatal(err)
	}
	if err := add(Node, []string{"n1", "10.0.0.1"}, "node-n1.pem node-10.0.0.1.pem", ""); err != nil {
		t.Fatal(err)
	}
	// Again, with a longer list.
	was := listing(t, dir)["sender-login1.pem"]
	if err := add(Sender, []string{"login1", "login2"}, "sender-login2.pem", "sender-login1.pem"); err != nil {
		t.Fatal(err)
	}
	if listing(t, dir)["sender-login1.pem"] != was {
		t.Error("a key that was there is replaced")
	}
	wantProblem(t, add(Sender, []string{"Admin"}, "", ""), "sender.pem", Exists)
	if err := add(Sender, []string{"login3", "a/b"}, "", ""); err == nil {
		t.Error("a name that is none")
	}
	after := listing(t, dir)
	for name, data := range before {
		if after[name] != data && name != "issued" {
			t.Errorf("%s was changed", name)
		}
		delete(after, name)
	}
	if made, want := slices.Sorted(maps.Keys(after)), []string{"node-10.0.0.1.pem", "node-n1.pem", "sender-login1.pem", "sender-login2.pem"}; !slices.Equal(made, want) {
		t.Errorf("made %q, want %q", made, want)
	}
	// Installed as sender.pem elsewhere, it sends.
	elsewhere := t.TempDir()
	write(t, elsewhere+"/ca.pem", 0o644, content(t, dir+"/ca.pem"))
	write(t, elsewhere+"/sender.pem", 0o600, content(t, dir+"/sender-login1.pem"))
	login := load(t, elsewhere, Sender)
	if got := accepted(t, both(load(t, dir, Node)), login.ClientConfig(ControlProtocol, "")); got != (Peer{Sender, "login1", "test"}) {
		t.Errorf("seen as %v", got)
	}
	os.Remove(dir + "/ca.key")
	wantProblem(t, add(Node, []string{"n2"}, "", ""), "ca.key", Missing)
}

// What is there and no good for its name is an error, and all others are made.
func TestAddOverBadFiles(t *testing.T) {
	dir := keys(t, InitOptions{Nodes: []string{"n1", "n2", "n3", "n5"}})
	old := keys(t, InitOptions{Now: time.Now().Add(-48 * time.Hour), Validity: time.Hour, Nodes: []string{"n4"}})
	for name, data := range map[string][]byte{
		"node-n1.pem": []byte("hello"),
		"node-n2.pem": content(t, dir+"/node-n3.pem"),
		"node-n4.pem": content(t, old+"/node-n4.pem"),
		"revoked":     []byte("0x" + serial(unchecked(t, dir, "node-n5.pem").cert.Leaf) + "\nn6\n"),
	} {
		write(t, dir+"/"+name, 0o600, data)
	}
	for name, want := range map[string]struct {
		file    string
		problem Problem
	}{"n1": {"node-n1.pem", Malformed}, "n2": {"node-n2.pem", Exists}, "n4": {"node-n4.pem", Expired}, "n5": {"node-n5.pem", Revoked}, "n6": {"revoked", Revoked}} {
		before := listing(t, dir)
		made, there, err := Add(dir, Node, []string{"n3", name, "new-" + name}, InitOptions{})
		wantProblem(t, err, want.file, want.problem)
		if !slices.Equal(made, []string{"node-new-" + name + ".pem"}) || !slices.Equal(there, []string{"node-n3.pem"}) {
			t.Errorf("with %s in the way: made %q, there were %q", name, made, there)
		}
		for file, data := range listing(t, dir) {
			if old, ok := before[file]; ok && old != data && file != "issued" {
				t.Errorf("%s was changed", file)
			}
		}
	}
}

func TestRenew(t *testing.T) {
	old := time.Now().Add(-4 * 365 * day)
	dir := keys(t, InitOptions{Sender: "admin", Nodes: []string{"n1", "n2"}, Now: old, Validity: 4*365*day + 10*day})
	if _, _, err := Add(dir, Sender, []string{"login1"}, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	if ends := node.Ending(time.Now()); len(ends) != 1 || !strings.Contains(ends[0].String(time.Now()), "node.pem ends on ") ||
		!strings.HasSuffix(ends[0].String(time.Now()), ", in 9 days") {
		t.Errorf("ending: %v", ends)
	}
	if os.Geteuid() == 0 { // nobody else can give a file away
		if err := os.Chown(dir+"/sender.pem", 1234, 5678); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if info, err := os.Stat(dir + "/sender.pem"); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1234 || info.Sys().(*syscall.Stat_t).Gid != 5678 {
				t.Errorf("whose key was renewed cannot read it any more: %v", err)
			}
		}()
	}
	before := listing(t, dir)
	n1 := serial(unchecked(t, dir, "node-n1.pem").cert.Leaf)
	renewed, left, err := Renew(dir, []string{"n1", "sender"}, InitOptions{})
	want := []Renewal{{"sender.pem", Issued{Serial: serial(sender.cert.Leaf), Role: Sender, Name: "admin"}}, {"node-n1.pem", Issued{Serial: n1, Role: Node, Name: "n1"}}}
	for i := range renewed {
		renewed[i].Was.From, renewed[i].Was.Until = time.Time{}, time.Time{}
	}
	if err != nil || left != nil || !slices.Equal(renewed, want) {
		t.Fatalf("renewed %q, left %q, %v, want %q", renewed, left, err, want)
	}
	after := listing(t, dir)
	for name := range after {
		if changed := after[name] != before[name]; changed != (name == "issued" || slices.ContainsFunc(renewed, func(r Renewal) bool { return r.File == name })) {
			t.Errorf("%s changed: %v", name, changed)
		}
		if after[name][:10] != before[name][:10] {
			t.Errorf("%s: mode %s, was %s", name, after[name][:10], before[name][:10])
		}
	}
	if renewed, _, err = Renew(dir, nil, InitOptions{}); err != nil || len(renewed) != 7 {
		t.Fatalf("renewed %q, %v", renewed, err)
	}
	newSender, newNode := load(t, dir, Sender), load(t, dir, Node)
	if len(newNode.Ending(time.Now())) > 0 || node.cert.PrivateKey.(ed25519.PrivateKey).Equal(newNode.cert.PrivateKey) {
		t.Error("not renewed")
	}
	if newSender.Peer != sender.Peer {
		t.Errorf("renewed as %v, was %v", newSender.Peer, sender.Peer)
	}
	// Hosts follow one by one: each works with each.
	for _, s := range []*Identity{sender, newSender} {
		for _, n := range []*Identity{node, newNode} {
			accepted(t, both(n), s.ClientConfig(ControlProtocol, "n1"))
		}
	}
	if _, _, err := Renew(dir, []string{"n1", "n3"}, InitOptions{}); err == nil || !strings.Contains(err.Error(), `"n3"`) {
		t.Errorf("a name that is not there: %v", err)
	}
}

// A renewal that fails leaves every key as it was.
func TestRenewFails(t *testing.T) {
	dir := keys(t, InitOptions{Nodes: []string{"n1"}})
	write(t, dir+"/node-n1.pem", 0o600, []byte("hello"))
	before := listing(t, dir)
	_, _, err := Renew(dir, nil, InitOptions{})
	wantProblem(t, err, "node-n1.pem", Malformed)
	if after := listing(t, dir); !maps.Equal(before, after) {
		t.Error("something was changed")
	}
	foreign := keys(t, InitOptions{Cluster: "other"})
	write(t, dir+"/node-n1.pem", 0o600, content(t, foreign+"/node.pem"))
	_, _, err = Renew(dir, nil, InitOptions{})
	wantProblem(t, err, "node-n1.pem", Foreign)
}

// One authority replaces another without a moment at which a host refuses another one.
func TestRenewCA(t *testing.T) {
	now := time.Now()
	dir := keys(t, InitOptions{Nodes: []string{"n1"}, Now: now.Add(20*day - caValidity), Validity: caValidity})
	ca := func() []byte { return content(t, dir+"/ca.pem") }
	first := ca()
	_, _, err := Renew(dir, nil, InitOptions{}) // what it signs would not last longer
	wantProblem(t, err, "ca.pem", EndsTooSoon)
	sender, node := load(t, dir, Sender), load(t, dir, Node)
	step := func(what string, sender, node *Identity) {
		t.Helper()
		if r := shake(t, both(node), sender.ClientConfig(ControlProtocol, "")); r.server != nil || r.client != nil {
			t.Errorf("%s: server %v, client %v", what, r.server, r.client)
		}
	}
	if err := RenewCA(dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	wide := ca()
	if !strings.Contains(string(wide), strings.TrimSpace(string(first))) || len(wide) < len(first)*3/2 {
		t.Errorf("ca.pem does not hold both: %s", wide)
	}
	wideSender, wideNode := load(t, dir, Sender), load(t, dir, Node)
	for _, s := range []*Identity{sender, wideSender} {
		for _, n := range []*Identity{node, wideNode} {
			step("while ca.pem is copied", s, n)
		}
	}
	if _, _, err := Renew(dir, nil, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	newSender, newNode := load(t, dir, Sender), load(t, dir, Node)
	for _, s := range []*Identity{wideSender, newSender} {
		for _, n := range []*Identity{wideNode, newNode} {
			step("while the certificates are copied", s, n)
		}
	}
	byServer(t, both(node), newSender.ClientConfig(ControlProtocol, ""), "unknown authority") // why ca.pem goes first

	entries, err := Show(dir)
	if err != nil || len(entries[1].Warnings) != 1 || !strings.Contains(entries[1].Warnings[0].Error(), "there is another") {
		t.Errorf("%+v, %v", entries, err)
	}
	// Once the old authority has ended, it goes with the next renewal.
	if _, _, err := Renew(dir, nil, InitOptions{Now: now.Add(40 * day)}); err != nil {
		t.Fatal(err)
	}
	if file, err := readCA(dir); err != nil || len(file.certs) != 1 {
		t.Errorf("%v, %v", file, err)
	}
}

// A key that is replaced is at no time missing, nor half written: what is there is one or the other.
func TestReplaceIsOneStep(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/b", 0o600, []byte("old"))
	if err := os.Mkdir(dir+"/a", 0o700); err != nil { // no file takes its place
		t.Fatal(err)
	}
	err := replace(dir, []newFile{{"b", 0o600, []byte("new")}, {"a", 0o600, []byte("new")}})
	var path *os.LinkError
	if !errors.As(err, &path) {
		t.Errorf("%v", err)
	}
	left, err := filepath.Glob(dir + "/.*")
	if err != nil || len(left) > 0 || string(content(t, dir+"/b")) != "new" {
		t.Errorf("left %q, %v", left, err)
	}
	var perm *fs.PathError
	if err := replace(dir+"/none", []newFile{{"b", 0o600, nil}}); !errors.As(err, &perm) {
		t.Errorf("%v", err)
	}
}

func TestEnd(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for after, want := range map[time.Duration]string{
		-day:           "x ended on 2026-11-27",
		0:              "x ended on 2026-11-28",
		time.Hour:      "x ends on 2026-11-28, in less than a day",
		36 * time.Hour: "x ends on 2026-11-30, in 1 day",
		30*day - 1:     "x ends on 2026-12-28, in 29 days",
	} {
		e := End{"x", now.Add(after)}
		if got := e.String(now); got != want || !EndsSoon(e.After, now) {
			t.Errorf("%v: %q, want %q", after, got, want)
		}
	}
	if EndsSoon(now.Add(30*day), now) {
		t.Error("30 days are not less than 30 days")
	}
}
