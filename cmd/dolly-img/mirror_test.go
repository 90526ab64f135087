package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// A daemon serves its cache over a socket: the manifest, what it names, and nothing else. It takes the
// socket of one that was killed, and its own goes with it.
func TestMirrorOverSocket(t *testing.T) {
	dir := t.TempDir()
	keys, socket := filepath.Join(dir, "keys"), filepath.Join(dir, "m.sock")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	layer, root, manifest := keepSIF(t, c, "reg.example/lab/app:v1", "a SIF")

	start := func() *launch.Process {
		t.Helper()
		p, err := launch.Start(t.Context(), exec.Command("dolly-img", "daemon", "--keys", keys, "--cache", c.Dir(),
			"--listen", "127.0.0.1:0", "--mirror", "unix:"+socket))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	start().Kill()
	p := start()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v, %v", info, err)
	}

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for _, g := range []struct {
		path, mediaType, body string
		status                int
	}{
		{"manifests/v1", v1.MediaTypeImageManifest, manifest, 200},
		{"manifests/" + root.Digest.String(), v1.MediaTypeImageManifest, manifest, 200},
		{"blobs/" + layer.Digest.String(), "application/octet-stream", "a SIF", 200},
		{"manifests/v2", "application/json", "", 404},
	} {
		resp, err := client.Get("http://mirror/v2/lab/app/" + g.path + "?ns=reg.example")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != g.status || resp.Header.Get("Content-Type") != g.mediaType ||
			g.status == 200 && string(body) != g.body {
			t.Errorf("%s: %s, %v, %s, %v", g.path, resp.Status, resp.Header, body, err)
		}
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// keepSIF puts an image into a cache: one layer, with this text.
func keepSIF(t *testing.T, c *cache.Cache, ref, text string) (layer, root v1.Descriptor, manifest string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromString(text)
	config, m, err := sif.Artifact(d, int64(len(text)), "a.sif")
	check(err)
	blob := func(mediaType string, b []byte) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	}
	layer, root = blob(sif.LayerMediaType, []byte(text)), blob(v1.MediaTypeImageManifest, m)
	blobs := []v1.Descriptor{layer, blob(sif.ConfigMediaType, config), root}
	transfer := c.Transfer(ref, cache.TransferOptions{})
	_, _, err = transfer.Offer(t.Context(), blobs)
	check(err)
	for i, b := range [][]byte{[]byte(text), config, m} {
		w, err := transfer.Begin(t.Context(), blobs[i], 0)
		check(err)
		_, err = w.Write(b)
		check(err)
		check(w.Commit(t.Context(), blobs[i]))
	}
	_, err = transfer.Prepare(t.Context(), blobs)
	check(err)
	check(transfer.Publish(t.Context()))
	check(transfer.Close())
	return layer, root, string(m)
}
