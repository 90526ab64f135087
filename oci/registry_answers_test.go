package oci

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Answers that are no image, for the manifest: what is said, how often it was asked for,
// and what is advised.
func TestRegistryStatus(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	coded := func(code int, name string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Retry-After", "0")
			fail(w, code, name)
			return true
		}
	}
	for _, c := range []struct {
		name       string
		lie        func(http.ResponseWriter, *http.Request, int) bool
		want, hint string
		tries      int
	}{
		{"404", coded(404, "MANIFEST_UNKNOWN"), "manifest unknown", "registry-unknown", 1},
		{"404 of Harbor", coded(404, "NOT_FOUND"), "reading manifest latest", "", 1},
		{"404 in HTML", status(404, "<html>nothing here"), "StatusCode: 404", "registry-unknown", 1},
		{"403", coded(403, "DENIED"), "denied", "registry-login", 1},
		{"403 of a proxy", status(403, "go away"), "StatusCode: 403", "registry-login", 1},
		{"401", coded(401, "UNAUTHORIZED"), "unauthorized", "registry-login", 1},
		{"429", coded(429, "TOOMANYREQUESTS"), "toomanyrequests", "registry-limit", 5}, // by the library
		{"429 in words", status(429, "slower"), "StatusCode: 429", "registry-limit", 5},
		{"500", status(500, "oops"), "received unexpected HTTP status: 500", "", retries + 1},
		{"503", status(503, ""), "received unexpected HTTP status: 503", "", retries + 1},
		{"418 with a code of 500", coded(418, "UNAVAILABLE"), "reading manifest latest", "", 1},
		{"200 of nothing", status(200, ""), "malformed manifest", "", 1},
		{"200 in HTML", status(200, "<html>welcome"), "malformed manifest", "", 1},
		{"204", status(204, ""), "204", "", 1},
		{"gone", func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) }, "EOF", "", retries + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, newImg([]byte("a layer")))
			f.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
				return r.URL.Path != "/v2/" && c.lie(w, r, n)
			}
			err := openFails(t, f.name(), plain(t), c.want)
			if h := kindTold(err); !strings.HasPrefix(h, c.hint) || c.hint == "" && h != "" {
				t.Errorf("kind is %q, want %q", h, c.hint)
			}
			if n := len(f.asked("/manifests/latest")); n != c.tries && c.name != "gone" || n > 2*c.tries {
				t.Errorf("asked %d times, want %d", n, c.tries)
			}
		})
	}
}

// What passes is waited for, wherever it happens.
func TestRegistryPassing(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	all := index(m)
	for _, status := range []int{500, 502, 503, 504, 429} {
		for _, at := range []string{"/v2/", "latest", m.root.Digest.String(), m.layers[0].Digest.String()} {
			t.Run(fmt.Sprint(status, " ", at[:4]), func(t *testing.T) {
				t.Parallel()
				f := newRegistry(t, all)
				f.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
					if (last(r) == at || r.URL.Path == at) && n <= 2 {
						w.Header().Set("Retry-After", "0")
						w.WriteHeader(status)
						return true
					}
					return false
				}
				o := plain(t)
				o.Platform = "amd64"
				i := mustOpen(t, f.name(), o)
				if b, err := read(i, m.layers[0], 0); err != nil || string(b) != "a layer" {
					t.Errorf("%q, %v", b, err)
				}
				if n := len(f.asked(at)); n != 3 {
					t.Errorf("asked %d times", n)
				}
			})
		}
	}
}

// Manifests no honest registry has.
func TestRegistryManifests(t *testing.T) {
	t.Parallel()
	const some = `"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"`
	const one = `{"mediaType":"x",` + some + `,"size":1}`
	const manifest, index = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `",`, `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `",`
	const config = `"config":` + one
	many := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	for _, c := range []struct{ name, raw, mediaType, want string }{
		{"large", manifest + config + strings.Repeat(" ", MaxManifest) + "}", "", "exceeded maximum allowed size of 4194304 bytes"},
		{"entries", index + `"manifests":` + many(1001) + "}", "", "index of 1001 entries, at most 1000"},
		{"layers", manifest + config + `,"layers":` + many(10_001) + "}", "", "manifest of 10001 layers, at most 10000"},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, "", "schema 1"},
		{"schema 1 as said", `{"schemaVersion":2,` + config + `}`, mediaTypeDockerSchema1 + "+prettyjws", "schema 1"},
		{"schema 3", `{"schemaVersion":3,` + config + "}", "", "schemaVersion 3"},
		{"manifest with manifests", manifest + config + `,"manifests":` + many(1) + "}", "", "a manifest with manifests in it"},
		{"index with layers", index + `"layers":` + many(1) + `,"manifests":` + many(1) + "}", "", "an index with layers or a config"},
		{"index with a config only", index + config + "}", "", "an index with layers or a config"},
		{"manifest said to be an index", `{"schemaVersion":2,` + config + `}`, v1.MediaTypeImageIndex, "an index with layers or a config"},
		{"index said to be a manifest", `{"schemaVersion":2,"manifests":` + many(1) + `}`, v1.MediaTypeImageManifest, "a manifest without a config"},
		{"both, unsaid", `{"schemaVersion":2,` + config + `,"manifests":` + many(1) + `}`, "text/plain", "a manifest with manifests in it"},
		{"neither", `{"schemaVersion":2}`, "text/plain", "neither a manifest nor an index"},
		{"unknown media type", `{"schemaVersion":2,"mediaType":"application/x-tar",` + config + `}`, "", `"application/x-tar" is neither`},
		{"negative size", manifest + `"config":{` + some + `,"size":-1}}`, "", "config: size -1"},
		{"negative size of a layer", manifest + config + `,"layers":[{` + some + `,"size":-5}]}`, "", "layer 0: size -5"},
		{"bad digest", manifest + `"config":{"digest":"sha256:../../etc/passwd","size":1}}`, "", "invalid checksum digest"},
		{"short digest", manifest + config + `,"layers":[` + one + `,{"digest":"sha256:00","size":1}]}`, "", "layer 1: digest"},
		{"odd algorithm", index + `"manifests":[{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}]}`, "", "entry 0: digest"},
		{"no digest", manifest + `"config":{}}`, "", "config: digest"},
		{"huge size", manifest + `"config":{` + some + `,"size":99999999999999999999}}`, "", "malformed manifest"},
		{"deep", strings.Repeat("[", 100_000), "", "malformed manifest"},
		{"empty index", index + `"manifests":[]}`, "", "the index is empty"},
		{"large child", index + `"manifests":[{` + some + `,"size":4194305}]}`, "", "4194305 bytes, at most 4194304"},
		{"child that is not there", index + `"manifests":[{` + some + `,"size":1}]}`, "", "manifest unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, manifestOf(c.raw, c.mediaType))
			openFails(t, f.name(), plain(t), c.want)
			for _, l := range f.log {
				if strings.Contains(l, "/blobs/") {
					t.Errorf("%s was read", l)
				}
			}
		})
	}
}

