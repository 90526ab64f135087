package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

func TestRegistry(t *testing.T) {
	t.Parallel()
	m := newImg(noise(300_000), []byte("small"), nil)
	f := newRegistry(t, m)
	o := plain(t)
	for _, name := range []string{f.name(), f.name() + ":latest", f.name() + "@" + m.root.Digest.String(),
		f.name() + ":old@" + m.root.Digest.String(), strings.Replace(f.name(), "docker:", "oras:", 1)} {
		i := mustOpen(t, name, o)
		m.check(t, i)
		if want := f.host + "/some/app"; !strings.HasPrefix(i.Name(), want) {
			t.Errorf("name of %s is %s", name, i.Name())
		}
	}
	ringtest.TestSource(t, func(t *testing.T) ring.Source { return mustOpen(t, f.name(), o) }, m.want()...)
}

// What an index holds, whole or of one platform.
func TestRegistryIndex(t *testing.T) {
	t.Parallel()
	amd, arm := imgFor("linux/amd64", []byte("same"), []byte("amd")), imgFor("linux/arm64", []byte("same"), []byte("arm"))
	all := index(amd, arm)
	f := newRegistry(t, all)
	o := plain(t)
	o.Platform = "linux/arm64"
	arm.check(t, mustOpen(t, f.name(), o))
	// The name of the index is not that of what was chosen.
	i := mustOpen(t, f.name()+"@"+all.root.Digest.String(), o)
	arm.check(t, i)
	if asked := f.host + "/some/app@"; i.Name() != asked+all.root.Digest.String() || i.Ref() != asked+arm.root.Digest.String() {
		t.Errorf("%s was asked for as %s and is called %s", arm.root.Digest, i.Name(), i.Ref())
	}
	o.Platform = "linux/s390x"
	openFails(t, f.name(), o, "none for linux/s390x, only for linux/amd64, linux/arm64")
	o.Platform, o.AllPlatforms = "", true
	all.check(t, mustOpen(t, f.name(), o))
	o.Platform = "amd64"
	openFails(t, f.name(), o, "only one can be asked for")
	o = plain(t)
	o.Platform = "arm64"
	one := newRegistry(t, amd)
	openFails(t, one.name(), o, "is for linux/amd64, not for linux/arm64")
	// The config tells the platform, and is not asked for again.
	o.Platform = "amd64"
	before := len(one.asked(amd.config.Digest.String()))
	amd.check(t, mustOpen(t, one.name(), o))
	if n := len(one.asked(amd.config.Digest.String())) - before; n != 1 {
		t.Errorf("the config was asked for %d times", n)
	}
}

// A registry that answers with other bytes than those asked for is never believed.
func TestRegistryOtherBytes(t *testing.T) {
	t.Parallel()
	m, other := newImg([]byte("good")), newImg([]byte("evil"))
	t.Run("manifest", func(t *testing.T) {
		f := newRegistry(t, m)
		f.manifests[m.root.Digest.String()] = served{other.blobs[other.root.Digest], v1.MediaTypeImageManifest}
		openFails(t, f.name()+"@"+m.root.Digest.String(), plain(t), "has other bytes than its digest says")
	})
	t.Run("child", func(t *testing.T) {
		f := newRegistry(t, index(m))
		raw := bytes.Replace(m.blobs[m.root.Digest], []byte(`"layers"`), []byte(`"Layers"`), 1)
		f.manifests[m.root.Digest.String()] = served{raw, v1.MediaTypeImageManifest}
		o := plain(t)
		o.Platform = "amd64"
		openFails(t, f.name(), o, "has other bytes than its digest says")
		f.manifests[m.root.Digest.String()] = served{append(raw, ' '), v1.MediaTypeImageManifest}
		openFails(t, f.name(), o, fmt.Sprintf("has %d bytes, not %d", len(raw)+1, len(raw)))
	})
	for _, c := range []struct{ name, body, want string }{
		{"layer", "evil", "has other bytes than its digest says"},
		{"longer", "goodness", "the registry has 8 bytes of it, and the manifest says 4"},
		{"longer, without a length", "goodness", "is longer than its 4 bytes"},
		{"shorter", "goo", "the registry has 3 bytes of it, and the manifest says 4"},
		{"shorter, without a length", "goo", "unexpected EOF"},
		{"empty", "", "the registry has 0 bytes of it, and the manifest says 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, m)
			f.blobs[m.layers[0].Digest] = []byte(c.body)
			f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if !strings.Contains(c.name, "without") || last(r) != m.layers[0].Digest.String() {
					return false
				}
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, c.body)
				return true
			}
			i := mustOpen(t, f.name(), plain(t))
			b, err := read(i, m.layers[0], 0)
			// What is short is asked for again and again, and may be whole then.
			if n := len(f.asked(m.layers[0].Digest.String())); (len(c.body) < 4) != (n == retries+1) {
				t.Errorf("asked %d times", n)
			}
			fails(t, err, c.want)
			if strings.Contains(c.want, "manifest says") && kindTold(err) == "" {
				t.Error("no hint: the same command would not go on")
			}
			if len(b) > 4 {
				t.Errorf("gave %q", b)
			}
			if b, err := read(i, m.layers[0], 2); len(c.body) > 4 && (err == nil || len(b) > 2) {
				t.Errorf("from its middle on gave %q, %v", b, err)
			}
		})
	}
}

