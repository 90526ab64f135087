package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

// ranElsewhere are commands of README.md that this test cannot run, with where they are run, or why not.
var ranElsewhere = map[string]string{
	"go run ./cmd/dolly-img demo": ".ci/run",
	"./test/run":                  ".ci/run, of which this test is a part",
	"CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' ./cmd/dolly-img":            "TestStatic of cmd/dolly-img",
	"dolly-img raw /dev/sda --output device:system --nodes @hostfile":              "TestScript/device of cmd/dolly-img, on devices that it makes",
	"dolly-img raw /dev/nvme0n1p3 --output /data/scratch.img --nodes @hostfile":    "TestRawDevice, on a device that it makes",
	"dolly-img raw /srv/tree/ --output /srv/tree --nodes @hostfile":                "TestTreeKilled, with a directory that it makes",
	"dolly-img raw /srv/tree/ --output /srv/tree --nodes 'node[01-16]'":            "TestTreeKilled, with a directory that it makes",
	"CGO_ENABLED=0 go install github.com/dolly-img/dolly-img/cmd/dolly-img@latest": "needs a published version",
}

// ofFour makes commands for 128 nodes fit the four that there are here, and gives values to placeholders.
var ofFour = strings.NewReplacer("[001-128]", "[001-004]", "node017", "node003", " N", " 5", " FILE", " outcome.json")

// TestReadme runs what sections 1 to 5 of README.md say, command by command in their order, on machines on which
// there is nothing but the binary: a server, four nodes and a registry. A command of which this test
// does not know where it is run fails it.
func TestReadme(t *testing.T) {
	together(t)
	ctx := need(t, 5*time.Minute, "docker-registry", "skopeo", "chroot", "clush", "/usr/sbin/sshd", "xz")
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	server, nodes := readmeMachines(t, ctx, string(text))
	listed := map[string]bool{}
	for _, c := range commandsOf(t, string(text)) {
		if ranElsewhere[c] != "" {
			listed[c] = true
			continue
		}
		switch {
		case strings.HasPrefix(c, "dolly-img daemon "):
			nodes[0].must(c)
		default:
			if i := strings.Index(c, " | dolly-img raw -"); i > 0 {
				c = "set -o pipefail; " + c
			}
			out := server.must(ofFour.Replace(c))
			// clush is content when nodes are not.
			if strings.HasPrefix(c, "clush ") && strings.Contains(out, "exit code") {
				t.Fatalf("%s:\n%s", c, out)
			}
		}
		if strings.HasPrefix(c, "dolly-img keys init ") {
			for _, name := range []string{"ca.pem", "sender.pem"} {
				server.copyFrom(server, home+"/keys/"+name, "/etc/dolly-img/keys/"+name)
			}
		}
	}
	for c, where := range ranElsewhere {
		if !listed[c] {
			t.Errorf("README.md has no %q any more (%s)", c, where)
		}
	}

	checkReadmeDone(t, server, nodes)
}

