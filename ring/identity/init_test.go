package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// keys makes keys of cluster "test" in a new directory.
func keys(t *testing.T, opts InitOptions) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if opts.Cluster == "" {
		opts.Cluster = "test"
	}
	if err := Init(dir, opts); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listing returns name, mode and content of each file in dir.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = info.Mode().String() + " " + string(content(t, filepath.Join(dir, e.Name())))
	}
	return files
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, mode fs.FileMode, data ...[]byte) {
	t.Helper()
	os.Remove(path)
	if err := os.WriteFile(path, bytes.Join(data, nil), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // umask
		t.Fatal(err)
	}
}

func wantProblem(t *testing.T, err error, file string, problem Problem) {
	t.Helper()
	var keyErr *KeyError
	if !errors.As(err, &keyErr) || keyErr.Problem != problem || filepath.Base(keyErr.File) != file {
		t.Fatalf("got error %v, want %s: %s", err, file, problem)
	}
	if !strings.Contains(err.Error(), keyErr.File) || !strings.Contains(err.Error(), string(problem)) || strings.Contains(err.Error(), "\n") {
		t.Errorf("message does not say what and where on one line: %q", err)
	}
}

func TestInit(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "admin", Nodes: []string{"node1", "10.0.0.1", "fe80::1"}})
	var modes []string
	for name, data := range listing(t, dir) {
		modes = append(modes, data[:10]+" "+name)
	}
	slices.Sort(modes)
	want := []string{"-rw------- ca.key", "-rw------- node-10.0.0.1.pem", "-rw------- node-fe80::1.pem", "-rw------- node-node1.pem",
		"-rw------- node.pem", "-rw------- sender.pem", "-rw------- viewer.pem", "-rw------- warmer.pem", "-rw-r--r-- ca.pem", "-rw-r--r-- issued"}
	if !slices.Equal(modes, want) {
		t.Errorf("made %q, want %q", modes, want)
	}
	for role, want := range map[Role]Peer{Sender: {Sender, "admin", "test"}, Node: {Node, "", "test"}, Warmer: {Warmer, "warmer", "test"}, Viewer: {Viewer, "viewer", "test"}} {
		id, err := Load(dir, role)
		if err != nil || id.Peer != want {
			t.Errorf("Load(%s) = %v, %v, want %v", role, id, err, want)
		}
	}
	other := keys(t, InitOptions{})
	if a, b := content(t, filepath.Join(dir, "ca.key")), content(t, filepath.Join(other, "ca.key")); bytes.Equal(a, b) {
		t.Error("two authorities have the same key")
	}
}

func TestInitRandomCluster(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		dir := t.TempDir()
		if err := Init(dir, InitOptions{}); err != nil {
			t.Fatal(err)
		}
		id, err := Load(dir, Node)
		if err != nil || len(id.Cluster) != 8 || seen[id.Cluster] {
			t.Errorf("cluster %q, %v", id.Cluster, err)
		}
		seen[id.Cluster] = true
	}
}

func TestInitLater(t *testing.T) {
	dir := keys(t, InitOptions{})
	before := listing(t, dir)
	wantProblem(t, Init(dir, InitOptions{}), "ca.pem", Exists)
	if err := Init(dir, InitOptions{Nodes: []string{"n1", "n2", "n1"}}); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, Init(dir, InitOptions{Nodes: []string{"n3", "n2"}}), "node-n2.pem", Exists)
	if err := Init(dir, InitOptions{Cluster: "other", Nodes: []string{"n3"}}); err == nil {
		t.Error("issued a certificate of another cluster")
	}
	after := listing(t, dir)
	if len(after) != len(before)+2 {
		t.Errorf("files %d, then %d", len(before), len(after))
	}
	for name, data := range before {
		if after[name] != data && name != "issued" {
			t.Errorf("%s was changed", name)
		}
	}
	os.Remove(filepath.Join(dir, "sender.pem"))
	os.Remove(filepath.Join(dir, "viewer.pem")) // as an earlier version leaves it
	if err := Init(dir, InitOptions{Sender: "again"}); err != nil {
		t.Fatal(err)
	}
	if id, err := Load(dir, Viewer); err != nil || id.Name != "viewer" {
		t.Errorf("issued later: %v, %v", id, err)
	}
	if id, err := Load(dir, Sender); err != nil || id.Name != "again" {
		t.Errorf("issued again: %v, %v", id, err)
	}
	os.Remove(filepath.Join(dir, "ca.key"))
	wantProblem(t, Init(dir, InitOptions{Nodes: []string{"n4"}}), "ca.key", Missing)
	wantProblem(t, Init(dir, InitOptions{}), "ca.pem", Exists)
}

