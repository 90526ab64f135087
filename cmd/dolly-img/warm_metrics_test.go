package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// startScraped starts dolly-img with --metrics and returns where these are.
func startScraped(t *testing.T, args ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.Command("dolly-img", append(args, "--metrics", "0")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for lines := bufio.NewScanner(log); url == "" && lines.Scan(); {
		if m := metricsLine.FindStringSubmatch(lines.Text()); m != nil {
			url = "http://" + m[1] + "/metrics"
		}
	}
	go io.Copy(io.Discard, log)
	return cmd, url
}

// A controller exposes how many nodes have an image that it has pushed, and one that it cannot find; that an edit was refused; and nothing
// any more of an image that was taken out.
func TestWarmMetrics(t *testing.T) {
	dir := t.TempDir()
	keys, list, image := filepath.Join(dir, "keys"), filepath.Join(dir, "warm.toml"), filepath.Join(dir, "a.sif")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := sif.Create(image, strings.NewReader("x"), sif.CreateOptions{FS: sif.FSRaw}); err != nil {
		t.Fatal(err)
	}
	daemon, err := launch.Start(t.Context(), exec.Command("dolly-img", "daemon", "--keys", keys, "--cache", filepath.Join(dir, "node"), "--listen", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Kill)
	write := func(refs ...string) {
		t.Helper()
		text := fmt.Sprintf("[defaults]\nkeys = %q\nstate = %q\nsocket = %q\n", keys, dir+"/state", dir+"/sock")
		for n, ref := range refs {
			// Each has nodes of its own: a node is told what to keep once all its images are found.
			text += fmt.Sprintf("[nodes.of%d]\nlist = %q\nplatform = \"linux/amd64\"\n", n, []string{daemon.Addr, "127.0.0.1:1"}[n])
			text += fmt.Sprintf("[[image]]\nref = %q\nname = \"reg.example/app:%d\"\nnodes = [\"of%d\"]\n", ref, n, n)
		}
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(image, "docker://127.0.0.1:1/away:2")
	cmd, url := startScraped(t, "warm", "--config", list, "--cache", filepath.Join(dir, "cache"))
	await := func(want ...string) string {
		t.Helper()
		for i, line := range want {
			want[i] = "^" + regexp.QuoteMeta(line) + "$"
		}
		text, err := scrapeUntil(url, want...)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := await("dolly_img_config_valid 1",
		`dolly_img_warm_nodes{image="reg.example/app:0",state="warm"} 1`, `dolly_img_warm_nodes{image="reg.example/app:0",state="missing"} 0`,
		`dolly_img_warm_nodes{image="127.0.0.1:1/away:2",state="warm"} 0`)
	if !strings.Contains(text, `certificate_expiry_timestamp_seconds{certificate="own"} `) ||
		!strings.Contains(text, `last_success_timestamp_seconds{image="reg.example/app:0"} `) || strings.Contains(text, `seconds{image="127.`) {
		t.Errorf("no end of the certificate, or not the one image that was warm:\n%s", text)
	}
	if err := os.WriteFile(list, []byte("imags = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	await("dolly_img_config_valid 0", `dolly_img_warm_nodes{image="reg.example/app:0",state="warm"} 1`)
	write(image)
	cmd.Process.Signal(syscall.SIGHUP)
	if text := await("dolly_img_config_valid 1"); strings.Contains(text, "away:2") || !strings.Contains(text, "reg.example/app:0") {
		t.Errorf("an image was taken out of the list:\n%s", text)
	}
}