// Indexes in indexes, down to what is allowed and one more.
func TestRegistryNested(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	nested := m
	for range maxDepth {
		nested = index(nested)
		nested.root.Platform = m.root.Platform
	}
	o, all := plain(t), plain(t)
	o.Platform, all.AllPlatforms = "amd64", true
	f := newRegistry(t, nested)
	m.check(t, mustOpen(t, f.name(), o))
	nested.check(t, mustOpen(t, f.name(), all))
	f = newRegistry(t, index(nested))
	openFails(t, f.name(), o, "indexes are nested too deeply")
	openFails(t, f.name(), all, "indexes are nested too deeply")
}

// A manifest that is a layer of another would come before what it needs.
func TestRegistryManifestAsLayer(t *testing.T) {
	t.Parallel()
	inner := newImg([]byte("inner"))
	outer := newImg(inner.blobs[inner.root.Digest])
	o := plain(t)
	o.AllPlatforms = true
	openFails(t, newRegistry(t, index(outer, inner)).name(), o, "is a layer or config of another, too")
	all := index(inner, outer)
	all.check(t, mustOpen(t, newRegistry(t, all).name(), o))
}

// Many manifests, each of a size that is allowed.
func TestRegistryManyManifests(t *testing.T) {
	t.Parallel()
	var list []*img
	for n := range maxManifests/MaxManifest + 1 {
		m := manifestOf("", "")
		raw := append(asJSON(v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: m.config}),
			strings.Repeat(" ", MaxManifest-1000-n)...)
		m.root = m.put(v1.MediaTypeImageManifest, raw)
		list = append(list, m)
	}
	o := plain(t)
	o.AllPlatforms = true
	openFails(t, newRegistry(t, index(list...)).name(), o, "manifests of more than")
}

// An index that calls a manifest something else: the cache would not look for what it needs.
func TestRegistryChildOfOtherType(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	o := plain(t)
	o.AllPlatforms = true
	for _, mediaType := range []string{v1.MediaTypeImageIndex, ""} {
		m.root.MediaType = mediaType
		openFails(t, newRegistry(t, index(m)).name(), o, "and its index calls it")
	}
	// What it calls no manifest is a blob, whatever is in it.
	other := newImg([]byte("another layer"))
	m.root.MediaType = "text/plain"
	i := mustOpen(t, newRegistry(t, index(m, other)).name(), o)
	if n := len(i.blobs); n != 1+3+1 { // that, the other image's, the index
		t.Errorf("%d blobs: %v", n, i.blobs)
	}
	if b, err := read(i, i.blobs[0], 0); err != nil || digest.FromBytes(b) != m.root.Digest {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// Only layers may lie elsewhere.
func TestRegistryURLs(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	m.root.URLs = []string{"https://elsewhere.example/"}
	o := plain(t)
	o.AllPlatforms = true
	openFails(t, newRegistry(t, index(m)).name(), o, "lies elsewhere")
	config := newImg([]byte("a layer")).config
	config.URLs = []string{"https://elsewhere.example/"}
	alone := manifestOf("", "")
	alone.root = alone.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: config}))
	openFails(t, newRegistry(t, alone).name(), plain(t), "lies elsewhere")
}

func TestRegistryOtherDigest(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	layer := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.SHA512.FromString("a layer"), Size: 7}
	alone := manifestOf("", "")
	config := alone.put(v1.MediaTypeImageConfig, m.blobs[m.config.Digest])
	alone.root = alone.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}}))
	openFails(t, newRegistry(t, alone).name(), plain(t), "only digests of sha256")
}

// A host whose name nobody resolves is named, since the name is what is wrong, or the name server of this machine.
func TestRegistryName(t *testing.T) {
	dns := &net.DNSError{Err: "no such host", Name: "registry.exmaple", IsNotFound: true}
	err := (&registry{}).explain(&url.Error{Op: "Get", URL: "https://registry.exmaple/v2/?token=secret", Err: &net.OpError{Op: "dial", Err: dns}})
	if kind, about := errkind.Of(err); kind != "registry-name" || len(about) != 1 || about[0] != dns.Name || !errors.Is(err, dns) {
		t.Errorf("%v: %s of %q", err, kind, about)
	}
}
