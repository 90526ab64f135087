package oci

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// conf are options with this registries.conf and nothing else.
func conf(t *testing.T, format string, args ...any) Options {
	t.Helper()
	o := plain(t)
	o.Registry.RegistriesConf = writeFile(t, "registries.conf", fmt.Appendf(nil, format, args...))
	return o
}

// Short names: an alias, the registries to search in their order, none.
func TestShortNames(t *testing.T) {
	t.Parallel()
	a, b := newImg([]byte("in a")), newImg([]byte("in b"))
	fa, fb := newRegistry(t, a), newRegistry(t, b)
	delete(fa.manifests, "latest")
	fa.manifests["1"] = fa.manifests[a.root.Digest.String()]
	fb.manifests["1"] = fb.manifests["latest"]

	search := conf(t, "unqualified-search-registries = [%q, %q]\n", fa.host, fb.host)
	i := mustOpen(t, "docker://some/app:1", search)
	a.check(t, i)
	if i.Name() != fa.host+"/some/app:1" || len(fb.log) != 0 {
		t.Errorf("%s, and the second registry was asked for %q", i.Name(), fb.log)
	}
	i = mustOpen(t, "docker://some/app", search)
	b.check(t, i)
	if i.Name() != fb.host+"/some/app:latest" {
		t.Errorf("%s", i.Name())
	}
	b.check(t, mustOpen(t, "docker://some/app@"+b.root.Digest.String(), search))
	err := openFails(t, "docker://some/app:none", search, fa.host+"/some/app:none: ")
	fails(t, err, fb.host+"/some/app:none: ")

	alias := conf(t, "unqualified-search-registries = [%q]\n[aliases]\n\"short\" = \"%s/some/app\"\n", fa.host, fb.host)
	b.check(t, mustOpen(t, "docker://short", alias))
	a.check(t, mustOpen(t, "docker://other:1", alias))
	if n := len(fa.asked("/short/manifests/latest")); n != 0 {
		t.Errorf("%d requests for an alias went to the registries to search", n)
	}
	openFails(t, "docker://UPPER", alias, "is no name of an image")
	openFails(t, "docker:some/app", alias, "want docker://NAME")
	openFails(t, "docker://", alias, "want docker://NAME")
	openFails(t, "docker://some/app", conf(t, "unqualified-search-registries = 7"), "registries.conf")
	bad := conf(t, "")
	bad.Registry.RegistriesConf = t.TempDir() + "/none"
	openFails(t, "docker://some/app", bad, "none")
}

// A short name nobody configured is one of docker.io.
func TestShortNameDefault(t *testing.T) {
	list, err := names(conf(t, "").Registry.system(), "app:1")
	if err != nil || len(list) != 1 || list[0].String() != "docker.io/library/app:1" {
		t.Errorf("%v, %v", list, err)
	}
}

// mirrored is a registry with one mirror, and twoMirrors one with two. The hosts are the arguments of conf.
const (
	mirrored   = "[[registry]]\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = \"%s/copy\"\ninsecure = true\n"
	twoMirrors = mirrored + "[[registry.mirror]]\nlocation = \"%s/copy\"\ninsecure = true\n"
)

// A mirror that has the image gives all of it, without the password of the registry.
func TestMirrorAnswers(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	mirror, upstream := newRegistry(t, m), newRegistry(t)
	o := conf(t, mirrored, upstream.host, mirror.host)
	o.Registry.TLSVerify = nil // registries.conf says it
	o.Registry.User, o.Registry.Password = user, password
	mirror.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("the upstream's password went to the mirror")
		}
		return false
	}
	i := mustOpen(t, upstream.name(), o)
	m.check(t, i)
	if i.Name() != upstream.host+"/some/app:latest" {
		t.Errorf("name is %s", i.Name())
	}
	if len(upstream.log) != 0 {
		t.Errorf("upstream was asked for %q", upstream.log)
	}
	if n := len(mirror.asked("/v2/copy/some/app/manifests/latest")); n != 1 {
		t.Errorf("the mirror was asked %d times: %q", n, mirror.log)
	}
}

