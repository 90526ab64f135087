package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// smallRegistry serves one image of two layers, and answers 503 for a blob that is down.
type smallRegistry struct {
	*httptest.Server
	layers   [][]byte
	manifest []byte
	index    []byte // of that manifest alone
	blobs    map[string][]byte
	down     atomic.Value // string: a digest
	dir      string       // of files that its clients need
}

func newSmallRegistry(t *testing.T, layer int) *smallRegistry {
	t.Helper()
	s := &smallRegistry{blobs: map[string][]byte{}, dir: t.TempDir()}
	s.down.Store("")
	put := func(mediaType string, b []byte) string {
		d := digest.FromBytes(b)
		s.blobs[d.String()] = b
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(b))
	}
	for range 2 {
		b := make([]byte, layer)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		s.layers = append(s.layers, b)
	}
	s.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s,%s]}`, v1.MediaTypeImageManifest,
		put(v1.MediaTypeImageConfig, []byte("{}")), put(v1.MediaTypeImageLayer, s.layers[0]), put(v1.MediaTypeImageLayer, s.layers[1]))
	s.index = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}]}`,
		v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, digest.FromBytes(s.manifest), len(s.manifest), runtime.GOARCH)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *smallRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case r.URL.Path == "/v2/":
	case name == digest.FromBytes(s.index).String():
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		_, _ = w.Write(s.index)
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
		_, _ = w.Write(s.manifest)
	case name == s.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		_, _ = w.Write(s.blobs[name])
	}
}

