package warmer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/sif"
)

var both = []string{"linux/amd64", "linux/arm64"}

// A tag is asked for with HEAD, and for nothing else while it has the digest that is known. Where it has moved, each platform gets
// its own image.
func TestLookup(t *testing.T) {
	f := newFakeRegistry(t)
	amd, arm := f.image("linux/amd64", "amd"), f.image("linux/arm64", "arm, which is longer")
	list := f.index(amd, arm)
	f.tag("25", list)
	ref := "docker://" + f.host + "/ml/torch:25"
	l := &warm.Lookup{Image: warm.Image{Ref: ref}, Platforms: both}
	tags, err := new(Effects).Lookup(t.Context(), l)
	name := f.host + "/ml/torch:25"
	size := func(d v1.Descriptor, layer string) int64 {
		var m v1.Manifest
		decode(t, f.blobs[d.Digest], &m)
		return d.Size + m.Config.Size + int64(len(layer))
	}
	want := []warm.Tag{{Ref: ref, List: list.Digest, Variants: []warm.Found{
		{Platform: "linux/amd64", Name: name, Digest: amd.Digest, Bytes: size(amd, "amd")},
		{Platform: "linux/arm64", Name: name, Digest: arm.Digest, Bytes: size(arm, "arm, which is longer")}}}}
	if err != nil || !reflect.DeepEqual(tags, want) {
		t.Fatalf("got  %+v, %v\nwant %+v", tags, err, want)
	}
	for _, r := range f.asked()[1:] {
		if strings.HasSuffix(r, "manifests/25") {
			t.Errorf("the tag was asked for again: %s", r)
		}
	}
	l.Known = map[string]digest.Digest{ref: list.Digest}
	tags, err = new(Effects).Lookup(t.Context(), l)
	if asked := f.asked(); err != nil || !reflect.DeepEqual(tags, []warm.Tag{{Ref: ref, List: list.Digest}}) || !slices.Equal(asked, []string{"HEAD manifests/25"}) {
		t.Errorf("%+v, %v, asked for %q", tags, err, asked)
	}
	// It moves to an image of one platform.
	f.tag("25", amd)
	tags, err = new(Effects).Lookup(t.Context(), l)
	if err != nil || tags[0].List != amd.Digest || len(tags[0].Variants) != 1 || tags[0].Variants[0].Digest != amd.Digest {
		t.Errorf("%+v, %v", tags, err)
	}
	// A reference with a digest is never asked for again.
	f.asked()
	l.Image.Ref = "docker://" + f.host + "/ml/torch@" + list.Digest.String()
	if tags, err = new(Effects).Lookup(t.Context(), l); err != nil || tags[0].List != list.Digest || len(tags[0].Variants) != 2 {
		t.Errorf("%+v, %v", tags, err)
	}
	if asked := f.asked(); slices.Contains(asked, "HEAD manifests/25") || len(asked) == 0 {
		t.Errorf("asked for %q", asked)
	}
	l.Known = map[string]digest.Digest{l.Image.Ref: list.Digest}
	if _, err = new(Effects).Lookup(t.Context(), l); err != nil || len(f.asked()) > 0 {
		t.Error(err)
	}
}