// Whatever is in the way, Init leaves the directory as it was.
func TestInitLeavesNothing(t *testing.T) {
	for _, name := range []string{"ca.key", "sender.pem", "node.pem", "node-b.pem"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, name), 0o644, []byte("mine"))
		wantProblem(t, Init(dir, InitOptions{Nodes: []string{"a", "b"}}), name, Exists)
		if files := listing(t, dir); len(files) != 1 || files[name] != "-rw-r--r-- mine" {
			t.Errorf("with %s in the way, left %v", name, files)
		}
		// The same when it appears after the check.
		files := []newFile{{"ca.pem", 0o644, nil}, {name, 0o600, []byte("new")}}
		wantProblem(t, place(dir, files), name, Exists)
		if files := listing(t, dir); len(files) != 1 || files[name] != "-rw-r--r-- mine" {
			t.Errorf("with %s in the way, left %v", name, files)
		}
	}
	dir := filepath.Join(t.TempDir(), "new")
	for _, opts := range []InitOptions{
		{Cluster: "a/b"}, {Cluster: "-a"}, {Nodes: []string{"../x"}}, {Nodes: []string{""}}, {Nodes: []string{"a b"}},
		{Nodes: []string{".x"}}, {Sender: "a/b"}, {Validity: -1},
	} {
		if err := Init(dir, opts); err == nil {
			t.Errorf("Init(%+v) succeeded", opts)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("Init(%+v) left %s", opts, dir)
		}
	}
}

func TestLoadProblems(t *testing.T) {
	now := time.Now()
	foreign := keys(t, InitOptions{})
	for _, c := range []struct {
		name    string
		change  func(dir string)
		opts    InitOptions
		file    string
		problem Problem
		kind    string // and what it is about
	}{
		{name: "no ca.pem", change: func(d string) { os.Remove(d + "/ca.pem") }, file: "ca.pem", problem: Missing, kind: "no-ca"},
		{name: "no node.pem", change: func(d string) { os.Remove(d + "/node.pem") }, file: "node.pem", problem: Missing, kind: "no-node-key"},
		{name: "a directory", change: func(d string) { os.Remove(d + "/node.pem"); os.Mkdir(d+"/node.pem", 0o700) }, file: "node.pem", problem: Unreadable},
		{name: "a loop", change: func(d string) { os.Remove(d + "/node.pem"); os.Symlink("node.pem", d+"/node.pem") }, file: "node.pem", problem: Unreadable},
		{name: "group may read", change: func(d string) { os.Chmod(d+"/node.pem", 0o640) }, file: "node.pem", problem: TooOpen, kind: "key-open"},
		{name: "others may write", change: func(d string) { os.Chmod(d+"/node.pem", 0o602) }, file: "node.pem", problem: TooOpen, kind: "key-open"},
		{name: "empty", change: func(d string) { os.Truncate(d+"/node.pem", 0) }, file: "node.pem", problem: Malformed},
		{name: "no PEM", change: func(d string) { write(t, d+"/node.pem", 0o600, []byte("hello")) }, file: "node.pem", problem: Malformed},
		{name: "huge", change: func(d string) { os.Truncate(d+"/node.pem", 1<<40) }, file: "node.pem", problem: Malformed},
		{name: "cut", change: func(d string) { os.Truncate(d+"/node.pem", 300) }, file: "node.pem", problem: Malformed},
		{name: "no key", change: func(d string) { write(t, d+"/node.pem", 0o644, content(t, d+"/ca.pem")) }, file: "node.pem", problem: WrongRole},
		{name: "ca is no authority", change: func(d string) { write(t, d+"/ca.pem", 0o600, content(t, d+"/node.pem")) }, file: "ca.pem", problem: WrongRole},
		{name: "a sender's", change: func(d string) { os.Rename(d+"/sender.pem", d+"/node.pem") }, file: "node.pem", problem: WrongRole},
		{name: "another's key", change: func(d string) {
			cert, _, _ := bytes.Cut(content(t, d+"/node.pem"), []byte("-----BEGIN PRIVATE"))
			write(t, d+"/node.pem", 0o600, cert, content(t, d+"/ca.key"))
		}, file: "node.pem", problem: WrongKey},
		{name: "foreign", change: func(d string) { write(t, d+"/ca.pem", 0o644, content(t, foreign+"/ca.pem")) }, file: "node.pem", problem: Foreign, kind: "key-foreign node.pem"},
		{name: "expired", opts: InitOptions{Now: now.Add(-48 * time.Hour), Validity: time.Hour}, file: "node.pem", problem: Expired, kind: "key-ended node.pem"},
		{name: "ca expired", opts: InitOptions{Now: now.Add(-11 * 365 * day), Validity: time.Hour}, file: "node.pem", problem: Expired},
		{name: "not yet", opts: InitOptions{Now: now.Add(48 * time.Hour)}, file: "node.pem", problem: NotYetValid, kind: "key-not-yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := keys(t, c.opts)
			if c.change != nil {
				c.change(dir)
			}
			_, err := Load(dir, Node)
			wantProblem(t, err, c.file, c.problem)
			if kind, about := errkind.Of(err); !strings.HasPrefix(fmt.Sprint(kind, " ", strings.Join(about, " ")), c.kind) {
				t.Errorf("kind of %v is %q %q, want %q", err, kind, about, c.kind)
			}
		})
	}
}