// The registry is asked when its mirror does not have the image.
func TestMirrors(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	status := func(code int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	for _, code := range []int{404, 401, 500} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			mirror, upstream := newRegistry(t), newRegistry(t, m)
			mirror.lie = status(code)
			o := conf(t, mirrored, upstream.host, mirror.host)
			m.check(t, mustOpen(t, upstream.name(), o))
			for _, l := range mirror.log {
				if strings.Contains(l, "/blobs/") {
					t.Errorf("the mirror was asked for %s", l)
				}
			}
		})
	}
	t.Run("is dead", func(t *testing.T) {
		mirror, upstream := newRegistry(t), newRegistry(t, m)
		mirror.Close()
		m.check(t, mustOpen(t, upstream.name(), conf(t, mirrored, upstream.host, mirror.host)))
	})
	t.Run("both 404", func(t *testing.T) {
		mirror, upstream := newRegistry(t), newRegistry(t)
		err := openFails(t, upstream.name(), conf(t, mirrored, upstream.host, mirror.host), "manifest unknown")
		fails(t, err, mirror.host)
		if !strings.HasPrefix(kindTold(err), "registry-unknown") {
			t.Errorf("kind is %q", kindTold(err))
		}
	})
	t.Run("lies", func(t *testing.T) {
		mirror, upstream := newRegistry(t, newImg([]byte("evil"))), newRegistry(t, m)
		d := m.root.Digest.String()
		mirror.manifests[d] = mirror.manifests["latest"]
		openFails(t, upstream.name()+"@"+d, conf(t, mirrored, upstream.host, mirror.host), "has other bytes than its digest says")
	})
	t.Run("blocked", func(t *testing.T) {
		f := newRegistry(t, m)
		openFails(t, f.name(), conf(t, "[[registry]]\nlocation = %q\nblocked = true\n", f.host), "blocked")
		if len(f.log) != 0 {
			t.Errorf("asked for %q", f.log)
		}
	})
}

// nodeRegistry is the mirror of a node. It has an image of its own, which is what the tag was when it was pushed there.
func nodeRegistry(t *testing.T) *fakeRegistry {
	f := newRegistry(t, newImg([]byte("what the tag was")))
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set(nodeMirror, "1")
		return false
	}
	return f
}

// A mirror that belongs to a node is not asked, unless the user wrote its address.
func TestMirrorsOfNodes(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	t.Run("beside its registry", func(t *testing.T) {
		mirror, other, upstream := nodeRegistry(t), newRegistry(t, m), newRegistry(t, m)
		for _, name := range []string{upstream.name(), upstream.name() + "@" + m.root.Digest.String(), upstream.name() + ":latest"} {
			o := conf(t, mirrored, upstream.host, mirror.host)
			m.check(t, mustOpen(t, name, o))
			m.check(t, mustOpen(t, name, conf(t, twoMirrors, upstream.host, mirror.host, other.host)))
			m.check(t, mustOpen(t, name, conf(t, twoMirrors, upstream.host, other.host, mirror.host)))
		}
		if n := len(mirror.asked("/manifests/latest")) + len(mirror.asked("/blobs/"+m.list[0].Digest.String())); n != 0 {
			t.Errorf("the node was asked %d times: %q", n, mirror.log)
		}
		if n := len(other.asked("/v2/copy/some/app/manifests/latest")); n != 4 {
			t.Errorf("the other mirror was asked %d times: %q", n, other.log)
		}
		upstream.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			fail(w, http.StatusNotFound, "NONE")
			return true
		}
		openFails(t, upstream.name(), conf(t, mirrored, upstream.host, mirror.host), "")
	})
	t.Run("as the registry itself", func(t *testing.T) {
		mirror := nodeRegistry(t)
		o := conf(t, "[[registry]]\nprefix = \"reg.example\"\nlocation = %q\ninsecure = true\n", mirror.host)
		err := openFails(t, "docker://reg.example/some/app", o, "is the mirror of a node")
		if kindTold(err) == "" || len(mirror.asked("/manifests/latest")) > 0 {
			t.Errorf("kind %q, asked for %q", kindTold(err), mirror.log)
		}
		openFails(t, "docker://app", conf(t, "unqualified-search-registries = [%q]\n", mirror.host), "is the mirror of a node")
		mustOpen(t, mirror.name(), plain(t)) // it was asked for by its address
	})
	t.Run("that is away", func(t *testing.T) {
		mirror, upstream := nodeRegistry(t), newRegistry(t, m)
		mirror.lie = func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) }
		m.check(t, mustOpen(t, upstream.name(), conf(t, mirrored, upstream.host, mirror.host)))
		if n := len(mirror.asked("/manifests/latest")); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

// A registry without TLS is not spoken to when nobody allowed that.
func TestRegistryTLS(t *testing.T) {
	t.Parallel()
	f := newRegistry(t, newImg([]byte("a layer")))
	yes := true
	for _, verify := range []*bool{nil, &yes} {
		o := conf(t, "")
		o.Registry.TLSVerify = verify
		err := openFails(t, f.name(), o, "HTTP response to HTTPS client")
		if !strings.HasPrefix(kindTold(err), "registry-plain") || len(f.log) != 0 {
			t.Errorf("kind is %q, asked for %q", kindTold(err), f.log)
		}
	}
}
