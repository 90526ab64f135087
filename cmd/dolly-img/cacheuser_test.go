package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// lab is a directory that all users can enter, with the program, keys, and the cache of a daemon.
type lab struct {
	t   *testing.T
	dir string
}

func newLab(t *testing.T) *lab {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a command as another user")
	}
	dir, err := os.MkdirTemp("", "dolly-img-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t, dir}
	l.check(os.Chmod(dir, 0o755))
	l.check(identity.Init(l.path("keys"), identity.InitOptions{}))
	path, err := exec.LookPath("dolly-img")
	l.check(err)
	from, err := os.Open(path)
	l.check(err)
	defer from.Close()
	to, err := os.OpenFile(l.path("dolly-img"), os.O_WRONLY|os.O_CREATE, 0o755)
	l.check(err)
	_, err = io.Copy(to, from)
	l.check(err)
	l.check(to.Close())
	return l
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// run runs dolly-img as a user and a group without any other; 0 is root.
func (l *lab) run(id uint32, args ...string) (out string, code int) {
	l.t.Helper()
	cmd := exec.Command(l.path("dolly-img"), args...)
	cmd.Dir = "/"
	cmd.Env = []string{fmt.Sprintf("HOME=%s%d", l.path("home"), id), "DOLLY_IMG_KEYS=" + l.path("keys")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// daemon starts one with this policy.
func (l *lab) daemon(policy string) *launch.Process {
	l.t.Helper()
	l.check(os.WriteFile(l.path("keys/policy.toml"), []byte(policy), 0o600))
	cmd := exec.Command(l.path("dolly-img"), "daemon", "--keys", l.path("keys"), "--cache", l.path("cache"), "--listen", "127.0.0.1:0")
	p, err := launch.Start(l.t.Context(), cmd)
	l.check(err)
	l.t.Cleanup(p.Kill)
	return p
}

// awaitChange returns a func that returns when the file was changed since.
func (l *lab) awaitChange(path string) func() {
	l.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	l.check(err)
	f := os.NewFile(uintptr(fd), "inotify")
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB)
	l.check(err)
	return func() {
		l.t.Helper()
		defer f.Close()
		l.check(f.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err := f.Read(make([]byte, 4096))
		l.check(err)
	}
}

const (
	someone = 65534
	another = 65533
)

// A job's user looks into the cache of the daemon, and what he starts counts as used.
func TestCacheOfOthers(t *testing.T) {
	l := newLab(t)
	p := l.daemon("")
	l.check(sif.Create(l.path("a.sif"), strings.NewReader("content"), sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "test", Deterministic: true}))
	if out, code := l.run(0, "push", l.path("a.sif"), "--nodes", p.Addr); code != 0 {
		t.Fatal(out)
	}
	uses, err := filepath.Glob(l.path("cache/used/*"))
	if err != nil || len(uses) != 1 {
		t.Fatal(uses, err)
	}
	old := time.Now().Add(-48 * time.Hour)
	l.check(os.Chtimes(uses[0], old, old))
	changed := l.awaitChange(uses[0])
	out, code := l.run(someone, "cache", "path", "a", "--cache", l.path("cache"))
	if code != 0 || !strings.HasPrefix(out, l.path("cache/blobs/sha256/")) {
		t.Errorf("path: %d, %s", code, out)
	}
	changed()
	if info, err := os.Stat(uses[0]); err != nil || time.Since(info.ModTime()) > time.Hour {
		t.Errorf("the use was not noted: %v, %v", info.ModTime(), err)
	}
	if out, code := l.run(someone, "cache", "ls", "--cache", l.path("cache")); code != 0 || !strings.HasPrefix(out, "REFERENCE") {
		t.Errorf("ls: %d, %s", code, out)
	}
	if out, code := l.run(someone, "cache", "rm", "a", "--cache", l.path("cache")); code != 1 || !strings.Contains(out, "hint: run it as root") {
		t.Errorf("rm: %d, %s", code, out)
	}
	l.verify()
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	// Where no daemon listens the path is printed all the same.
	if out, code := l.run(someone, "cache", "path", "a", "--cache", l.path("cache")); code != 0 {
		t.Errorf("without a daemon: %d, %s", code, out)
	}
}

// verify: a user may verify, and finds what is wrong without changing anything.
func (l *lab) verify() {
	l.t.Helper()
	if out, code := l.run(someone, "cache", "verify", "--cache", l.path("cache")); code != 0 || !strings.Contains(out, "3 blobs") {
		l.t.Errorf("verify: %d, %s", code, out)
	}
	out, _ := l.run(0, "cache", "path", "a", "--cache", l.path("cache"))
	blob := strings.TrimSpace(out)
	good, err := os.ReadFile(blob)
	l.check(err)
	l.check(os.WriteFile(blob, append([]byte("X"), good[1:]...), 0o444))
	before := l.files()
	if out, code := l.run(someone, "cache", "verify", "--cache", l.path("cache")); code != 1 || !strings.Contains(out, "bad ") {
		l.t.Errorf("verify of a bad blob: %d, %s", code, out)
	}
	if after := l.files(); after != before {
		l.t.Errorf("a user's verify changed\n%s\nto\n%s", before, after)
	}
	l.check(os.WriteFile(blob, good, 0o444))
}

func (l *lab) files() string {
	out, err := exec.Command("find", l.path("cache"), "-printf", "%p %s %T@ %m\n").CombinedOutput()
	l.check(err)
	return string(out)
}

// With a mode and a group only the group looks in, and a restart is enough.
func TestCacheMode(t *testing.T) {
	l := newLab(t)
	p := l.daemon("")
	l.check(sif.Create(l.path("a.sif"), strings.NewReader("content"), sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "test", Deterministic: true}))
	if out, code := l.run(0, "push", l.path("a.sif"), "--nodes", p.Addr); code != 0 {
		t.Fatal(out)
	}
	l.check(p.Stop(time.Minute))
	p = l.daemon("[cache]\nmode = \"0640\"\ngroup = \"65534\"\n")
	if out, code := l.run(0, "push", l.path("a.sif"), "--nodes", p.Addr, "--name", "localhost/b:latest"); code != 0 {
		t.Fatal(out)
	}
	for _, name := range []string{"a", "b"} {
		out, code := l.run(someone, "cache", "path", name, "--cache", l.path("cache"))
		if code != 0 {
			t.Errorf("a user of the group: %d, %s", code, out)
		}
		out, code = l.run(another, "cache", "path", name, "--cache", l.path("cache"))
		if code != 1 || !strings.Contains(out, "permission denied") || !strings.Contains(out, "hint: the daemon of this node decides who may read its cache") {
			t.Errorf("a user of another group: %d, %s", code, out)
		}
	}
	for _, id := range []uint32{someone, another} {
		cmd := exec.Command("cat", l.path("cache/lock"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("user %d can open the lock, and hold it: %s", id, out)
		}
	}
	l.check(p.Stop(time.Minute))
	p = l.daemon("[cache]\nmode = \"0644\"\n")
	if out, code := l.run(another, "cache", "path", "a", "--cache", l.path("cache")); code != 0 {
		t.Errorf("readable by all again: %d, %s", code, out)
	}
	l.check(p.Stop(time.Minute))
}

// A user who has a cache of his own, as after a push from a registry, finds the images of the node all the same, and
// is told which cache he looked at.
func TestCacheBesideNodes(t *testing.T) {
	l := newLab(t)
	p := l.daemon("")
	l.check(sif.Create(l.path("a.sif"), strings.NewReader("content"), sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "test", Deterministic: true}))
	if out, code := l.run(0, "push", l.path("a.sif"), "--nodes", p.Addr); code != 0 {
		t.Fatal(out)
	}
	l.check(p.Stop(time.Minute))
	own := l.path("own")
	l.check(os.Mkdir(own, 0o755))
	l.check(exec.Command("cp", "-a", l.path("cache"), own+"/dolly-img").Run())
	l.check(exec.Command(l.path("dolly-img"), "cache", "rm", "a", "--cache", own+"/dolly-img").Run())
	// The cache of the node has its place in a namespace of its own.
	as := func(id string, args ...string) (stdout, stderr string, code int) {
		t.Helper()
		const script = `set -e
mount -t tmpfs none /var/lib
mkdir /var/lib/dolly-img
cp -a "$1" /var/lib/dolly-img/cache
shift
exec setpriv --reuid "$1" --regid "$1" --clear-groups "$2" cache "$3" $4`
		args = append([]string{"-m", "sh", "-c", script, "sh", l.path("cache"), id, l.path("dolly-img")}, args...)
		cmd := exec.Command("unshare", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_CACHE_HOME=" + own, "HOME=/"}
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	stdout, stderr, code := as("65534", "path", "a")
	if code != 0 || !strings.HasPrefix(stdout, "/var/lib/dolly-img/cache/blobs/") ||
		stderr != "note: a is not in your own cache, "+own+"/dolly-img; this is the one in the node's, /var/lib/dolly-img/cache\n" {
		t.Errorf("path: %d, %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = as("65534", "path", "b")
	if code != 1 || strings.Contains(stderr, "note: ") || !strings.Contains(stderr, "cache "+own+"/dolly-img: \"b\"") {
		t.Errorf("path of what neither has: %d, %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = as("65534", "ls", "")
	if code != 0 || strings.Contains(stdout, "localhost/a") || stderr != "note: this is your own cache, "+own+"/dolly-img; --cache /var/lib/dolly-img/cache lists that of the node\n" {
		t.Errorf("ls: %d, %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = as("0", "ls", "")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "localhost/a") {
		t.Errorf("ls of root: %d, %s%s", code, stdout, stderr)
	}
}

// A user who pushed a SIF has no cache by that: he still sees the node's, and may make one of his own.
func TestPushLeavesNoCache(t *testing.T) {
	l := newLab(t)
	p := l.daemon("")
	l.check(os.Mkdir(l.path("home65534"), 0o700))
	l.check(os.Chown(l.path("home65534"), someone, someone))
	l.check(filepath.WalkDir(l.path("keys"), func(path string, _ os.DirEntry, err error) error {
		return cmp.Or(err, os.Chown(path, someone, someone))
	}))
	l.check(sif.Create(l.path("a.sif"), strings.NewReader("content"), sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "test", Deterministic: true}))
	old := time.Now().Add(-time.Hour) // else its digest would not be recorded
	l.check(os.Chtimes(l.path("a.sif"), old, old))
	l.check(os.Chmod(l.path("a.sif"), 0o644))
	// Earlier versions kept the record of its digest where the user's cache is.
	l.check(os.MkdirAll(l.path("home65534/.cache/dolly-img/digests"), 0o755))
	l.check(filepath.WalkDir(l.path("home65534"), func(path string, _ os.DirEntry, err error) error {
		return cmp.Or(err, os.Chown(path, someone, someone))
	}))
	for range 2 {
		if out, code := l.run(someone, "push", l.path("a.sif"), "--nodes", p.Addr); code != 0 {
			t.Fatal(out)
		}
	}
	if out, code := l.run(someone, "cache", "ls"); code != 0 && strings.Contains(out, "not a cache") {
		t.Errorf("%d, %s", code, out)
	}
	if names, _ := os.ReadDir(l.path("home65534/.cache/dolly-img")); len(names) > 0 {
		t.Errorf("in the user's cache: %v", names)
	}
}
