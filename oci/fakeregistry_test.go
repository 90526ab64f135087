package oci

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeRegistry is a registry over plain HTTP that is honest unless lie says otherwise.
type fakeRegistry struct {
	*httptest.Server
	host      string
	manifests map[string]served // by tag and by digest
	blobs     map[digest.Digest][]byte
	lie       func(w http.ResponseWriter, r *http.Request, n int) bool // true: it has answered; n counts from 1, by path

	mu  sync.Mutex
	log []string // paths of requests, and their ranges
}

type served struct {
	raw       []byte
	mediaType string
}

func newRegistry(t *testing.T, images ...*img) *fakeRegistry {
	f := &fakeRegistry{manifests: map[string]served{}, blobs: map[digest.Digest][]byte{}}
	for _, m := range images {
		f.add("latest", m)
	}
	f.Server = httptest.NewServer(f)
	f.host = f.Listener.Addr().String()
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) add(tag string, m *img) {
	for d, b := range m.blobs {
		f.blobs[d] = b
		f.manifests[d.String()] = served{b, ""}
	}
	s := served{m.blobs[m.root.Digest], m.root.MediaType}
	f.manifests[tag], f.manifests[m.root.Digest.String()] = s, s
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := f.note(r); f.lie != nil && f.lie(w, r, n) {
		return
	}
	switch name := last(r); {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/"):
		m, ok := f.manifests[name]
		if !ok {
			fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		_, _ = w.Write(m.raw)
	default:
		b, ok := f.blobs[digest.Digest(name)]
		if !ok {
			fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func (f *fakeRegistry) note(r *http.Request) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.log {
		if path, _, _ := strings.Cut(l, " "); path == r.URL.Path {
			n++
		}
	}
	f.log = append(f.log, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	return n + 1
}

// asked lists the requests of what ends in suffix: for each its range, "" without one.
func (f *fakeRegistry) asked(suffix string) (ranges []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.log {
		if path, rng, _ := strings.Cut(l, " "); strings.HasSuffix(path, suffix) {
			ranges = append(ranges, rng)
		}
	}
	return ranges
}

func (f *fakeRegistry) name() string { return "docker://" + f.host + "/some/app" }

// plain are options for such a registry, with nothing of the system's.
func plain(t *testing.T) Options {
	t.Helper()
	no := false
	return Options{Registry: RegistryOptions{
		TLSVerify:      &no,
		AuthFile:       writeFile(t, "auth.json", []byte("{}")),
		RegistriesConf: writeFile(t, "registries.conf", nil),
	}}
}

func last(r *http.Request) string { return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] }

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"errors":[{"code":"` + code + `","message":"no"}]}`))
}

// cut answers with the first n bytes of what was asked for, and breaks the connection.
func cut(w http.ResponseWriter, b []byte, n int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// manifest makes an image whose manifest is raw.
func manifestOf(raw string, mediaType string) *img {
	m := newImg([]byte("a layer"))
	m.root = m.put(mediaType, []byte(raw))
	return m
}

// index makes an index of images.
func index(images ...*img) *img { return indexAs(v1.MediaTypeImageIndex, images...) }

func indexAs(mediaType string, images ...*img) *img {
	m := &img{blobs: map[digest.Digest][]byte{}}
	var list []v1.Descriptor
	for _, c := range images {
		for _, d := range c.list {
			if m.blobs[d.Digest] == nil {
				m.blobs[d.Digest] = c.blobs[d.Digest]
				m.list = append(m.list, d)
			}
		}
		list = append(list, c.root)
	}
	m.root = m.put(mediaType, asJSON(v1.Index{Versioned: versioned, MediaType: mediaType, Manifests: list}))
	return m
}
