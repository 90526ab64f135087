package oci

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const user, password, token = "somebody", "s3cr3t-passw0rd", "t0ken-of-a-bearer"

// silent fails when what nobody may see is in an error.
func silent(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	for _, secret := range []string{password, token, basic} {
		if s := fmt.Sprintf("%v %+v %s", err, err, kindTold(err)); strings.Contains(s, secret) {
			t.Errorf("%q is in %q", secret, s)
		}
	}
}

// basic lets in who knows the password.
func basic(w http.ResponseWriter, r *http.Request, _ int) bool {
	if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
	return true
}

func TestRegistryBasic(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	f := newRegistry(t, m)
	f.lie = basic
	with := func(change func(*RegistryOptions)) Options {
		o := plain(t)
		change(&o.Registry)
		return o
	}
	auths := func(p string) string {
		return writeFile(t, "auth.json", fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, f.host,
			base64.StdEncoding.EncodeToString([]byte(user+":"+p))))
	}
	for name, o := range map[string]Options{
		"options":           with(func(o *RegistryOptions) { o.User, o.Password = user, password }),
		"file":              with(func(o *RegistryOptions) { o.AuthFile = auths(password) }),
		"options over file": with(func(o *RegistryOptions) { o.AuthFile, o.User, o.Password = auths("other"), user, password }),
	} {
		t.Run(name, func(t *testing.T) { m.check(t, mustOpen(t, f.name(), o)) })
	}
	for name, o := range map[string]Options{
		"no password":            plain(t),
		"wrong password":         with(func(o *RegistryOptions) { o.User, o.Password = user, password+"x" }),
		"wrong user":             with(func(o *RegistryOptions) { o.User, o.Password = "x", password }),
		"wrong password of file": with(func(o *RegistryOptions) { o.AuthFile = auths(password + "x") }),
	} {
		t.Run(name, func(t *testing.T) {
			before := len(f.asked("/manifests/latest"))
			err := openFails(t, f.name(), o, "nauthorized")
			silent(t, err)
			want := "registry-login"
			if o.Registry.User != "" {
				want = "registry-denied"
				fails(t, err, "refuses user "+o.Registry.User)
			}
			if h := kindTold(err); !strings.HasPrefix(h, want) {
				t.Errorf("kind is %q", h)
			}
			if n := len(f.asked("/manifests/latest")) - before; n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
	for name, content := range map[string]string{
		"malformed file": `{"auths":{"` + f.host + `":{"auth":"` + password,
		"odd file":       `{"auths":{"` + f.host + `":{"auth":"` + password + `"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			silent(t, openFails(t, f.name(), with(func(o *RegistryOptions) { o.AuthFile = writeFile(t, "auth.json", []byte(content)) }), ""))
		})
	}
}

// A registry that breaks in other ways tells nobody the password either.
func TestRegistrySilent(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	echo := func(r *http.Request) string { return r.Header.Get("Authorization") }
	for name, lie := range map[string]func(http.ResponseWriter, *http.Request){
		"500":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"403":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) },
		"abort":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"other":    func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("evil")) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"loop":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRegistry(t, m)
			f.lie = func(w http.ResponseWriter, r *http.Request, n int) bool {
				if basic(w, r, n) {
					return true
				}
				if r.URL.Path == "/v2/" || strings.Contains(r.URL.Path, "/manifests/") && n == 1 {
					return false
				}
				if echo(r) == "" && name != "redirect" {
					t.Error("no login came")
				}
				lie(w, r)
				return true
			}
			o := plain(t)
			o.Registry.User, o.Registry.Password = user, password
			i := mustOpen(t, f.name(), o)
			_, err := read(i, m.layers[0], 0)
			if err == nil {
				t.Error("no error")
			}
			silent(t, err)
			_, err = Open(t.Context(), f.name(), o)
			silent(t, err)
		})
	}
}

// bearer is a registry with a server of tokens in itself.
func bearer(f *fakeRegistry, answer func(w http.ResponseWriter, r *http.Request)) {
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path == "/token" {
			answer(w, r)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer "+token {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+f.host+`/token",service="a service",scope="repository:some/app:pull"`)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return true
	}
}

func TestRegistryBearer(t *testing.T) {
	t.Parallel()
	m := newImg([]byte("a layer"))
	give := func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("service") != "a service" || q.Get("scope") != "repository:some/app:pull" {
			t.Errorf("asked for %v", q)
		}
		if u, p, ok := r.BasicAuth(); ok && (u != user || p != password) {
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		_, _ = w.Write([]byte(`{"token":"` + token + `"}`))
	}
	known := plain(t)
	known.Registry.User, known.Registry.Password = user, password
	for name, o := range map[string]Options{"anonymous": plain(t), "known": known} {
		t.Run(name, func(t *testing.T) {
			f := newRegistry(t, m)
			bearer(f, give)
			m.check(t, mustOpen(t, f.name(), o))
			if n := len(f.asked("/token")); n != 1 {
				t.Errorf("asked for %d tokens", n)
			}
		})
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
		hint   string
	}{
		{"wrong password", func(w http.ResponseWriter, r *http.Request) { fail(w, 401, "UNAUTHORIZED") }, "nauthorized", "registry-denied"},
		{"forbidden", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, "403", "registry-denied"},
		{"too many", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, "too many requests", "registry-limit"},
		{"broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, "500", ""},
		{"not JSON", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }, "bearer token", ""},
		{"empty", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("{}")) }, "nauthorized", "registry-denied"},
		{"useless", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"token":"x"}`)) }, "nauthorized", "registry-denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newRegistry(t, m)
			bearer(f, c.answer)
			err := openFails(t, f.name(), known, c.want)
			silent(t, err)
			if h := kindTold(err); !strings.HasPrefix(h, c.hint) || c.hint == "" && h != "" {
				t.Errorf("kind is %q", h)
			}
			if n := len(f.asked("/token")); n > retries+1 {
				t.Errorf("asked for %d tokens", n)
			}
		})
	}
}

// What the containers tools read from the environment counts here, too, unless an option says otherwise.
func TestRegistryEnvironment(t *testing.T) {
	m := newImg([]byte("a layer"))
	f := newRegistry(t, m)
	f.lie = basic
	auths := writeFile(t, "auth.json", fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, f.host,
		base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
	o := plain(t)
	o.Registry.AuthFile = ""
	openFails(t, f.name(), o, "nauthorized")
	t.Setenv("REGISTRY_AUTH_FILE", auths)
	m.check(t, mustOpen(t, f.name(), o))

	// A mirror of a host that there is not.
	const name = "docker://reg.invalid/some/app"
	o.Registry.RegistriesConf = ""
	conf := fmt.Sprintf("[[registry]]\nlocation = \"reg.invalid\"\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", f.host)
	t.Setenv("CONTAINERS_REGISTRIES_CONF", writeFile(t, "registries.conf", []byte(conf)))
	m.check(t, mustOpen(t, name, o))
}