// options are what finds the registry, and nothing the user has configured.
func (s *smallRegistry) options(t *testing.T) oci.Options {
	t.Helper()
	no := false
	conf := filepath.Join(s.dir, "registries.conf")
	auth := filepath.Join(s.dir, "auth.json")
	for name, text := range map[string]string{conf: "", auth: "{}"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return oci.Options{Registry: oci.RegistryOptions{TLSVerify: &no, RegistriesConf: conf, AuthFile: auth}}
}

func (s *smallRegistry) pull(t *testing.T, ref, dir string, limits cache.Limits, log *slog.Logger) (*pull, error) {
	t.Helper()
	img, err := oci.Open(t.Context(), "docker://"+s.Listener.Addr().String()+"/a/b:1", s.options(t))
	if err != nil {
		t.Fatal(err)
	}
	return newPull(t.Context(), img, ref, dir, limits, log)
}

// policy.json holds for the name that was asked for, also where that is the digest of an index, of
// which the nodes get one platform's image under its own digest.
func TestPolicyOfRegistry(t *testing.T) {
	s := newSmallRegistry(t, 1000)
	home := t.TempDir()
	t.Setenv("HOME", home)
	file := filepath.Join(home, ".config/containers/policy.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	repo := s.Listener.Addr().String() + "/a/b"
	asked, chosen := repo+"@"+digest.FromBytes(s.index).String(), repo+"@"+digest.FromBytes(s.manifest).String()
	for _, c := range []struct {
		scope  string
		refuse bool
	}{{repo, true}, {asked, true}, {chosen, false}} {
		policy := fmt.Appendf(nil, `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{%q:[{"type":"reject"}]}}}`, c.scope)
		if err := os.WriteFile(file, policy, 0o600); err != nil {
			t.Fatal(err)
		}
		var m meta.Transfer
		source, err := Open(t.Context(), "docker://"+asked, Options{OCI: s.options(t), NoCache: true}, &m)
		if refused := err != nil && strings.Contains(err.Error(), file+" rejects"); refused != c.refuse || !refused && err != nil {
			t.Errorf("policy for %s: %v", c.scope, err)
		}
		if err == nil && m.Ref != chosen {
			t.Errorf("kept as %s", m.Ref)
		}
		if source != nil {
			source.(io.Closer).Close()
		}
	}
}

// An image for another platform goes to the nodes, which may be of it, but with a warning, unless
// it was asked for.
func TestOtherPlatform(t *testing.T) {
	dir := t.TempDir()
	put := func(mediaType string, b []byte) string {
		d := digest.FromBytes(b)
		if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Encoded()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(b))
	}
	config := put(v1.MediaTypeImageConfig, []byte(`{"os":"plan9","architecture":"mips"}`))
	root := put(v1.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[]}`, v1.MediaTypeImageManifest, config))
	for name, b := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[` + root + `]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for platform, want := range map[string]string{"": "image oci:" + dir + " is for plan9/mips, which this machine is not known to run (platform-foreign, plan9/mips)", "plan9/mips": ""} {
		got := ""
		o := Options{OCI: oci.Options{Platform: platform}, Warn: func(warning error) {
			kind, about := errkind.Of(warning)
			got += fmt.Sprintf("%v (%s, %s)", warning, kind, strings.Join(about, " "))
		}}
		_, err := Open(t.Context(), "oci:"+dir, o, &meta.Transfer{})
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", platform, got, err)
		}
	}
}

func readBlob(t *testing.T, p *pull, d v1.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := p.Open(t.Context(), d, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// A blob that failed while it was pulled ahead is pulled when it is wanted.
func TestPullAheadFails(t *testing.T) {
	s := newSmallRegistry(t, 3<<20)
	s.down.Store(digest.FromBytes(s.layers[1]).String())
	p, err := s.pull(t, "x/a:1", t.TempDir(), cache.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := readBlob(t, p, p.blobs[0]); err != nil || !bytes.Equal(b, s.layers[0]) {
		t.Fatal(err)
	}
	if _, err := readBlob(t, p, p.blobs[1]); err == nil { // waits until it was given up
		t.Fatal("an answer of 503 was taken")
	}
	s.down.Store("")
	if b, err := readBlob(t, p, p.blobs[1]); err != nil || !bytes.Equal(b, s.layers[1]) {
		t.Errorf("the registry is back: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// What every node holds is not pulled ahead; a node that comes late may need it all the same.
func TestPullPlanned(t *testing.T) {
	p, err := newSmallRegistry(t, 100_000).pull(t, "x/app:1", t.TempDir(), cache.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	read := make([]bool, len(p.blobs))
	for i := range read {
		read[i] = i%2 == 0
	}
	p.Planned(read)
	for i, d := range p.blobs {
		if !read[i] {
			continue
		}
		if _, err := readBlob(t, p, d); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	for i, d := range p.blobs {
		if pulled := p.fetches[d.Digest] != nil; pulled != read[i] {
			t.Errorf("blob %d: pulled %v", i, pulled)
		}
	}
	p.mu.Unlock()
	if b, err := readBlob(t, p, p.blobs[1]); err != nil || int64(len(b)) != p.blobs[1].Size {
		t.Errorf("late: %d bytes, %v", len(b), err)
	}
}

// The limits hold for the server's own cache, too.
func TestPullLimits(t *testing.T) {
	s := newSmallRegistry(t, 3<<20)
	if _, err := s.pull(t, "x/a:1", t.TempDir(), cache.Limits{Max: 4 << 20}, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("6 MiB into 4: %v", err)
	}
	dir := t.TempDir()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keys, "policy.toml"), []byte("[cache]\nmax = \"7M\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	limits, err := cachedir.Limits(keys)
	if err != nil || limits.Max != 7_000_000 {
		t.Fatalf("%+v, %v", limits, err)
	}
	var log bytes.Buffer
	for _, ref := range []string{"x/a:1", "x/b:1"} { // the second image takes the place of the first
		p, err := s.pull(t, ref, dir, limits, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range p.blobs {
			if _, err := readBlob(t, p, d); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		s = newSmallRegistry(t, 3<<20)
	}
	if text := log.String(); strings.Count(text, "removed from the cache") != 1 || !strings.Contains(text, "x/a:1") {
		t.Errorf("the log does not tell what was evicted: %s", text)
	}
}

// A pull into a cache that is collected all the time, without any grace and with room for nothing:
// every byte comes, and is right, in many rounds.
func TestPullBesideGC(t *testing.T) {
	const rounds = 30 // of four blobs each
	dir := t.TempDir()
	registries := []*smallRegistry{newSmallRegistry(t, 20_000), newSmallRegistry(t, 30_000)}
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	beside.Go(func() {
		for ctx.Err() == nil {
			if _, err := c.GC(ctx, cache.GCOptions{Limits: cache.Limits{Max: 1}}); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range rounds {
		s := registries[i%2]
		p, err := s.pull(t, fmt.Sprintf("x/%d:1", i%3), dir, cache.Limits{}, nil)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		for _, d := range p.blobs {
			if b, err := readBlob(t, p, d); err != nil || digest.FromBytes(b) != d.Digest {
				t.Fatalf("round %d: %d bytes of %s, %v", i, len(b), d.Digest, err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}
