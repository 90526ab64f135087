package mirror

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

// put puts an image into a cache; the last blob is its manifest.
func put(t *testing.T, c *cache.Cache, ref string, blobs ...[]byte) (all []v1.Descriptor) {
	t.Helper()
	for i, b := range blobs {
		d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if i == len(blobs)-1 {
			d.MediaType = v1.MediaTypeImageManifest
		}
		all = append(all, d)
	}
	putBlobs(t, c, ref, all, blobs)
	return all
}

// putBlobs puts an image of these blobs into a cache.
func putBlobs(t *testing.T, c *cache.Cache, ref string, all []v1.Descriptor, blobs [][]byte) {
	t.Helper()
	tr := c.Transfer(ref, cache.TransferOptions{})
	defer tr.Close()
	if _, _, err := tr.Offer(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for i, d := range all {
		w, err := tr.Begin(t.Context(), d, 0)
		if err == nil {
			_, err = w.Write(blobs[i])
		}
		if err == nil {
			err = w.Commit(t.Context(), d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tr.Prepare(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func manifest(t *testing.T, m v1.Manifest) []byte {
	t.Helper()
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, v1.MediaTypeImageManifest
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fill puts an image with one layer, and an artifact that refers to it, into a cache.
func fill(t *testing.T) (c *cache.Cache, image, artifact, layer v1.Descriptor) {
	t.Helper()
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, config := []byte("0123456789"), []byte("{}")
	l := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: 10}
	conf := v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: 2}
	all := put(t, c, "reg.example:5000/lab/app:v1", data, config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{l}}))
	put(t, c, "reg.example:5000/lab/app:v2", data, config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{l}}))
	put(t, c, "127.0.0.1:15000/lab/app:v1", data, config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{l}}))
	put(t, c, "[fd00::1]:5000/lab/six:v1", data, config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{l}}))
	put(t, c, "docker.io/other/app:v3", data, config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{l}, Annotations: map[string]string{"a": "b"}}))
	art := put(t, c, "reg.example:5000/lab/app:sig", config, manifest(t, v1.Manifest{Config: conf, Layers: []v1.Descriptor{}, Subject: &all[2], ArtifactType: "application/vnd.test"}))
	return c, all[2], art[1], l
}

