package e2e

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/netns"
)

var pageAddress = regexp.MustCompile(`http://\S+`)

// A push is watched in a browser: a node that is killed turns, the bypass around it and the reason are on the page, and what became of
// all nodes stays there until ^C.
func TestWebPush(t *testing.T) {
	ctx := need(t, time.Minute, chromium)
	together(t)
	b := newBrowser(t, ctx)
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if out, err := exec.CommandContext(ctx, binary, "keys", "init", "--keys", keys).CombinedOutput(); err != nil {
		t.Fatalf("keys init: %v: %s", err, out)
	}
	var names []string
	var daemons []*netns.Process
	for i := range 6 {
		p, err := netns.Start(exec.CommandContext(ctx, binary, "daemon", "--listen", "127.0.0.1:0", "--keys", keys, "--cache", filepath.Join(dir, fmt.Sprint("cache", i))))
		if err != nil {
			t.Fatal(err)
		}
		line, err := p.Line(ctx, "listening")
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line))
		daemons = append(daemons, p)
		t.Cleanup(p.Kill)
	}
	file := filepath.Join(dir, "torch.img")
	makeFile(t, file, 48<<20)
	push, err := netns.Start(exec.CommandContext(ctx, binary, "raw", file, "--verify-only", "--keys", keys, "--rate", "2M", "--web", ":0", "--web-stay", "--nodes", strings.Join(names, ",")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(push.Kill)
	line, err := push.Line(ctx, "page: ")
	if err != nil {
		t.Fatal(err)
	}
	b.open(pageAddress.FindString(line))
	const kinds = `[...document.querySelectorAll(".cells [data-i]")].map((c) => c.dataset.k).join(" ")`
	b.until("all nodes receive", kinds+` === "receiving receiving receiving receiving receiving receiving"`)
	daemons[2].Kill()
	b.until("the killed node turns", `document.querySelector('.cells [data-i="2"]').dataset.k === "lost"`)
	b.until("the bypass", fmt.Sprintf(`document.querySelector(".ways").innerText.includes("a bypass runs from %s to %s, around %s")`, names[1], names[3], names[2]))
	if got := b.text(kinds); got != "receiving receiving lost receiving receiving receiving" {
		t.Errorf("the cells are %s", got)
	}
	b.until("the reason", fmt.Sprintf(`document.querySelector(".rows").innerText.includes("lost") && document.querySelector(".rows").innerText.includes(%q)`, names[2]))
	if label := b.text(`document.querySelector('.cells [data-i="2"]').getAttribute("aria-label")`); label != names[2]+": lost" {
		t.Errorf("the cell is called %q", label)
	}
	shortNames(t, b, names)
	b.picture("push-light", 1280, "light")
	b.picture("push-dark", 1280, "dark")
	b.picture("push-narrow", 400, "light")
	b.until("the end", `document.querySelector(".result").innerText.includes("5 of 6 nodes have it; exit status 3")`)
	if got := b.text(kinds); got != "committed committed failed committed committed committed" {
		t.Errorf("at the end the cells are %s", got)
	}
	if reason := b.text(`document.querySelector(".rows tbody").innerText`); !strings.Contains(reason, "connection refused") {
		t.Errorf("the reason is %q", reason)
	}
	b.picture("push-ended", 1280, "light")
	if _, err := push.Line(ctx, "the page stays until"); err != nil {
		t.Fatal(err)
	}
	push.Signal(unix.SIGINT)
	if code, err := push.Wait(ctx); code != 3 || err != nil {
		t.Errorf("exit status %d, %v", code, err)
	}
	b.until("the goodbye", `document.getElementById("contact").innerText.startsWith("ended at")`)
}

// shortNames looks at the names in the cells: they have what nodes differ in.
func shortNames(t *testing.T, b *browser, names []string) {
	t.Helper()
	if name, port := b.text(`document.querySelector('.cells [data-i="2"] b').innerText`), strings.TrimPrefix(names[2], "127.0.0.1"); name != port {
		t.Errorf("the cell of %s says %q", names[2], name)
	}
	b.until("short names", `import(document.baseURI + "cells.js").then((m) => [["gpu17:9", "gpu18:9"], ["gpu17.a.example:9", "gpu18.a.example:9"], ["a:1", "b:2"], ["[::1]:9", "[::2]:9"], ["::1", "::2"], ["a:1"]].map(m.short).join(" ")
		=== "gpu17,gpu18 gpu17,gpu18 a:1,b:2 [::1],[::2] ::1,::2 a:1")`)
}

// The page with a thousand nodes and with a controller, both made up, in which nodes say what would be HTML and script.
func TestWebThousand(t *testing.T) {
	ctx := need(t, time.Minute, chromium)
	together(t)
	b := newBrowser(t, ctx)
	run := exec.CommandContext(ctx, sample, "-nodes", "1000", "-warm")
	in, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run.StdoutPipe()
	if err == nil {
		err = run.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer run.Wait()
	defer in.Close()
	var address string
	if _, err := fmt.Fscanln(io.LimitReader(out, 200), &address); err != nil {
		t.Fatal(err)
	}
	b.open(address)
	const counted = `document.querySelectorAll(".cells [data-k]").length`
	b.until("a thousand cells", counted+` === 1000 && document.querySelector(".matrix tbody").children.length === 4`)
	const hostile = `<img src=x onerror=alert(1)> "said" by a node & its </script>`
	for _, part := range []string{".chain .rows", ".warm .rows"} {
		if text := b.text(fmt.Sprintf(`document.querySelector(%q).innerText`, part)); !strings.Contains(text, hostile) {
			t.Errorf("%s reads %s", part, text)
		}
	}
	if n := b.text(`String(document.querySelectorAll("main img, main script").length)`); n != "0" {
		t.Errorf("what a node said made %s elements", n)
	}
	b.picture("thousand-light", 1280, "light")
	b.picture("thousand-dark", 1280, "dark")
	b.picture("thousand-narrow", 400, "dark")
	before := b.text(`document.querySelector(".phase").innerText`)
	b.until("the next second", fmt.Sprintf(`document.querySelector(".phase").innerText !== %q`, before))
}
