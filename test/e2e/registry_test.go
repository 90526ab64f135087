package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dolly-img/dolly-img/test/netns"
)

// registry is Debian's docker-registry on a host of its own, with TLS and basic
// authentication.
type registry struct {
	rig     *rig
	host    *node
	dir     string
	process *netns.Process
	auth    string // auth.json with the right password
	certs   string // directory with ca.crt
}

const (
	registryUser     = "lab"
	registryPassword = "s3cret-of-the-lab"
)

// newRegistry takes the last node of r away and starts a registry there.
func newRegistry(r *rig) *registry {
	r.t.Helper()
	last := len(r.nodes) - 1
	g := &registry{rig: r, host: r.nodes[last], dir: filepath.Join(r.dir, "registry")}
	r.nodes = r.nodes[:last]
	g.certs = filepath.Join(g.dir, "certs")
	r.mkdir(g.certs)
	write := func(name string, text []byte) string {
		name = filepath.Join(g.dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			r.t.Fatal(err)
		}
		return name
	}
	cert, key := selfSigned(r.t, g.host.Addr.String())
	write("certs/ca.crt", cert)
	hash, err := bcrypt.GenerateFromPassword([]byte(registryPassword), bcrypt.MinCost)
	if err != nil {
		r.t.Fatal(err)
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: %q}}
http:
  addr: %q
  tls: {certificate: %q, key: %q}
auth: {htpasswd: {realm: lab, path: %q}}
`, filepath.Join(g.dir, "data"), g.addr(), write("cert.pem", cert), write("key.pem", key),
		write("htpasswd", fmt.Appendf(nil, "%s:%s\n", registryUser, hash)))
	g.auth = write("auth.json", authFile(g.addr(), registryUser, registryPassword))
	write("config.yml", []byte(config))
	g.start()
	return g
}

// start starts it, or starts it again with what it has.
func (g *registry) start() {
	g.rig.t.Helper()
	p, err := netns.Start(g.host.Command(g.rig.ctx, "docker-registry", "serve", filepath.Join(g.dir, "config.yml")))
	if err == nil {
		err = netns.Listening(g.rig.ctx, p, "tcp", 5000)
	}
	if err != nil {
		g.rig.t.Fatal(err)
	}
	g.process = p
}

func (g *registry) addr() string { return g.host.Addr.String() + ":5000" }

// fill copies an image of a layout into the registry, with all its platforms.
func (g *registry) fill(layout, ref string) {
	g.rig.t.Helper()
	_, tag, _ := strings.Cut(ref, ":")
	g.rig.on(g.rig.net.Server, "skopeo", "copy", "-q", "--all", "--authfile", g.auth, "--dest-cert-dir", g.certs,
		"oci:"+layout+":"+tag, "docker://"+g.addr()+"/"+ref)
}

// image is the name of a reference in it, and the flags that go with it.
func (g *registry) image(ref string) []string {
	return []string{"push", "docker://" + g.addr() + "/" + ref, "--authfile", g.auth, "--cert-dir", g.certs,
		"--cache", g.serverCache()}
}

// serverCache is where pushes of image keep what they pull.
func (g *registry) serverCache() string { return filepath.Join(g.rig.dir, "server-cache") }

// request is one that the registry has answered. The challenges before logins are left out.
type request struct {
	at           time.Time
	method, path string // the path without /v2/
	agent        string
}

var accessLine = regexp.MustCompile(`\[([^\]]+)\] "(\w+) /v2/(\S*) [^"]*" (\d+) \d+ "[^"]*" "([^"]*)"`)

// requests returns all so far.
func (g *registry) requests() (list []request) {
	for _, m := range accessLine.FindAllStringSubmatch(g.process.Output(), -1) {
		at, err := time.Parse("02/Jan/2006:15:04:05 -0700", m[1])
		if err != nil {
			g.rig.t.Fatal(err)
		}
		if m[4] != "401" {
			list = append(list, request{at, m[2], m[3], m[5]})
		}
	}
	return list
}

// asked counts the requests for each blob so far.
func (g *registry) asked() map[string]int {
	count := map[string]int{}
	for _, r := range g.requests() {
		if _, digest, ok := strings.Cut(r.path, "/blobs/"); ok && r.method == http.MethodGet {
			count[digest]++
		}
	}
	return count
}

func authFile(addr, user, password string) []byte {
	login := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	b, _ := json.Marshal(map[string]any{"auths": map[string]any{addr: map[string]string{"auth": login}}})
	return b
}

// selfSigned is a certificate of its own authority for a host, by address or name.
func selfSigned(t *testing.T, host string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry of the test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// on runs a program of others on a host; it must succeed.
func (r *rig) on(h *netns.Host, program string, args ...string) string {
	r.t.Helper()
	p, err := netns.Start(h.Command(r.ctx, program, args...))
	return r.ended(p, err, program, args)
}

// beside starts a program in the network of a host, but with this machine's files: container
// runtimes want its cgroups.
func (r *rig) beside(h *netns.Host, program string, args ...string) (p *netns.Process) {
	r.t.Helper()
	err := h.Inside(func() (err error) {
		p, err = netns.Start(exec.CommandContext(r.ctx, program, args...))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) ended(p *netns.Process, err error, program string, args []string) string {
	r.t.Helper()
	code := 0
	if err == nil {
		code, err = p.Wait(r.ctx)
	}
	if err != nil || code != 0 {
		r.t.Fatalf("%s %s: %d, %v: %s", program, strings.Join(args, " "), code, err, p.Output())
	}
	return p.Output()
}