const megabyte = 1 << 20

// Layers that break off: the rest is asked for where that is possible.
func TestRegistryTruncated(t *testing.T) {
	t.Parallel()
	layer := noise(3 * megabyte)
	m := newImg(layer)
	for _, c := range []struct {
		name string
		at   int // it breaks here
		lie  func(w http.ResponseWriter, r *http.Request, n int) bool
		want []string // ranges
		fail string
	}{
		{"once, then by range", 2 * megabyte, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				cut(w, layer, 2*megabyte)
			}
			return false
		}, []string{"", fmt.Sprintf("bytes=%d-", 2*megabyte)}, ""},
		{"once, without ranges", megabyte / 2, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				cut(w, layer, megabyte/2)
			}
			r.Header.Del("Range")
			return false
		}, []string{"", fmt.Sprintf("bytes=%d-", megabyte/2), ""}, ""},
		{"twice at once", megabyte / 2, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n <= 2 {
				if n == 2 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", megabyte/2, len(layer)-1, len(layer)))
					w.WriteHeader(http.StatusPartialContent)
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				cut(w, layer, megabyte/2)
			}
			return false
		}, []string{"", fmt.Sprintf("bytes=%d-", megabyte/2), ""}, ""},
		{"without a length", megabyte / 2, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 { // a body of chunks that ends too early but well
				_, _ = w.Write(layer[:megabyte/2])
				w.(http.Flusher).Flush()
				return true
			}
			return false
		}, []string{"", ""}, ""},
		{"always", megabyte / 2, func(w http.ResponseWriter, r *http.Request, n int) bool {
			cut(w, layer, megabyte/2)
			return true
		}, nil, "unexpected EOF"},
		{"always gone", megabyte / 2, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				cut(w, layer, megabyte/2)
			}
			fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
			return true
		}, nil, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, m)
			blob := m.layers[0].Digest.String()
			f.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
				return last(r) == blob && c.lie(w, r, n)
			}
			i := mustOpen(t, f.name(), plain(t))
			b, err := read(i, m.layers[0], 0)
			asked := f.asked(blob)
			if c.fail != "" {
				fails(t, err, c.fail)
				if len(b) > c.at || len(asked) > 2*(retries+1) {
					t.Errorf("gave %d bytes, asked for %q", len(b), asked)
				}
				return
			}
			if err != nil || !bytes.Equal(b, layer) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if fmt.Sprint(asked) != fmt.Sprint(c.want) || len(asked) != len(c.want) {
				t.Errorf("asked for %q, want %q", asked, c.want)
			}
		})
	}
}

// brokenSource gives bodies one after the other.
type brokenSource struct {
	types.ImageSource
	bodies []io.Reader
}

func (s *brokenSource) GetBlob(context.Context, types.BlobInfo, types.BlobInfoCache) (io.ReadCloser, int64, error) {
	b := s.bodies[0]
	s.bodies = s.bodies[1:]
	return io.NopCloser(b), -1, nil
}

// lastWords are bytes that come together with an error, and what the library says when it
// is asked once more.
type lastWords struct {
	s   string
	err error
}

func (r *lastWords) Read(b []byte) (int, error) {
	if r.s == "" {
		return 0, errors.New("internal error: read from a closed object")
	}
	n := copy(b, r.s)
	r.s = ""
	return n, r.err
}

// As TLS does it: the last bytes come with the error, which must not be lost.
// A registry that stops in the middle, its connection open, is asked again; one that never answers
// is given up.
func TestRegistryStalls(t *testing.T) {
	stall, answer := stallLimit, manifestLimit
	stallLimit = time.Second // long enough for an honest answer on a busy machine
	t.Cleanup(func() { stallLimit, manifestLimit = stall, answer })
	m := newImg(bytes.Repeat([]byte("layer"), 100_000))
	f := newRegistry(t, m)
	layer := m.layers[0].Digest
	f.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if last(r) != layer.String() || n > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(m.blobs[layer])))
		_, _ = w.Write(m.blobs[layer][:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	image, err := Open(t.Context(), f.name(), plain(t))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	rc, err := image.Open(t.Context(), m.layers[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(got, m.blobs[layer]) {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
	if n := len(f.asked(layer.String())); n < 2 {
		t.Errorf("asked %d times", n)
	}

	manifestLimit = time.Second
	f.lie = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			<-r.Context().Done()
		}
		return false
	}
	if _, err := Open(t.Context(), f.name(), plain(t)); err == nil || !strings.Contains(err.Error(), "no answer in") {
		t.Errorf("a registry that does not answer: %v", err)
	}
}

func TestRegistryErrorWithBytes(t *testing.T) {
	d := v1.Descriptor{Digest: digest.FromString("abcdef"), Size: 6}
	r := &registry{src: &brokenSource{bodies: []io.Reader{
		&lastWords{"abc", io.ErrUnexpectedEOF}, strings.NewReader("abcdef")}}}
	rc, err := r.blob(context.Background(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rc); string(b) != "abcdef" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