// A name in the caches is just the one that a push gives, and so is the digest, whatever the image is.
func TestLookupNames(t *testing.T) {
	f := newFakeRegistry(t)
	amd, arm := f.image("linux/amd64", "amd"), f.image("linux/arm64", "arm")
	list := f.index(amd, arm)
	f.tag("25", list)
	f.tag("latest", amd)
	dir := t.TempDir()
	f.layout(t, dir+"/layout", map[string]v1.Descriptor{"25": list, "docker.io/lab/chem:1": amd})
	f.layout(t, dir+"/one", map[string]v1.Descriptor{"v1": list})
	pack(t, dir+"/one", dir+"/one.tar")
	if err := sif.Create(dir+"/tool.sif", strings.NewReader("a file system"), sif.CreateOptions{Arch: "amd64"}); err != nil {
		t.Fatal(err)
	}
	repo := "docker://" + f.host + "/ml/torch"
	for _, i := range []warm.Image{
		{Ref: repo + ":25"}, {Ref: repo}, {Ref: "docker://ml/torch:25"}, {Ref: "oras://" + f.host + "/ml/torch:25"}, {Ref: repo + ":25", Name: "torch"},
		{Ref: repo + "@" + list.Digest.String()}, {Ref: repo + ":25@" + amd.Digest.String()}, {Ref: repo + "@" + list.Digest.String(), Name: "lab/torch:1"},
		{Ref: dir + "/tool.sif"}, {Ref: dir + "/tool.sif", Name: "tool"}, {Ref: dir + "/one.tar"}, {Ref: dir + "/one"}, {Ref: "oci-archive:" + dir + "/one.tar:v1"},
		{Ref: "oci:" + dir + "/layout:25"}, {Ref: "oci:" + dir + "/layout:docker.io/lab/chem:1"}, {Ref: "oci:" + dir + "/layout:" + list.Digest.String()},
	} {
		tags, err := new(Effects).Lookup(t.Context(), &warm.Lookup{Image: i, Platforms: []string{"linux/amd64"}})
		if err != nil || len(tags) != 1 || len(tags[0].Variants) != 1 || tags[0].Ref != i.Ref {
			t.Errorf("%+v: %+v, %v", i, tags, err)
			continue
		}
		var m meta.Transfer
		if i.Name != "" { // push completes it so
			if i.Name, err = oci.FullName(i.Name); err != nil {
				t.Fatal(err)
			}
		}
		source, err := image.Open(t.Context(), i.Ref, image.Options{OCI: oci.Options{Platform: "linux/amd64", Name: i.Name}, NoCache: true}, &m)
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := source.Blobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		source.(io.Closer).Close()
		if got := tags[0].Variants[0]; got.Name != m.Ref || got.Digest != blobs[len(blobs)-1].Digest {
			t.Errorf("%+v: %+v, a push has %s %s", i, got, m.Ref, blobs[len(blobs)-1].Digest)
		}
	}
}