// readmeMachines makes a server and four nodes as section 2 of README.md assumes them, with a registry beside.
func readmeMachines(t *testing.T, ctx context.Context, readme string) (server *machine, nodes []*machine) {
	t.Helper()
	net, err := netns.New(ctx, netns.Config{Nodes: 5})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, ctx: ctx, net: net, dir: dir, data: filepath.Join(dir, "data")}
	names := "127.0.0.1 localhost\n"
	for i, h := range net.Nodes[:4] {
		names += fmt.Sprintf("%s node%03d\n", h.Addr, i+1)
	}
	hub := net.Nodes[4]
	names += fmt.Sprintf("%s registry.example\n", hub.Addr)
	ca := publicRegistry(r, hub, "registry.example")

	server = newMachine(r, net.Server, names)
	r.copy(binary, server.path("/local/bin/dolly-img"))
	r.copy(binary, server.path(home+"/dolly-img"))
	packaging := "cmd/dolly-img/packaging/"
	server.mkdir(home+"/"+packaging, "/etc/systemd/system", "/var/log")
	for _, name := range []string{"dolly-img.service", "dolly-img-warm.service", "warm.toml"} {
		text, err := os.ReadFile("../../" + packaging + name)
		if err != nil {
			t.Fatal(err)
		}
		server.write(home+"/"+packaging+name, []byte(strings.ReplaceAll(string(text), "[001-128]", "[001-004]")))
	}
	server.write("/local/bin/systemctl", []byte(systemctl))
	server.must("chmod +x /usr/local/bin/systemctl")
	server.write("/etc/containers/certs.d/registry.example/ca.crt", ca)
	server.write(home+"/hostfile", []byte("node001\nnode002\nnode003\nnode004\n"))
	r.copy(makeSIF(t, "sle15.sif", 1<<20), server.path(home+"/sle15.sif"))
	makeFile(t, server.path(home+"/disk.img"), 3<<20)
	makeFile(t, server.path(home+"/system.raw"), 3<<20)
	if out, err := exec.CommandContext(ctx, "xz", server.path(home+"/system.raw")).CombinedOutput(); err != nil {
		t.Fatalf("xz: %v: %s", err, out)
	}
	server.write(home+"/tree/file", []byte("of a tree\n"))
	for _, h := range net.Nodes[:4] {
		m := newMachine(r, h, names)
		m.write("/etc/dolly-img/keys/policy.toml", policyOf(t, readme))
		m.mkdir("/etc/containerd/certs.d/_default", "/etc/containers/registries.conf.d", "/etc/systemd/system", "/var/log")
		m.write("/local/bin/systemctl", []byte(systemctl))
		m.allow(server)
		nodes = append(nodes, m)
	}
	return server, nodes
}

