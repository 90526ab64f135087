package oci

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
)

// secureRegistry is f with TLS and a login, where before may answer first; the options trust it.
func secureRegistry(t *testing.T, f http.Handler, before func(http.ResponseWriter, *http.Request) bool) (host string, o Options) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !before(w, r) {
			f.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	ca := writeFile(t, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	o = plain(t)
	o.Registry.TLSVerify = nil
	o.Registry.CertDir = strings.TrimSuffix(ca, "/ca.crt")
	o.Registry.User, o.Registry.Password = user, password
	return s.Listener.Addr().String(), o
}

// What is asked with TLS goes nowhere without: neither by a redirect nor to log in.
func TestRegistryRedirectsToPlain(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	for name, redirects := range map[string]func(w http.ResponseWriter, r *http.Request, to string) bool{
		"blob": func(w http.ResponseWriter, r *http.Request, to string) bool {
			return strings.Contains(r.URL.Path, "/blobs/") && redirect(w, r, to)
		},
		"manifest": func(w http.ResponseWriter, r *http.Request, to string) bool {
			return strings.Contains(r.URL.Path, "/manifests/") && redirect(w, r, to)
		},
		"login": func(w http.ResponseWriter, r *http.Request, to string) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+to+`/token",service="here"`)
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return true
		},
	} {
		for _, verify := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newRegistry(t, m)
				var mu sync.Mutex
				var seen []string
				elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					seen = append(seen, r.URL.Path)
					mu.Unlock()
					f.ServeHTTP(w, r)
				}))
				t.Cleanup(elsewhere.Close)
				host, o := secureRegistry(t, f, func(w http.ResponseWriter, r *http.Request) bool {
					return redirects(w, r, elsewhere.URL)
				})
				if !verify {
					no := false
					o.Registry.TLSVerify = &no
				}
				i, err := Open(t.Context(), "docker://"+host+"/some/app", o)
				if err == nil {
					defer i.Close()
					_, err = read(i, m.list[0], 0)
				}
				fails(t, err, "a place without, which is refused")
				mu.Lock()
				defer mu.Unlock()
				if len(seen) > 0 {
					t.Errorf("asked without TLS: %v", seen)
				}
			})
		}
	}
}

func redirect(w http.ResponseWriter, r *http.Request, to string) bool {
	http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	return true
}

// Where a registry without TLS sends us, with or without, is no step down.
func TestRegistryRedirects(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	f := newRegistry(t, m)
	store := newRegistry(t, m)
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		return strings.Contains(r.URL.Path, "/blobs/") && redirect(w, r, "http://"+store.host)
	}
	m.check(t, mustOpen(t, f.name(), plain(t)))
	// With TLS to another host with TLS.
	other, _ := secureRegistry(t, store, func(http.ResponseWriter, *http.Request) bool { return false })
	host, o := secureRegistry(t, store, func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/blobs/") && redirect(w, r, "https://"+other)
	})
	no := false // both have certificates of their own
	o.Registry.TLSVerify = &no
	m.check(t, mustOpen(t, "docker://"+host+"/some/app", o))
}

// Which connections are allowed, in the order in which they come.
func TestSchemes(t *testing.T) {
	t.Parallel()
	type conn struct {
		host    string
		withTLS bool
		want    bool
	}
	for name, tt := range map[string]struct {
		conf  string
		conns []conn
	}{
		"with TLS": {"", []conn{{"reg.io:443", true, true}, {"cdn.io:443", true, true}, {"cdn.io:80", false, false}, {"reg.io:80", false, false}}},
		"without": {"[[registry]]\nlocation=\"reg.io\"\ninsecure=true", []conn{
			{"reg.io:80", false, true}, {"cdn.io:80", false, true}, {"cdn.io:443", true, true}, {"cdn.io:80", false, true}}},
		"not known to have none": {"", []conn{{"reg.io:80", false, false}}},
		"a mirror without TLS, then the registry": {"[[registry]]\nlocation=\"reg.io\"\n[[registry.mirror]]\nlocation=\"near:5000\"\ninsecure=true", []conn{
			{"near:5000", false, true}, {"reg.io:443", true, true}, {"elsewhere:80", false, false}}},
		"a mirror with TLS, then a registry without": {"[[registry]]\nlocation=\"reg.io\"\ninsecure=true\n[[registry.mirror]]\nlocation=\"near:5000\"", []conn{
			{"near:5000", true, true}, {"reg.io:80", false, true}, {"elsewhere:80", false, true}, {"near:5000", false, false}}},
		"through a proxy": {"", []conn{{"proxy:3128", true, true}, {"proxy:3128", false, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			named, err := reference.ParseNormalizedNamed("reg.io/some/app:1")
			if err != nil {
				t.Fatal(err)
			}
			s, err := newDowngradeGuard(&types.SystemContext{SystemRegistriesConfPath: writeFile(t, "registries.conf", []byte(tt.conf)), SystemRegistriesConfDirPath: t.TempDir()}, named)
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range tt.conns {
				if got := s.allow(c.host, c.withTLS); got != c.want {
					t.Errorf("connection %d, %+v: %v", i, c, got)
				}
			}
		})
	}
}

// A URL that lets in whoever has it is in no error.
func TestRegistrySignedURL(t *testing.T) {
	m := newImg([]byte("a layer"))
	f := newRegistry(t, m)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, r, dead.URL+"/bucket?X-Amz-Signature="+token, http.StatusTemporaryRedirect)
		return true
	}
	i := mustOpen(t, f.name(), plain(t))
	_, err := read(i, m.list[0], 0)
	fails(t, err, "/bucket")
	silent(t, err)
}

// A password is for one registry, not for each that a short name may be of.
func TestShortNameWithPassword(t *testing.T) {
	t.Parallel()
	f := newRegistry(t, newImg([]byte("a layer")))
	o := plain(t)
	o.Registry.User, o.Registry.Password = user, password
	o.Registry.RegistriesConf = writeFile(t, "registries.conf", []byte(`unqualified-search-registries = ["`+f.host+`", "other.example"]`))
	openFails(t, "docker://app", o, "a password is only for one of them")
}

// A name with a tag and a digest is the digest's: for the policy, and for the cache.
func TestNameWithBoth(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	f := newRegistry(t, m)
	i := mustOpen(t, f.name()+":latest@"+m.root.Digest.String(), plain(t))
	if want := strings.TrimPrefix(f.name(), "docker://") + "@" + m.root.Digest.String(); i.Name() != want {
		t.Errorf("name is %s, want %s", i.Name(), want)
	}
}