// Of a pattern, tags that match are looked up, each by itself: one that is broken does not concern the others.
func TestLookupTags(t *testing.T) {
	f := newFakeRegistry(t)
	for _, tag := range []string{"25.1", "25.2", "24.9", "latest"} {
		f.tag(tag, f.image("linux/amd64", tag))
	}
	f.tag("25.3", v1.Descriptor{Digest: digest.FromString("was deleted")})
	f.tag("25.4", f.image("linux/s390x", "of another platform"))
	repo := "docker://" + f.host + "/ml/torch"
	l := &warm.Lookup{Image: warm.Image{Ref: repo, Tags: "25.*"}, Platforms: both[:1], Known: map[string]digest.Digest{repo + ":25.2": f.tags["25.2"]}}
	tags, err := new(Effects).Lookup(t.Context(), l)
	if err != nil || len(tags) != 4 {
		t.Fatalf("%+v, %v", tags, err)
	}
	for i, want := range []struct {
		tag      string
		variants int
		why      string
	}{{"25.1", 1, ""}, {"25.2", 0, ""}, {"25.3", 0, "the registry has no such image or tag (404)"}, {"25.4", 0, ""}} {
		got := tags[i]
		if got.Ref != repo+":"+want.tag || len(got.Variants) != want.variants || got.Why != want.why || want.variants > 0 && got.Variants[0].Name != f.host+"/ml/torch:"+want.tag {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	asked := f.asked()
	if slices.Sort(asked); len(slices.Compact(slices.Clone(asked))) != len(asked) || slices.Contains(asked, "HEAD manifests/24.9") {
		t.Errorf("asked for %q", asked)
	}
	// The registry wants to be left alone after the first answers.
	n := 0
	f.mu.Lock()
	f.instead = func(w http.ResponseWriter, r *http.Request) bool {
		if n++; n < 8 {
			return false
		}
		w.Header().Set("Retry-After", "77")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	f.mu.Unlock()
	_, err = new(Effects).Lookup(t.Context(), l)
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) || later.RetryAfter() != 77*time.Second {
		t.Errorf("%v", err)
	}
	f.mu.Lock()
	f.instead = nil
	for i := range mostTags {
		f.tags[fmt.Sprint("25.x", i)] = f.tags["25.1"]
	}
	f.mu.Unlock()
	if _, err = new(Effects).Lookup(t.Context(), l); err == nil || !strings.HasPrefix(err.Error(), "1004 tags match, at most 1000") {
		t.Errorf("%v", err)
	}
}

// What goes wrong is said in plain words, after one request, and without credentials.
func TestLookupErrors(t *testing.T) {
	f := newFakeRegistry(t)
	one, other := f.image("linux/amd64", "one"), f.image("linux/amd64", "other")
	f.tag("25", one)
	code := func(status int, header ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			if r.URL.Path != "/v2/" {
				w.WriteHeader(status)
			}
			return r.URL.Path != "/v2/"
		}
	}
	const secret = "s3cr3t-passw0rd"
	for _, c := range []struct {
		name    string
		instead func(http.ResponseWriter, *http.Request) bool
		want    string
		wait    time.Duration
	}{
		{"401", code(401), "the registry does not let us read it: ", 0},
		{"403", code(403), "the registry does not let us read it: ", 0},
		{"404", code(404), "the registry has no such image or tag (404)", 0},
		{"429", code(429, "Retry-After", "120"), "the registry does not want to be asked for 2m0s (429)", 2 * time.Minute},
		{"429 without", code(429), "the registry does not want to be asked so often (429)", 0},
		{"500", code(500), "the registry fails (500 Internal Server Error)", 0},
		{"503", code(503, "Retry-After", "120"), "the registry fails (503 Service Unavailable)", 0},
		{"redirect to a token", code(307, "Location", "http://somebody:"+secret+"@127.0.0.1:1/x?token="+secret), "the registry is not there: the connection is refused", 0},
		{"bad redirect", code(307, "Location", "gopher://somebody:"+secret+"@127.0.0.1:1/x?token="+secret), "", 0},
		{"a page in place of a manifest", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", digest.FromString("<html>").String())
			w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
			_, _ = io.WriteString(w, "<html>")
			return true
		}, "", 0},
		{"another image than its header says", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.Header().Set("Docker-Content-Digest", other.Digest.String())
				return true
			}
			if strings.HasSuffix(r.URL.Path, "/"+other.Digest.String()) {
				w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
				_, _ = w.Write(f.blobs[one.Digest])
				return true
			}
			return false
		}, "image docker://" + f.host + "/ml/torch:25@" + other.Digest.String() + ": has other bytes than its digest says", 0},
	} {
		f.mu.Lock()
		f.instead, f.requests = c.instead, nil
		f.mu.Unlock()
		file := filepath.Join(t.TempDir(), "auth.json")
		auth := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, f.host, base64.StdEncoding.EncodeToString([]byte("somebody:"+secret)))
		if err := os.WriteFile(file, []byte(auth), 0o600); err != nil {
			t.Fatal(err)
		}
		tags, err := new(Effects).Lookup(t.Context(), &warm.Lookup{Image: warm.Image{Ref: "docker://" + f.host + "/ml/torch:25", AuthFile: file}, Platforms: both[:1]})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v", c.name, tags, err)
			continue
		}
		t.Logf("%s: %v", c.name, err)
		var later interface{ RetryAfter() time.Duration }
		var sure interface{ Sure() bool }
		if want := slices.Contains([]string{"401", "403", "404"}, c.name); !errors.As(err, &sure) || sure.Sure() != want {
			t.Errorf("%s: it is for sure: %v, want %v", c.name, !want, want)
		}
		if is := errors.As(err, &later); is != strings.HasPrefix(c.name, "429") || is && later.RetryAfter() != c.wait {
			t.Errorf("%s: %v", c.name, err)
		}
		if asked := f.asked(); c.want != "" && len(asked) > 2 || asked[0] != "HEAD manifests/25" {
			t.Errorf("%s: asked for %q", c.name, asked)
		}
	}
}

// A file that is not there, or not whole yet, may be so soon: it is asked for again as whatever fails.
func TestLookupHalfFile(t *testing.T) {
	f := newFakeRegistry(t)
	dir := t.TempDir()
	f.layout(t, dir+"/one", map[string]v1.Descriptor{"v1": f.image("linux/amd64", "one")})
	pack(t, dir+"/one", dir+"/whole.tar")
	whole, err := os.ReadFile(dir + "/whole.tar")
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{"none": nil, "a head": whole[:600], "a half": whole[:len(whole)/2], "other bytes": []byte("rubbish")} {
		path := filepath.Join(dir, "image.tar")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if what == "none" {
			os.Remove(path)
		}
		_, err := new(Effects).Lookup(t.Context(), &warm.Lookup{Image: warm.Image{Ref: path}, Platforms: both[:1]})
		var sure interface{ Sure() bool }
		if err == nil || !errors.As(err, &sure) || sure.Sure() {
			t.Errorf("%s: %v is for sure", what, err)
		}
	}
}