// checkReadmeDone looks at what the commands were to do.
func checkReadmeDone(t *testing.T, server *machine, nodes []*machine) {
	t.Helper()
	server.must("dolly-img inspect demo.sif")
	if out := server.must("dolly-img status"); !strings.Contains(out, "registry.example/app:v2 ") || !strings.Contains(out, "4 of 4 warm") {
		t.Errorf("status:\n%s", out)
	}
	want := sum(t, server.path(home+"/sle15.sif"))
	for i, m := range nodes {
		kept := strings.TrimSpace(m.must("dolly-img cache path sle15"))
		m.must("dolly-img cache path registry.example/app:v2")
		if got := sum(t, m.path(kept)); got != want {
			t.Errorf("node%03d: %s is %s, want %s", i+1, kept, got, want)
		}
		if got := sum(t, m.path("/data/sle15.sif")); got != want {
			t.Errorf("node%03d: /data/sle15.sif is %s, want %s", i+1, got, want)
		}
		disk := sum(t, server.path(home+"/disk.img"))
		if left := i == 2; left {
			disk = "missing" // by !node017
		}
		if got := sum(t, m.path("/data/disk.img")); got != disk {
			t.Errorf("node%03d: /data/disk.img is %s, want %s", i+1, got, disk)
		}
		m.must("tar xOf /data/tree.tar tree/file")
	}
	for _, name := range []string{"/etc/containerd/certs.d/_default/hosts.toml", "/etc/containers/registries.conf.d/dolly-img.conf"} {
		if text, err := os.ReadFile(nodes[0].path(name)); err != nil || !strings.Contains(string(text), "127.0.0.1:5050") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// sections15 is README.md up to the section on exit statuses.
func sections15(t *testing.T, readme string) string {
	before, _, ok := strings.Cut(readme, "\n## Exit status")
	if !ok {
		t.Fatal("README.md has no section on exit statuses: this test reads to there")
	}
	return before
}

var (
	indented = regexp.MustCompile(`^(?: {4}| {7})([^ ].*)$`)
	typed    = regexp.MustCompile("^\\| .* \\| (add )?(`.*`.*) \\|$")
	quoted   = regexp.MustCompile("`([^`]+)`")
	comment  = regexp.MustCompile(`\s{2,}#.*$`)
)

// commandsOf are the commands of sections 1 to 5 in their order: lines of code, and what the table of
// everyday commands has. An option of that table is added to a push.
func commandsOf(t *testing.T, readme string) []string {
	var commands []string
	everyday := false
	for line := range strings.Lines(sections15(t, readme)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") {
			everyday = line == "## Everyday"
		}
		if m := indented.FindStringSubmatch(line); m != nil {
			commands = append(commands, comment.ReplaceAllString(m[1], ""))
		}
		m := typed.FindStringSubmatch(line)
		if m == nil || !everyday {
			continue
		}
		var option string
		for i, q := range quoted.FindAllStringSubmatch(m[2], -1) {
			c := strings.ReplaceAll(q[1], `\|`, "|")
			if m[1] != "" {
				if i > 0 && !strings.HasPrefix(c, "--") { // another value of the same option
					c = option + " " + c
				}
				option, _, _ = strings.Cut(c, " ")
				c = "dolly-img push sle15.sif --nodes @hostfile " + c
			}
			commands = append(commands, c)
		}
	}
	if len(commands) < 20 || !slices.Contains(commands, "dolly-img keys init --keys ./keys") {
		t.Fatalf("README.md has these commands only: %q", commands)
	}
	return commands
}

// policyOf makes a policy of the settings that the table in README.md explains, each once.
func policyOf(t *testing.T, readme string) []byte {
	var policy, last string
	n := 0
	for line := range strings.Lines(sections15(t, readme)) {
		if !strings.HasPrefix(line, "| `[") {
			continue
		}
		cell, _, _ := strings.Cut(line[2:], " | ")
		words := quoted.FindAllStringSubmatch(cell, -1)
		if len(words) != 2 {
			t.Fatalf("README.md: %s", line)
		}
		if words[0][1] != last {
			last = words[0][1]
			policy += last + "\n"
		}
		policy += words[1][1] + "\n"
		n++
	}
	if n < 5 {
		t.Fatalf("README.md explains these settings only:\n%s", policy)
	}
	return []byte(strings.ReplaceAll(policy, `free = "20G"`, `free = "1M"`)) // a test's disk may be small
}

// home is where root lives on the machines that the test makes.
const home = "/admin"

// machine is a host with a root of its own: the system's programs, and what was put there.
type machine struct {
	rig  *rig
	host *netns.Host
	root string
}

func newMachine(r *rig, h *netns.Host, names string) *machine {
	m := &machine{r, h, filepath.Join(r.dir, "root-"+h.Name)}
	m.mkdir("/usr", "/proc", "/dev", "/etc", home, "/data", "/tmp", "/run", "/var/lib", "/var/tmp", "/local/bin")
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, m.path(link)); err != nil {
			r.t.Fatal(err)
		}
	}
	m.write("/etc/hosts", []byte(names))
	m.write("/etc/passwd", []byte("root:x:0:0:root:"+home+":/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"))
	m.write("/etc/group", []byte("root:x:0:\n"))
	rbind := func(source, target string) netns.Mount {
		return netns.Mount{Type: "none", Source: source, Target: target, Options: "rbind"}
	}
	h.Mounts = []netns.Mount{
		rbind("/usr", m.path("/usr")), rbind("/proc", m.path("/proc")), rbind("/dev", m.path("/dev")),
		netns.Bind(m.path("/local/bin"), m.path("/usr/local/bin")),
	}
	return m
}

