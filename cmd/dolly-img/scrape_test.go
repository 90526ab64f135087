package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
	"github.com/dolly-img/dolly-img/ring"
)

// metricsLine is in the log of a daemon with --metrics, before it listens.
var metricsLine = regexp.MustCompile(`msg=metrics address=(\S+)`)

// scriptCable passes connections on to a node. The first data link that brings a megabyte ends there, for the node; who feeds it is not told.
func scriptCable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cable NAME NODE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
	to := ts.Getenv(args[1])
	var cut atomic.Bool
	go func() {
		for {
			up, err := l.Accept()
			if err != nil {
				return
			}
			down, err := net.Dial("tcp", to)
			if err != nil {
				up.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(up, down)
				if !cut.Load() {
					up.Close()
				}
			}()
			go func() {
				defer down.Close()
				hello := make([]byte, 4096)
				n, _ := up.Read(hello)
				_, _ = down.Write(hello[:n])
				if bytes.Contains(hello[:n], []byte(ring.ALPNData)) {
					n, _ := io.CopyN(down, up, 1<<20)
					if n == 1<<20 && cut.CompareAndSwap(false, true) {
						return
					}
				}
				_, _ = io.Copy(down, up)
			}()
		}
	}()
}

func scriptScrape(ts *testscript.TestScript, neg bool, args []string) {
	all := len(args) > 0 && args[0] == "-all"
	if all {
		args = args[1:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: scrape [-all] NAME FILE [REGEXP]…")
	}
	text, err := scrapeUntil("http://"+ts.Getenv(args[0]+"_metrics")+"/metrics", args[2:]...)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o644))
	for _, m := range metrics.Daemon {
		if all && !bytes.Contains(text, []byte("\n# TYPE "+m.Name+" ")) {
			ts.Fatalf("no %s in\n%s", m.Name, text)
		}
	}
	path, err := exec.LookPath("promtool")
	switch {
	case !all:
	case err == nil:
		check := exec.Command(path, "check", "metrics")
		check.Stdin = bytes.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			ts.Fatalf("promtool check metrics: %v: %s\n%s", err, out, text)
		}
	case os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1":
		ts.Fatalf("%v", err)
	}
}

// scriptFetch prints the body of an answer.
func scriptFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: fetch STATUS URL [METHOD]")
	}
	method := http.MethodGet
	if len(args) == 3 {
		method = args[2]
	}
	req, err := http.NewRequest(method, args[1], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s, want %s", resp.Status, args[0])
	}
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// scrapeUntil scrapes as Prometheus does, only more often, until each of these has a line that it matches.
func scrapeUntil(url string, want ...string) (text []byte, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		if text, err = scrape(url); err != nil {
			return nil, err
		}
		lacks := slices.IndexFunc(want, func(re string) bool { return !regexp.MustCompile("(?m)" + re).Match(text) })
		if lacks < 0 {
			return text, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no %q in\n%s", want[lacks], text)
		}
	}
}

func scrape(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8") {
		err = fmt.Errorf("%s: %s, %v: %s", url, resp.Status, resp.Header, text)
	}
	return text, err
}
