package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// counted notes requests with their method and path, and answers HEAD with the digest if it is told to.
type counted struct {
	*fakeRegistry
	methods []string
}

func newCounted(t *testing.T, withDigest bool, m *img) *counted {
	c := &counted{fakeRegistry: newRegistry(t, m)}
	c.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.methods = append(c.methods, r.Method+" "+r.URL.Path)
		if withDigest {
			w.Header().Set("Docker-Content-Digest", m.root.Digest.String())
		}
		return false
	}
	return c
}

// Head asks for the digest and for nothing else; where the answer has none, it takes that of the manifest.
func TestHead(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	const manifest = "/v2/some/app/manifests/latest"
	for withDigest, want := range map[bool][]string{true: {"HEAD " + manifest}, false: {"HEAD " + manifest, "GET " + manifest}} {
		f := newCounted(t, withDigest, m)
		full, d, err := Head(t.Context(), f.name(), plain(t).Registry)
		if err != nil || full != f.host+"/some/app:latest" || d != m.root.Digest {
			t.Errorf("%s %s %v", full, d, err)
		}
		got := slices.DeleteFunc(f.methods, func(s string) bool { return s == "GET /v2/" })
		if !slices.Equal(got, want) {
			t.Errorf("asked for %q", got)
		}
	}
	f := newRegistry(t)
	_, _, err := Head(t.Context(), f.name(), plain(t).Registry)
	if !strings.HasPrefix(kindTold(err), "registry-unknown") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"/a.sif", "docker:x", "docker://", "oci:/a"} {
		if _, _, err := Head(t.Context(), name, plain(t).Registry); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A mirror is asked first, without the password of the registry, and the registry where the mirror has nothing.
func TestHeadMirrors(t *testing.T) {
	t.Parallel()
	m, old := newImg([]byte("new")), newImg([]byte("old"))
	mirror, upstream := newCounted(t, true, old), newCounted(t, true, m)
	o := conf(t, mirrored, upstream.host, mirror.host).Registry
	o.TLSVerify = nil
	o.User, o.Password = user, password
	count := mirror.lie
	mirror.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("the password went to the mirror")
		}
		return count(w, r, n)
	}
	full, d, err := Head(t.Context(), upstream.name(), o)
	if err != nil || d != old.root.Digest || full != upstream.host+"/some/app:latest" || len(upstream.methods) > 0 {
		t.Errorf("%s %s %v, upstream was asked %q", full, d, err, upstream.methods)
	}
	delete(mirror.manifests, "latest")
	if _, d, err = Head(t.Context(), upstream.name(), o); err != nil || d != m.root.Digest {
		t.Errorf("%s %v", d, err)
	}
}

// All tags are listed, over several pages.
func TestTags(t *testing.T) {
	t.Parallel()
	f := newRegistry(t)
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		if r.URL.RawQuery == "" {
			w.Header().Set("Link", `</v2/some/app/tags/list?last=2>; rel="next"`)
			fmt.Fprint(w, `{"name":"some/app","tags":["1","2"]}`)
		} else {
			fmt.Fprint(w, `{"name":"some/app","tags":["3"]}`)
		}
		return true
	}
	repository, tags, err := Tags(t.Context(), f.name(), plain(t).Registry)
	if err != nil || repository != f.host+"/some/app" || !slices.Equal(tags, []string{"1", "2", "3"}) {
		t.Errorf("%s %q %v", repository, tags, err)
	}
}

// Who is impatient asks once, and learns for how long the registry does not want to be asked.
func TestImpatient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		header string
		least  time.Duration
		most   time.Duration
	}{
		{"seconds", 429, "120", 2 * time.Minute, 2 * time.Minute},
		{"a time", 429, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Minute, time.Hour},
		{"past", 429, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0, 0},
		{"without", 429, "", 0, 0},
		{"negative", 429, "-5", 0, 0},
		{"huge", 429, "9223372036854775807", longestWait, longestWait},
		{"nonsense", 429, "soon", 0, 0},
		{"503", 503, "120", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, newImg())
			f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.URL.Path == "/v2/" {
					return false
				}
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.status)
				return true
			}
			for what, ask := range map[string]func(context.Context) error{
				"/latest": func(ctx context.Context) error {
					_, _, err := Head(ctx, f.name(), plain(t).Registry)
					return err
				},
				"/list": func(ctx context.Context) error {
					_, _, err := Tags(ctx, f.name(), plain(t).Registry)
					return err
				},
				"/other": func(ctx context.Context) error {
					_, err := Open(ctx, f.name()+":other", plain(t))
					return err
				},
			} {
				err := Impatient(t.Context(), ask)
				var limit *LimitError
				if is := errors.As(err, &limit); err == nil || is != (c.status == 429) {
					t.Errorf("%s: %v", what, err)
				} else if is && (limit.RetryAfter() < c.least || limit.RetryAfter() > c.most || !strings.HasPrefix(kindTold(err), "registry-limit")) {
					t.Errorf("%s: %v, %s", what, err, kindTold(err))
				}
				if n := len(f.asked(what)); n != 1 {
					t.Errorf("%s: asked %d times", what, n)
				}
			}
		})
	}
	want := errors.New("of the function")
	if err := Impatient(t.Context(), func(context.Context) error { return want }); err != want {
		t.Error(err)
	}
	limits.mu.Lock()
	defer limits.mu.Unlock()
	if limits.asks[goroutine()] != nil {
		t.Error("this goroutine is still watched")
	}
}