// Every kind of request, as containerd (ns) and podman (host in the path) make them.
func TestMirror(t *testing.T) {
	c, image, artifact, layer := fill(t)
	server := httptest.NewServer(New(c, nil, nil))
	defer server.Close()
	const ns = "?ns=reg.example:5000"
	for _, r := range []struct {
		method, path string
		header       string // name: value
		status       int
		want         []string // in the answer's header or body
	}{
		{"GET", "/v2/", "", 200, []string{"registry/2.0"}},
		{"GET", "/v2/lab/app/manifests/v1" + ns, "", 200, []string{image.Digest.String(), v1.MediaTypeImageManifest, `"layers"`}},
		{"HEAD", "/v2/lab/app/manifests/v1" + ns, "", 200, []string{image.Digest.String(), v1.MediaTypeImageManifest}},
		{"GET", "/v2/reg.example_5000/lab/app/manifests/v2", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/reg.example:5000/lab/app/manifests/v2", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/127.0.0.1_15000/lab/app/manifests/v1", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/127.0.0.1_15000/lab/app/blobs/" + layer.Digest.String(), "", 200, []string{"0123456789"}},
		{"GET", "/v2/127.0.0.1/lab/app/manifests/v1", "", 404, []string{"NAME_UNKNOWN"}},
		{"GET", "/v2/lab/six/manifests/v1?ns=[FD00::1]:5000", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/ip6-fd00-0000-0000-0000-0000-0000-0000-0001_5000/lab/six/manifests/v1", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/lab/app/manifests/v1?ns=Reg.Example:5000", "", 200, []string{image.Digest.String()}},
		{"GET", "/v2/lab/app/manifests/" + image.Digest.String() + ns, "", 200, []string{`"layers"`}},
		{"GET", "/v2/lab/app/blobs/" + layer.Digest.String() + ns, "", 200, []string{"0123456789", layer.Digest.String(), "Content-Length: 10", "Etag: "}},
		{"GET", "/v2/lab/app/blobs/" + layer.Digest.String() + ns, "Range: bytes=2-4", 206, []string{"234", "Content-Range: bytes 2-4/10"}},
		{"GET", "/v2/lab/app/blobs/" + layer.Digest.String() + ns, "Range: bytes=20-", 416, nil},
		{"GET", "/v2/lab/app/blobs/" + layer.Digest.String() + ns, `If-None-Match: "` + layer.Digest.String() + `"`, 304, nil},
		{"GET", "/v2/lab/app/tags/list" + ns, "", 200, []string{`{"name":"lab/app","tags":["sig","v1","v2"]}`}},
		{"GET", "/v2/lab/app/tags/list" + ns + "&n=1", "", 200, []string{`"tags":["sig"]`, "last=sig", `rel="next"`}},
		{"GET", "/v2/lab/app/tags/list" + ns + "&n=5&last=sig", "", 200, []string{`"tags":["v1","v2"]`}},
		{"GET", "/v2/lab/app/tags/list" + ns + "&n=x", "", 400, nil},
		{"GET", "/v2/lab/app/referrers/" + image.Digest.String() + ns, "", 200, []string{artifact.Digest.String(), "application/vnd.test"}},
		{"GET", "/v2/lab/app/referrers/" + image.Digest.String() + ns + "&artifactType=none", "", 200, []string{`"manifests":[]`, "Oci-Filters-Applied: artifactType"}},
		{"GET", "/v2/lab/app/referrers/" + layer.Digest.String() + ns, "", 200, []string{`"manifests":[]`}},

		// What is not there, and what is of another repository.
		{"GET", "/v2/lab/app/manifests/v9" + ns, "", 404, []string{"MANIFEST_UNKNOWN"}},
		{"GET", "/v2/lab/none/manifests/v1" + ns, "", 404, []string{"NAME_UNKNOWN"}},
		{"GET", "/v2/lab/app/manifests/v1", "", 404, []string{"NAME_UNKNOWN"}},
		{"GET", "/v2/lab/app/manifests/v1?ns=docker.io", "", 404, []string{"NAME_UNKNOWN"}},
		{"GET", "/v2/other/app/manifests/" + image.Digest.String() + "?ns=docker.io", "", 404, []string{"MANIFEST_UNKNOWN"}},
		{"GET", "/v2/lab/app/manifests/" + layer.Digest.String() + ns, "", 404, []string{"MANIFEST_UNKNOWN"}},
		{"GET", "/v2/lab/app/blobs/" + digest.FromString("x").String() + ns, "", 404, []string{"BLOB_UNKNOWN"}},

		// What is malformed.
		{"GET", "/v2/lab/app/blobs/sha256:xyz" + ns, "", 400, []string{"DIGEST_INVALID"}},
		{"GET", "/v2/LAB/../etc/passwd/manifests/v1", "", 400, nil},
		{"GET", "/v2/lab/app/manifests/v1?ns=a/b", "", 400, []string{"NAME_INVALID"}},
		{"GET", "/v2/lab/app/manifests/.bad" + ns, "", 400, []string{"MANIFEST_INVALID"}},
		{"GET", "/v2/_catalog", "", 404, nil},
		{"GET", "/", "", 404, nil},
		{"GET", "/v2/lab/app/other/v1", "", 404, nil},
		{"GET", "/v2/lab/app/tags/other" + ns, "", 404, nil},

		// What would write.
		{"PUT", "/v2/lab/app/manifests/v1" + ns, "", 405, []string{"Allow: GET, HEAD"}},
		{"POST", "/v2/lab/app/blobs/uploads/" + ns, "", 405, nil},
		{"DELETE", "/v2/lab/app/blobs/" + layer.Digest.String() + ns, "", 405, nil},
	} {
		req, err := http.NewRequest(r.method, server.URL+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k, v, ok := strings.Cut(r.header, ": "); ok {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
		var text strings.Builder
		_ = resp.Header.Write(&text)
		text.Write(body)
		if resp.Header.Get(Header) != "1" {
			t.Errorf("%s %s: does not say that it is a mirror", r.method, r.path)
		}
		if resp.StatusCode != r.status {
			t.Errorf("%s %s: %d, want %d: %s", r.method, r.path, resp.StatusCode, r.status, body)
			continue
		}
		if r.method == "HEAD" && len(body) > 0 {
			t.Errorf("HEAD %s has a body", r.path)
		}
		for _, want := range r.want {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s %s: no %q in\n%s", r.method, r.path, want, text.String())
			}
		}
	}
}

// A blob that rotted on disk is not found: the runtime asks the registry, which has it right.
func TestRottenIsNotFound(t *testing.T) {
	c, _, _, layer := fill(t)
	server := httptest.NewServer(New(c, nil, nil))
	defer server.Close()
	path, err := c.BlobPath(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("0123456780"), 0o644); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(server.URL + "/v2/lab/app/blobs/" + layer.Digest.String() + "?ns=reg.example:5000")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func FuzzParse(f *testing.F) {
	entries, err := os.ReadDir("testdata/fuzz/" + f.Name())
	if err != nil || len(entries) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	f.Fuzz(func(t *testing.T, path, ns string) {
		r, failed := parse(path, ns)
		if failed != nil {
			if failed.status < 400 || failed.code == "" {
				t.Errorf("%+v", failed)
			}
			return
		}
		want := strings.TrimPrefix(r.repo, strings.ToLower(ns)+"/")
		if ns == "" {
			want = r.repo
		}
		if got := "/v2/" + want + "/" + r.kind + "/" + r.ref; got != path {
			t.Errorf("%q was read as %q", path, got)
		}
		if strings.Contains(r.repo, "..") || strings.ContainsAny(r.repo+r.ref, "\x00\\ ") {
			t.Errorf("%q is accepted: %+v", path, r)
		}
	})
}

// The manifest of an image that lacks a layer is not found: the runtime asks the registry then,
// and would not for the layer alone.
func TestIncompleteIsNotFound(t *testing.T) {
	c, _, _, layer := fill(t)
	server := httptest.NewServer(New(c, nil, nil))
	defer server.Close()
	status := func() int {
		t.Helper()
		r, err := http.Get(server.URL + "/v2/lab/app/manifests/v1?ns=reg.example:5000")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	if s := status(); s != 200 {
		t.Errorf("whole: %d", s)
	}
	path, err := c.BlobPath(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s := status(); s != 404 {
		t.Errorf("without its layer: %d", s)
	}
}

// putApp puts an image with a layer, 10 kB, and a config of its own.
func putApp(t *testing.T, c *cache.Cache, ref, content string) (layer, root v1.Descriptor) {
	t.Helper()
	data, config := bytes.Repeat([]byte(content), 10_000), []byte(`{"x":"`+content+`"}`)
	all := put(t, c, ref, data, config, manifest(t, v1.Manifest{
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}},
	}))
	return all[0], all[2]
}

func get(m http.Handler, path string) int {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code
}

// An index may have manifests that are not here: those that are can be had.
func TestSparseIndex(t *testing.T) {
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layer, root := putApp(t, c, "reg.example/app:v1", "a")
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 9}, root, {MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("nowhere"), Size: 9}},
	})
	if err != nil {
		t.Fatal(err)
	}
	is := func(path string, want int) {
		t.Helper()
		if code := get(New(c, nil, nil), "/v2/"+path+"?ns=reg.example"); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	name := filepath.Join(c.Dir(), "blobs/sha256", digest.FromBytes(index).Encoded())
	if err := os.WriteFile(name, index, 0o444); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{{
		MediaType: v1.MediaTypeImageIndex, Digest: digest.FromBytes(index), Size: int64(len(index)),
		Annotations: map[string]string{v1.AnnotationRefName: "reg.example/list:v1"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir(), "index.json"), list, 0o644); err != nil {
		t.Fatal(err)
	}
	is("list/manifests/v1", 200)
	is("list/manifests/"+root.Digest.String(), 200)
	is("list/blobs/"+layer.Digest.String(), 200)
	is("list/manifests/"+digest.FromString("elsewhere").String(), 404)
}
