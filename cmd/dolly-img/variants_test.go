package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// variantsLayout is a layout with an index of images for variants of this machine's architecture.
func variantsLayout(t *testing.T, variants ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	put := func(mediaType, text, more string) string {
		d := digest.FromString(text)
		if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Encoded()), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, d, len(text), more)
	}
	var entries []string
	for _, v := range variants {
		config := put(v1.MediaTypeImageConfig, fmt.Sprintf(`{"os":"linux","architecture":%q,"variant":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, runtime.GOARCH, v), "")
		entries = append(entries, put(v1.MediaTypeImageManifest,
			fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[]}`, v1.MediaTypeImageManifest, config),
			fmt.Sprintf(`,"platform":{"os":"linux","architecture":%q,"variant":%q}`, runtime.GOARCH, v)))
	}
	index := put(v1.MediaTypeImageIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, v1.MediaTypeImageIndex, strings.Join(entries, ",")), "")
	for name, text := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[` + index + `]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// nodeOf serves a node that says it has this platform, and returns its address.
func nodeOf(t *testing.T, member *identity.Identity, platform string) string {
	t.Helper()
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := ring.NewNode(ring.NodeConfig{
		Platform: platform,
		TLS:      member.ServerConfig(ring.ALPNControl, ring.ALPNData),
		DataTLS:  func(n string) *tls.Config { return member.ClientConfig(ring.ALPNData, n) },
		Client:   func(tls.ConnectionState) (string, ring.Role) { return "", ring.RoleSender },
		Accept: func(context.Context, ring.Request) (ring.Sink, error) {
			return store.Transfer("localhost/x:1", cache.TransferOptions{}), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = n.Serve(l) }()
	t.Cleanup(func() { _ = n.Shutdown(context.Background()); <-served })
	return l.Addr().String()
}

// Of several variants a push takes the best that all nodes say they run, and the least where one does not
// say, or does not answer.
func TestVariantsOfNodes(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	keys := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	member, err := identity.Load(keys, identity.Node)
	if err != nil {
		t.Fatal(err)
	}
	here := "linux/" + runtime.GOARCH
	high, middle, low := "v3", "v2", ""
	if runtime.GOARCH == "arm64" {
		high, middle = "v9", "v8.1"
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	best, better, silent := nodeOf(t, member, here+"/"+high), nodeOf(t, member, here+"/"+middle), nodeOf(t, member, "")
	dir := variantsLayout(t, high, middle, low)
	for _, c := range []struct {
		nodes []string
		flags []string
		want  string // taken
		code  int
	}{
		{[]string{best}, nil, here + "/" + high, 0},
		{[]string{best, better}, nil, here + "/" + middle, 0},
		{[]string{best, better, silent}, nil, here, 0},
		{[]string{best, gone.Addr().String()}, nil, here, ring.ExitPartial},
		{[]string{better}, []string{"--platform", here}, here, 0},
		{[]string{better}, []string{"--platform", here + "/" + high}, here + "/" + high, 0},
	} {
		var out bytes.Buffer
		cmd := newRoot()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append([]string{"push", dir, "--keys", keys, "--nodes", strings.Join(c.nodes, ",")}, c.flags...))
		code := 0
		if s, ok := cmd.ExecuteContext(t.Context()).(*statusError); ok {
			code = s.code
		}
		if !strings.Contains(out.String(), ": "+c.want+" is taken;") || code != c.code {
			t.Errorf("%+v: exit %d, %s", c, code, out.String())
		}
	}
}
