package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
	"github.com/dolly-img/dolly-img/ring/identity"
)

const (
	secretNever  = "s3cret-never"
	secretLogged = "s3cret-logged" // what only the log may have
)

// secretRig is a controller with secrets in all that it reads.
type secretRig struct {
	*testing.T
	dir string
	cmd *exec.Cmd
}

func (r *secretRig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *secretRig) read(name string) string {
	data, _ := os.ReadFile(r.path(name))
	return string(data)
}

func (r *secretRig) write(name, text string) string {
	r.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	return r.path(name)
}

func (r *secretRig) defaults() string {
	return fmt.Sprintf("[defaults]\nkeys = %q\nstate = %q\nsocket = %q\n", r.path("keys"), r.path("state"), r.path("sock"))
}

// list is one in which nothing works: a registry that refuses the login and repeats it, an authfile that is none, a proxy that is away, and groups without nodes.
func (r *secretRig) list(host, auth string) string {
	good := r.write("auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth))
	bad := r.write("bad.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}},%s}`, host, "!"+secretNever, secretNever))
	text := r.defaults() + "[nodes.a]\nlist = \"127.0.0.1:1\"\n" +
		fmt.Sprintf("[nodes.says]\ncommand = \"echo no login %s >&2; echo another line %s >&2; exit 1\"\n", secretLogged, secretNever) +
		fmt.Sprintf("[nodes.wrong]\ncommand = \"bash -c 'curl -u user:%s x)'\"\n", secretNever) + // the shell repeats the line
		fmt.Sprintf("[nodes.prints]\ncommand = \"echo '[[%s'\"\n[nodes.file]\nfile = %q\n", secretLogged, r.write("nodes", "[["+secretLogged+"\n"))
	for _, image := range []string{
		fmt.Sprintf("ref = \"docker://%s/app:1\"\nauthfile = %q", host, good), fmt.Sprintf("ref = \"docker://%s/app:2\"\nauthfile = %q", host, bad),
		fmt.Sprintf("ref = \"docker://%s/other\"\ntags = \"*\"\nauthfile = %q", host, good), `ref = "docker://registry.example/app:1"`,
	} {
		text += fmt.Sprintf("[[image]]\n%s\nnodes = [\"a\"]\n", image)
	}
	return text
}

// start starts the controller.
func (r *secretRig) start(host, auth string) {
	log, err := os.Create(r.path("log"))
	if err != nil {
		r.Fatal(err)
	}
	r.cmd = exec.Command("dolly-img", "warm", "--config", r.write("warm.toml", r.list(host, auth)), "--cache", r.path("cache"), "--web=:0", "--verbose")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.cmd.Stderr = log
	proxy := "http://user:" + secretNever + "@127.0.0.1:1"
	conf := r.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", host))
	r.cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "HTTP_PROXY="+proxy, "CONTAINERS_REGISTRIES_CONF="+conf)
	if err := r.cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	})
}

// socket returns what the socket tells, once that is what is wanted.
func (r *secretRig) socket(wanted func(text string) bool) string {
	r.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < time.Minute; <-tick.C {
		s, err := warmer.FetchSnapshot(r.Context(), r.path("sock"))
		if err != nil {
			continue // it has not begun
		}
		if data, err := s.Encode(); err != nil || wanted(string(data)) {
			return string(data)
		}
	}
	r.Fatalf("not told within a minute:\n%s", r.read("log"))
	return ""
}

// page returns what the page is sent of the controller until it has a text.
func (r *secretRig) page(wanted string) (page string) {
	r.Helper()
	resp, err := http.Get(regexp.MustCompile(`page: (\S+)`).FindStringSubmatch(r.read("log"))[1] + "events")
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	for b := make([]byte, 1<<16); !strings.Contains(page, wanted); {
		n, err := resp.Body.Read(b)
		if page += string(b[:n]); err != nil {
			r.Fatal(err)
		}
	}
	return page
}

// Passwords of an authfile, and its path, of a proxy and of a ref reach neither state, log, socket nor page. What the command of a group says, what is in a file
// that is no list of nodes, and values of a list that is refused reach only the log.
func TestWarmSecrets(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "you said %s", r.Header)
	}))
	t.Cleanup(registry.Close)
	r := &secretRig{T: t, dir: t.TempDir()}
	if err := identity.Init(r.path("keys"), identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("user:" + secretNever))
	r.start(registry.Listener.Addr().String(), auth)
	socket := r.socket(func(text string) bool { return strings.Count(text, `"stale":`) == 8 })
	r.write("warm.toml", r.defaults()+fmt.Sprintf("every = %q\n[[image]]\nref = \"docker:user:%s@r.example/x:1\"\nname = \"user:%s@r.example/x\"\nnodes = []\n",
		secretLogged, secretNever, secretNever))
	r.cmd.Process.Signal(syscall.SIGHUP)
	const refused = `"refused":"line `
	socket += r.socket(func(text string) bool { return strings.Contains(text, refused) })
	page := r.page(refused)
	r.cmd.Process.Signal(syscall.SIGTERM)
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	state := r.read("state/state.json")
	if !strings.Contains(state, `"version"`) {
		t.Errorf("the state is %q", state)
	}
	for where, text := range map[string]string{"socket": socket, "page": page, "state": state, "log": r.read("log")} {
		for _, secret := range []string{secretNever, auth, "bad.json", "auth.json"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has %s:\n%s", where, secret, text)
			}
		}
		if strings.Contains(text, secretLogged) != (where == "log") {
			t.Errorf("the %s:\n%s", where, text)
		}
	}
}