// A registry that cannot be spoken to.
func TestLookupNoRegistry(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	configure(t, "")
	look := func(ctx context.Context, ref string) string {
		_, err := new(Effects).Lookup(ctx, &warm.Lookup{Image: warm.Image{Ref: ref}, Platforms: both[:1]})
		return fmt.Sprint(err)
	}
	for _, c := range []struct{ host, want string }{
		{secure.Listener.Addr().String(), "the certificate of the registry is not trusted: x509: "},
		{plain.Listener.Addr().String(), "the registry has no TLS: "},
		{gone.Listener.Addr().String(), "the registry is not there: the connection is refused"},
	} {
		if got := look(t.Context(), "docker://"+c.host+"/ml/torch:25"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := look(ctx, "docker://"+plain.Listener.Addr().String()+"/ml/torch:25"); !strings.Contains(got, "context canceled") {
		t.Error(got)
	}
	if got := look(t.Context(), "docker://localhost/ml/torch@sha256:12"); !strings.Contains(got, "is no digest") {
		t.Error(got)
	}
	if _, err := new(Effects).Lookup(t.Context(), &warm.Lookup{Image: warm.Image{Ref: "/none/tool.sif", Name: "UPPER"}}); err == nil || !strings.HasPrefix(err.Error(), "name UPPER: ") {
		t.Error(err)
	}
	if got := look(t.Context(), "/none/tool.sif"); got != "/none/tool.sif: no such file or directory" {
		t.Error(got)
	}
}

// What is told of an error has no user, no password and no token, however they are written, and still has its digests.
func TestClean(t *testing.T) {
	sha := "sha256:" + strings.Repeat("0a", 32)
	for text, want := range map[string]string{
		`docker://r/a:1@` + sha + `: bad`:                              `docker://r/a:1@` + sha + `: bad`,
		`docker://u:p@r/a:1@` + sha + `: bad`:                          `docker://r/a:1@` + sha + `: bad`,
		`Get "http://u:p/w@r/v2/?token=x": EOF`:                        `Get "http://r/v2/": EOF`,
		`invalid proxy address "http://u:p w\"x@r:1": no "http://y z"`: `invalid proxy address "http://r:1": no "http://y z"`,
		`said Bearer abc, "basic dTpw"`:                                `said Bearer …, "basic …"`,
		`/srv/never@home.sif: no such file`:                            `/srv/never@home.sif: no such file`,
	} {
		if got := clean(text); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// A file is read once, and again when it has changed or something else is asked of it.
func TestLookupFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool.sif")
	reads := 0
	read := func(_ context.Context, img, name, platform, _ string) (warm.Found, error) {
		reads++
		text, err := os.ReadFile(img)
		return warm.Found{Name: name, Digest: digest.FromBytes(text)}, err
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var f files
	l := &warm.Lookup{Image: warm.Image{Ref: path, Name: "a"}, Platforms: both[:1]}
	look := func(wantReads int, want string) {
		t.Helper()
		reads = 0
		tag, err := f.lookup(t.Context(), l, read)
		if err != nil || reads != wantReads || tag.Variants[0].Digest != digest.FromString(want) || tag.Variants[0].Name != l.Image.Name {
			t.Errorf("%d reads, %+v, %v", reads, tag, err)
		}
	}
	write("one")
	look(1, "one")
	look(1, "one") // a change in the same moment would not show
	f.now = func() time.Time { return time.Now().Add(time.Hour) }
	look(1, "one")
	look(0, "one")
	l.Image.Name = "b"
	look(1, "one")
	l.Platforms = both
	look(2, "one")
	look(0, "one")
	write("the second")
	look(2, "the second")
	// One that changes while it is read is not taken.
	changing := func(ctx context.Context, img, name, platform, auth string) (warm.Found, error) {
		found, err := read(ctx, img, name, platform, auth)
		write("the third one")
		return found, err
	}
	l.Image.Name = "c"
	if tag, err := f.lookup(t.Context(), l, changing); err == nil {
		t.Errorf("%+v", tag)
	}
}
