package identity

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The list has every certificate that was ever issued; what an earlier version made is added.
func TestIssued(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "alice", Nodes: []string{"n1"}})
	os.Remove(dir + "/issued") // as an earlier version leaves it
	ever := map[string]Peer{}
	see := func(names ...string) {
		t.Helper()
		for _, name := range names {
			file, err := read(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			peer, err := certPeer(file.certs[0])
			if err != nil {
				t.Fatal(err)
			}
			peer.Cluster = ""
			ever[serial(file.certs[0])] = peer
		}
	}
	all := []string{"ca.pem", "sender.pem", "node.pem", "node-n1.pem", "warmer.pem", "viewer.pem"}
	see(all...)
	if _, _, err := Renew(dir, nil, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	see(all...)
	if _, _, err := Add(dir, Node, []string{"n2"}, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	see("node-n2.pem")
	os.Remove(dir + "/node-n2.pem")
	if err := RenewCA(dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	see("ca.pem")
	if err := Init(dir, InitOptions{Nodes: []string{"n3"}}); err != nil {
		t.Fatal(err)
	}
	see("node-n3.pem")
	list, err := loadIssued(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if want, ok := ever[i.Serial]; !ok || want.Role != i.Role || want.Name != i.Name || !i.From.Before(i.Until) {
			t.Errorf("listed %v, want %v", i, want)
		}
		delete(ever, i.Serial)
	}
	if len(ever) > 0 {
		t.Errorf("not listed: %v", ever)
	}
}

// Certificates whose files are gone are shown behind the files, and can be revoked.
func TestIssuedWithoutFiles(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "alice", Nodes: []string{"n1"}})
	old := serial(unchecked(t, dir, "node-n1.pem").cert.Leaf)
	if _, _, err := Renew(dir, nil, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Add(dir, Node, []string{"n2"}, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	os.Remove(dir + "/node-n2.pem")
	r, err := ParseRevocation(old)
	if err != nil {
		t.Fatal(err)
	}
	meant, err := Revoke(dir, []Revocation{r, {Name: "n2"}}, false, time.Now())
	if err != nil || len(meant[0].Issued) != 1 || meant[0].Issued[0].Name != "n1" || len(meant[1].Issued) != 1 || meant[1].Files != nil {
		t.Errorf("revoked %+v, %v", meant, err)
	}
	entries, err := Show(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.File == "" {
			got = append(got, e.State+" "+e.Role+" "+e.Name)
		}
	}
	if want := []string{"issued sender alice", "issued node ", "revoked node n1", "issued warmer warmer", "issued viewer viewer", "revoked node n2"}; !slices.Equal(got, want) {
		t.Errorf("shown %q, want %q", got, want)
	}
}

// A list that cannot be read is said, and nothing is issued that it would lack.
func TestIssuedUnreadable(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "alice", Nodes: []string{"n1"}})
	write(t, dir+"/issued", 0o644, []byte("0x1 node n1\n"))
	before := listing(t, dir)
	_, _, err := Add(dir, Node, []string{"n9"}, InitOptions{})
	wantProblem(t, err, "issued", Malformed)
	_, _, err = Renew(dir, nil, InitOptions{})
	wantProblem(t, err, "issued", Malformed)
	wantProblem(t, RenewCA(dir, InitOptions{}), "issued", Malformed)
	wantProblem(t, Init(dir, InitOptions{Nodes: []string{"n9"}}), "issued", Malformed)
	if after := listing(t, dir); len(after) != len(before) || after["node.pem"] != before["node.pem"] || after["ca.pem"] != before["ca.pem"] {
		t.Error("something was issued")
	}
	entries, err := Show(dir)
	if last := entries[len(entries)-1]; err != nil || len(last.Problems) != 1 || !strings.Contains(last.Problems[0], "line 1: 3 words") {
		t.Errorf("Show says %+v, %v", last, err)
	}
}

// What parses is written and read again the same.
func FuzzIssued(f *testing.F) {
	f.Add([]byte("# SERIAL ROLE NAME FROM UNTIL\n" + someSerial + " node n07 2026-11-27T12:00:00Z 2031-11-27T12:00:00Z\n" +
		"2a sender alice 2026-11-27T12:00:00Z 2031-11-27T12:00:00Z # x\n1 ca - 0000-01-01T00:00:00Z 9999-12-31T23:59:59Z\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseIssued(data)
		if err != nil {
			var at *lineError
			if !errors.As(err, &at) || at.line < 1 {
				t.Errorf("no line in %v", err)
			}
			return
		}
		var text []byte
		for _, i := range list {
			text = append(text, i.String()+"\n"...)
		}
		again, err := parseIssued(text)
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%q became %q: %v", data, text, err)
		}
	})
}