// Keys are valid for a clock that is almost a day behind.
func TestBackdate(t *testing.T) {
	dir := keys(t, InitOptions{Now: time.Now().Add(23 * time.Hour)})
	if _, err := Load(dir, Sender); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	home := t.TempDir()
	a, b := keys(t, InitOptions{}), keys(t, InitOptions{})
	t.Setenv("XDG_CONFIG_HOME", home)
	defer func(old string) { systemDir = old }(systemDir)
	systemDir = filepath.Join(home, "etc")
	user := filepath.Join(home, "dolly-img", "keys")

	check := func(explicit, env, want string) {
		t.Helper()
		t.Setenv("DOLLY_IMG_KEYS", env)
		got, err := Find(explicit)
		var missing *NotFoundError
		switch {
		case want != "" && (got != want || err != nil):
			t.Errorf("got %q, %v, want %q", got, err, want)
		case want == "" && !errors.As(err, &missing):
			t.Errorf("got %q, %v, want a NotFoundError", got, err)
		}
	}
	check("", "", "")
	check(a, b, a)
	check("", b, b)
	check(home, b, "") // what is asked for is not replaced by something else
	check("", home, "")
	if err := Init(user, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	check("", "", user)
	if err := Init(systemDir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	check("", "", systemDir)
	systemDir = user
	_, err := Find(home)
	if err == nil || !strings.Contains(err.Error(), home) || fmt.Sprint(errkind.Of(err)) != "keys-none[]" {
		t.Errorf("got %v", err)
	}
}

func TestShow(t *testing.T) {
	dir := keys(t, InitOptions{Sender: "admin", Nodes: []string{"n1"}})
	other := keys(t, InitOptions{})
	write(t, dir+"/ca.pem", 0o644, content(t, dir+"/ca.pem"), content(t, other+"/ca.pem"))
	write(t, dir+"/node.pem", 0o644, content(t, dir+"/node.pem"))
	write(t, dir+"/node-bad.pem", 0o600, []byte("hello"))
	entries, err := Show(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		line := filepath.Base(e.File) + " " + e.Role + " " + e.Cluster + " " + e.Name
		if e.Problems != nil {
			line += " !"
		}
		got = append(got, line)
		if e.Fingerprint != "" && (len(e.Fingerprint) != 64 || e.NotAfter.Before(e.NotBefore)) {
			t.Errorf("entry %+v", e)
		}
	}
	want := []string{"ca.pem ca test ", "ca.pem ca test ", "ca.key ca  ", "sender.pem sender test admin", "node.pem node test  !",
		"node-bad.pem    !", "node-n1.pem node test n1", "warmer.pem warmer test warmer", "viewer.pem viewer test viewer"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if _, err := Show(t.TempDir()); err == nil {
		t.Error("showed an empty directory")
	}
	os.Remove(dir + "/ca.pem")
	entries, err = Show(dir)
	if err != nil || len(entries[0].Problems) == 0 {
		t.Errorf("without ca.pem: %+v, %v", entries, err)
	}
}
