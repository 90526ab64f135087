package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

func TestMain(m *testing.M) {
	// With the race detector a program sleeps for a second when it ends, lest it cuts off a report of another
	// thread. Here some 500 programs end, most of them at once.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=20")
	}
	// Scripts wait more than they compute: more of them at once than there are cores, unless a flag says how many.
	flag.Set("test.parallel", "4")
	testscript.Main(m, map[string]func(){"dolly-img": main, "dolly": main})
}

// TestScript runs the commands as a user does. Beside testscript's own commands there
// are
//
//	status N dolly-img …     the command ends with exit status N
//	node NAME ARGS…          starts dolly-img ARGS --listen 127.0.0.1:0; $NAME is its address,
//	                         $NAME_mirror that of its mirror, $NAME_metrics that of its metrics; NAME=PROGRAM starts another program
//	build FILE COMMIT        makes the program as it was at a commit of this repository
//	end NAME [N]             ends it with SIGTERM, or waits for it, and its status is N
//	reload NAME REGEXP       sends it SIGHUP, and waits for a line of its log
//	logged NAME N REGEXP     waits until its log has N such lines
//	fetch STATUS URL [METHOD] asks over HTTP and prints the answer, which has to have the status
//	cable NAME NODE          $NAME is an address of the node whose first data link breaks after a megabyte
//	scrape NAME FILE [RE]…   gets its metrics until they match every RE; -all NAME FILE [RE]… demands all that a daemon has, and
//	                         has promtool check them
//	loop NAME FILE           makes a loop device over a file; $NAME is its path. The condition [loop] says whether that goes
//	mksif FILE SIZE          makes a SIF with so many bytes in its partition
//	controller SOCKET FILE   answers at SOCKET as a controller does, each time with the snapshot in FILE; without FILE
//	                         leaves a socket as a controller does that was killed
//	answers NAME STATUS [T]  $NAME is a registry that answers so, with Retry-After: T, and writes what it is asked to NAME.asked. Where STATUS is
//	                         200, what it sends has another digest than it says
//	poke FILE OFFSET N       writes N there, little-endian, 8 bytes
//	grow FILE SIZE           cuts the file or makes it longer
func TestScript(t *testing.T) {
	files, err := os.ReadDir("testdata/script")
	if err != nil || len(files) < 8 {
		t.Fatalf("test scripts: %d found, %v", len(files), err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/user-cache")
			e.Setenv("TMPDIR", e.WorkDir+"/.tmp")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[nodesKey{}] = map[string]*launch.Process{}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "loop" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := exec.LookPath("losetup")
			return err == nil && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus, "node": scriptNode, "build": scriptBuild, "end": scriptEnd, "reload": scriptReload, "logged": scriptLogged, "cable": scriptCable, "scrape": scriptScrape, "fetch": scriptFetch,
			"loop": scriptLoop, "mksif": scriptSIF, "poke": scriptPoke, "grow": scriptGrow, "controller": scriptController, "answers": scriptAnswers,
		},
	})
}

type nodesKey struct{}

// mirrorLine is in the log of a daemon with --mirror, before it listens.
var mirrorLine = regexp.MustCompile(`msg=mirror address=(\S+)`)

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	status := 0
	if exit, ok := err.(*exec.ExitError); ok {
		status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("status %d, want %s", status, args[0])
	}
}

func scriptNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: node NAME[=PROGRAM] COMMAND…")
	}
	name, program, _ := strings.Cut(args[0], "=")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, err := exec.LookPath(cmp.Or(program, "dolly-img"))
	ts.Check(err)
	cmd := exec.Command(path, append(args[1:], "--listen", "127.0.0.1:0")...)
	cmd.Dir = ts.Getenv("WORK")
	for _, v := range []string{"HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DOLLY_IMG_KEYS", "DOLLY_IMG_TEST_LOOPS_BELOW", "GODEBUG", "GORACE"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	if args[1] == "receive" {
		out, err := os.Create(ts.MkAbs(name + ".out"))
		ts.Check(err)
		defer out.Close()
		cmd.Stdout = out
	}
	p, err := launch.Start(ctx, cmd)
	ts.Check(err)
	ts.Defer(p.Kill)
	ts.Setenv(name, p.Addr)
	if m := mirrorLine.FindStringSubmatch(p.Log()); m != nil {
		ts.Setenv(name+"_mirror", m[1])
	}
	if m := metricsLine.FindStringSubmatch(p.Log()); m != nil {
		ts.Setenv(name+"_metrics", m[1])
	}
	ts.Value(nodesKey{}).(map[string]*launch.Process)[name] = p
}

func scriptLoop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: loop NAME FILE")
	}
	file := ts.MkAbs(args[1])
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	ts.Check(err)
	path := strings.TrimSpace(string(out))
	ts.Defer(func() {
		over, err := exec.Command("losetup", "--noheadings", "--output", "BACK-FILE", path).Output()
		if err != nil || strings.TrimSpace(string(over)) != file { // never one that is not this test's
			ts.Logf("%s is over %s, not over %s: %v", path, over, file, err)
			return
		}
		if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
			ts.Logf("%v: %s", err, out)
		}
	})
	ts.Setenv(args[0], path)
}

