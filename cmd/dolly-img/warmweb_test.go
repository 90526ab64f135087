package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/identity"
)

// A controller's page has the list as a matrix, also while no node and no registry answers.
func TestWarmWeb(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	list := fmt.Sprintf("[defaults]\nkeys = %q\nstate = %q\nsocket = %q\n[nodes.gpu]\nlist = \"127.0.0.1:1\"\n[[image]]\nref = %q\nnodes = [\"gpu\"]\n",
		keys, filepath.Join(dir, "state"), filepath.Join(dir, "warm.sock"), "docker://127.0.0.1:1/ml/torch:25.10")
	config := filepath.Join(dir, "warm.toml")
	if err := os.WriteFile(config, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		root := newRoot()
		root.SetArgs(joinWeb([]string{"warm", "--config", config, "--cache", filepath.Join(dir, "cache"), "--web", ":0"}))
		root.SetErr(write)
		err := root.ExecuteContext(ctx)
		write.Close()
		ended <- err
	}()
	said := bufio.NewScanner(read)
	address := ""
	for address == "" && said.Scan() {
		_, address, _ = strings.Cut(said.Text(), "page: ")
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	resp, err := http.Get(address + "events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	for want := []string{`event: warm`, `"groups":[{"name":"gpu","nodes":1`, `"image":"127.0.0.1:1/ml/torch:25.10"`}; len(want) > 0; {
		if !events.Scan() {
			t.Fatalf("the events end before %q: %v", want[0], events.Err())
		}
		for len(want) > 0 && strings.Contains(events.Text(), want[0]) {
			want = want[1:]
		}
	}
	cancel()
	for events.Scan() && events.Text() != "event: bye" {
	}
	if events.Text() != "event: bye" {
		t.Error("the page is not told that the controller ends")
	}
	if err := <-ended; err != nil && exitCode(err) != 6 {
		t.Error(err)
	}
}