func (m *machine) mkdir(names ...string) {
	m.rig.t.Helper()
	for _, name := range names {
		m.rig.mkdir(m.path(name))
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name string, text []byte) {
	m.rig.t.Helper()
	m.rig.mkdir(filepath.Dir(m.path(name)))
	if err := os.WriteFile(m.path(name), text, 0o600); err != nil {
		m.rig.t.Fatal(err)
	}
}

func (m *machine) copyFrom(from *machine, source, target string) {
	m.rig.t.Helper()
	m.rig.mkdir(filepath.Dir(m.path(target)))
	m.rig.copy(from.path(source), m.path(target))
}

func (m *machine) start(command string) *netns.Process {
	m.rig.t.Helper()
	// As a login has it, and not with what the environment of the test adds.
	p, err := netns.Start(m.host.Command(m.rig.ctx, "chroot", m.root, "/usr/bin/env", "-i", "HOME="+home,
		"PATH=/usr/local/bin:/usr/bin:/bin", "/bin/bash", "-c", "cd "+home+" && "+command))
	if err != nil {
		m.rig.t.Fatal(err)
	}
	return p
}

// must runs a command to its end, which has to be a good one, and returns what it printed.
func (m *machine) must(command string) string {
	m.rig.t.Helper()
	p := m.start(command)
	code, err := p.Wait(m.rig.ctx)
	if err != nil || code != 0 {
		m.rig.t.Fatalf("%s: %s: %v\n%s", m.host.Name, command, errors.Join(err, fmt.Errorf("exit %d", code)), p.Output())
	}
	m.rig.t.Logf("%s: %s\n%s", m.host.Name, command, p.Output())
	return p.Output()
}

// systemctl starts a unit as systemd does on "enable --now", as far as a machine without systemd can: it runs
// what ExecStart says, and returns once that listens.
const systemctl = `#!/bin/bash -e
unit=$3
[ "$*" = "enable --now $unit" ]
log=/var/log/$unit
: > $log
start() { setsid $(sed -n 's/^ExecStart=//p' /etc/systemd/system/$unit.service) < /dev/null >> $log 2>&1 & }
case $unit in
dolly-img)
	/usr/local/bin/dolly-img daemon --check-config
	start
	timeout 60 tail -n +1 -f --pid=$! $log | grep -q -m 1 'msg=listening.*9998' || { cat $log; exit 1; } ;;
dolly-img-warm)
	start
	until [ -S /run/dolly-img/warm.sock ]; do kill -0 $! || { cat $log; exit 1; }; sleep 0.05; done ;;
esac
`

// allow starts an SSH server for root of another machine.
func (m *machine) allow(from *machine) {
	m.rig.t.Helper()
	if _, err := os.Stat(from.path(home + "/.ssh/id_ed25519")); err != nil {
		from.mkdir(home + "/.ssh")
		from.must("ssh-keygen -q -t ed25519 -N '' -f " + home + "/.ssh/id_ed25519")
		from.write(home+"/.ssh/config", []byte("StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"))
	}
	m.mkdir(home+"/.ssh", "/run/sshd", "/etc/ssh")
	m.copyFrom(from, home+"/.ssh/id_ed25519.pub", home+"/.ssh/authorized_keys")
	m.must("chmod +x /usr/local/bin/systemctl; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key")
	p := m.start("exec /usr/sbin/sshd -D -e -f /dev/null -o HostKey=/etc/ssh/ssh_host_ed25519_key -o 'Subsystem=sftp internal-sftp' -o ListenAddress=" + m.host.Addr.String())
	if err := netns.Listening(m.rig.ctx, p, "tcp", 22); err != nil {
		m.rig.t.Fatalf("%v\n%s", err, p.Output())
	}
}

// publicRegistry starts a registry at the name's port for TLS, with an image app:v2, and returns its certificate.
func publicRegistry(r *rig, h *netns.Host, name string) []byte {
	dir := filepath.Join(r.dir, "registry")
	r.mkdir(dir)
	write := func(name string, text []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			r.t.Fatal(err)
		}
		return name
	}
	cert, key := selfSigned(r.t, name)
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %q}}
http:
  addr: %q
  tls: {certificate: %q, key: %q}
`, filepath.Join(dir, "data"), h.Addr.String()+":443", write("cert.pem", cert), write("key.pem", key))
	p, err := netns.Start(h.Command(r.ctx, "docker-registry", "serve", write("config.yml", []byte(config))))
	if err == nil {
		err = netns.Listening(r.ctx, p, "tcp", 443)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	if _, err := testimage.Layout(layout, "v2", testimage.Options{Layers: 2, Size: 2 << 20}); err != nil {
		r.t.Fatal(err)
	}
	r.on(h, "skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", "oci:"+layout+":v2", "docker://"+h.Addr.String()+":443/app:v2")
	return cert
}