// scriptBuild needs the history of this repository: a shallow clone fails here, and says so.
func scriptBuild(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: build FILE COMMIT")
	}
	file, dir := ts.MkAbs(args[0]), ts.MkAbs(".source-"+args[1])
	ts.Check(os.Mkdir(dir, 0o755))
	run := func(where, name string, arg ...string) string {
		cmd := exec.Command(name, arg...)
		cmd.Dir = where
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as everything is that is compiled without the race detector
		out, err := cmd.CombinedOutput()
		if err != nil {
			ts.Fatalf("commit %s is needed, which a full clone of the repository has: %s: %v\n%s", args[1], cmd, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	top := run(".", "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel")
	run(top, "git", "-c", "safe.directory=*", "archive", "--output", dir+".tar", args[1])
	run(dir, "tar", "xf", dir+".tar")
	run(dir, "go", "build", "-buildvcs=false", "-o", file, "./cmd/dolly-img")
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: end NAME [STATUS]")
	}
	p := ts.Value(nodesKey{}).(map[string]*launch.Process)[args[0]]
	want := "0"
	if len(args) == 2 {
		want = args[1] // it ends by itself
		select {
		case <-p.Done():
		case <-time.After(time.Minute):
			ts.Fatalf("%s does not end: %s", args[0], p.Log())
		}
	}
	status := 0
	if exit, ok := p.Stop(time.Minute).(*exec.ExitError); ok {
		status = exit.ExitCode()
	}
	if strconv.Itoa(status) != want {
		ts.Fatalf("%s: status %d, want %s: %s", args[0], status, want, p.Log())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(p.Log()+"\n"), 0o644))
}

func scriptReload(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reload NAME REGEXP")
	}
	line, err := regexp.Compile(args[1])
	ts.Check(err)
	p := ts.Value(nodesKey{}).(map[string]*launch.Process)[args[0]]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait := p.Await(line)
	p.Signal(syscall.SIGHUP)
	ts.Check(wait(ctx))
}

func scriptLogged(ts *testscript.TestScript, neg bool, args []string) {
	n := int(scriptNumber(ts, args, 3, 1))
	if neg {
		ts.Fatalf("usage: logged NAME N REGEXP")
	}
	line, err := regexp.Compile(args[2])
	ts.Check(err)
	p := ts.Value(nodesKey{}).(map[string]*launch.Process)[args[0]]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		wait := p.Await(line)
		if len(line.FindAllString(p.Log(), -1)) >= n {
			return
		}
		ts.Check(wait(ctx))
	}
}

func scriptController(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: controller SOCKET [FILE]")
	}
	path := ts.MkAbs(args[0])
	if len(args) == 1 {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		ts.Check(err)
		l.SetUnlinkOnClose(false)
		ts.Check(l.Close())
		return
	}
	s, err := warmer.ListenSocket(path)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(ctx, func(context.Context) (*warm.Snapshot, error) {
			data, err := os.ReadFile(ts.MkAbs(args[1]))
			if err != nil {
				return nil, err
			}
			return warm.ParseSnapshot([]byte(os.Expand(string(data), ts.Getenv)))
		})
	}()
	ts.Defer(func() {
		cancel()
		<-ended
	})
}

func scriptSIF(ts *testscript.TestScript, neg bool, args []string) {
	n := scriptNumber(ts, args, 2, 1)
	data := bytes.Repeat([]byte("0123456789abcdef"), int(n+15)/16)[:n]
	ts.Check(sif.Create(ts.MkAbs(args[0]), bytes.NewReader(data), sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "test", Deterministic: true}))
}

func scriptPoke(ts *testscript.TestScript, neg bool, args []string) {
	off, n := scriptNumber(ts, args, 3, 1), scriptNumber(ts, args, 3, 2)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(n)), off)
	ts.Check(err)
}

func scriptGrow(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.Truncate(ts.MkAbs(args[0]), scriptNumber(ts, args, 2, 1)))
}

func scriptNumber(ts *testscript.TestScript, args []string, want, i int) int64 {
	if len(args) != want {
		ts.Fatalf("want %d arguments", want)
	}
	n, err := strconv.ParseInt(args[i], 0, 64)
	ts.Check(err)
	return n
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{fmt.Errorf("x"), 1},
		{usagef("x"), 2},
		{fmt.Errorf("x: %w", &statusError{code: 5}), 5},
		{fmt.Errorf("x: %w", context.Canceled), 6},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestPrintError(t *testing.T) {
	var b strings.Builder
	printError(&b, hintf("do \x1b[31mthis", "a\nb\x00 \u202e é %d", 1))
	want := "dolly-img: a; b\\x00 \\u202e é 1\nhint: do \\x1b[31mthis\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	if again := printable.Line(want); again != printable.Line(again) {
		t.Errorf("printable is not idempotent: %q", again)
	}
}
