package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"github.com/dolly-img/dolly-img/test/netns"
)

// dollyRig is a rig whose machines have the program under the name dolly, and names for each other as in SUSE's guide: the
// nodes are sle152 and so on. Each has an IPv6 address, too, and a second IPv4 address by the name sle152-giga.
type dollyRig struct {
	*rig
	program string
}

func newDollyRig(t *testing.T, nodes int, rate int64) *dollyRig {
	t.Helper()
	d := &dollyRig{rig: newRig(t, need(t, 3*time.Minute, "pdsh"), netns.Config{Nodes: nodes, Rate: rate})}
	d.program = filepath.Join(d.dir, "dolly")
	if err := os.Symlink(binary, d.program); err != nil {
		t.Fatal(err)
	}
	names := "127.0.0.1 localhost\n"
	for i, h := range d.net.Hosts() {
		names += fmt.Sprintf("%s sle15%d\nfd77::%d sle15%d six%d\n10.78.0.%d sle15%d-giga\n", h.Addr, i+1, i+1, i+1, i+1, i+1, i+1)
		d.on(h, "sh", "-c", fmt.Sprintf("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add fd77::%d/64 dev eth0 nodad && ip addr add 10.78.0.%d/16 dev eth0", i+1, i+1))
	}
	hosts := filepath.Join(d.dir, "hosts")
	if err := os.WriteFile(hosts, []byte(names), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, h := range d.net.Hosts() {
		h.Mounts = append(h.Mounts, netns.Bind(hosts, "/etc/hosts"), netns.Tmpfs("/var/lib", 64<<20)) // where the cache of root is
	}
	return d
}

// start starts dolly with a command line of the guide.
func (d *dollyRig) dolly(h *netns.Host, keys, args string) *netns.Process {
	d.t.Helper()
	p, err := netns.Start(h.Command(d.ctx, "env", append([]string{"DOLLY_IMG_KEYS=" + keys, d.program}, strings.Fields(args)...)...))
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// clients starts "dolly -v" on all nodes, as pdsh does, and waits until they listen.
func (d *dollyRig) clients() (all []*netns.Process) {
	d.t.Helper()
	for _, n := range d.nodes {
		all = append(all, d.dolly(n.Host, n.keys, "-v"))
	}
	for _, p := range all {
		if err := netns.Listening(d.ctx, p, "tcp", 9998); err != nil {
			d.t.Fatal(err)
		}
	}
	return all
}

// pdsh starts dolly -v on some nodes as an administrator does. What it takes for ssh goes to the network of the node, and to the
// shell there.
func (d *dollyRig) pdsh(list string) *netns.Process {
	d.t.Helper()
	hosts := "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nhost=$1\nshift\ncase $host in\n"
	for i, n := range d.nodes {
		var words []string
		for _, word := range n.Host.Command(d.ctx, "env", "DOLLY_IMG_KEYS="+n.keys, "PATH="+d.dir+":"+os.Getenv("PATH"), "sh", "-c").Args {
			words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		hosts += fmt.Sprintf("sle15%d) exec %s \"$*\" ;;\n", i+2, strings.Join(words, " "))
	}
	bin := filepath.Join(d.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(hosts+"*) exit 255 ;;\nesac\n"), 0o755); err != nil {
		d.t.Fatal(err)
	}
	p, err := netns.Start(exec.CommandContext(d.ctx, "env", "PDSH_RCMD_TYPE=ssh", "PATH="+bin+":"+os.Getenv("PATH"),
		"pdsh", "-S", "-w", list, "dolly", "-v"))
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func (d *dollyRig) server(args string) *netns.Process {
	d.t.Helper()
	return d.dolly(d.net.Server, d.keys, args)
}

// ends demands an exit status, and returns the output.
func (d *dollyRig) ends(p *netns.Process, status int) string {
	d.t.Helper()
	code, err := p.Wait(d.ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	if code != status {
		d.t.Errorf("exit %d, want %d\n%s", code, status, p.Output())
	}
	return p.Output()
}

func (d *dollyRig) write(path, text string) {
	d.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

var (
	dollyProgress = regexp.MustCompile(`(?m)^Transfered MB: (\d+), MB/s: [\d.]+, Current MB/s: [\d.]+$`)

	dollyQuoted = regexp.MustCompile(`'[^']+'`)
	dollyNumber = regexp.MustCompile(`[0-9a-f]*::[0-9a-f]+|\d+(\.\d+)*`)
)

// asInTheGuide masks names, numbers and times of what dolly prints, and leaves repetitions out: the guide has four nodes, and
// how often progress is printed depends on the time.
func asInTheGuide(text string) string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "'writing "); ok {
			line = "writing " + rest
		}
		line = dollyNumber.ReplaceAllString(dollyQuoted.ReplaceAllString(line, "NAME"), "N")
		lines = append(lines, line)
		for n := 1; n <= 4 && 2*n <= len(lines); n++ {
			if end := len(lines); slices.Equal(lines[end-n:], lines[end-2*n:end-n]) {
				lines = lines[:end-n]
				break
			}
		}
	}
	return strings.Join(lines, "\n")
}

func guideText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../cmd/dolly-img/internal/dolly/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return asInTheGuide(string(text))
}

// The command lines and the configuration file of SUSE's guide on six nodes: with clients that wait, with clients that begin
// after the server, with our daemon on the nodes, over IPv6 only, and over a network for data.
func TestDolly(t *testing.T) {
	together(t)
	d := newDollyRig(t, 6, 100_000_000)
	file := filepath.Join(d.data, "sle15.sif") // the same path on the server and, below their own directories, on nodes
	makeFile(t, file, 24<<20)

	t.Run("clients first", func(t *testing.T) { d.clientsFirst(t, file) })
	t.Run("server first", func(t *testing.T) { d.serverFirst(t, file) })
	small := makeFile(t, filepath.Join(d.dir, "small"), 1<<20+1)
	t.Run("with daemons", func(t *testing.T) { d.withDaemons(t, small) })
	t.Run("data network", func(t *testing.T) { d.dataNetwork(t, small) })
	t.Run("IPv6 only", func(t *testing.T) { d.onlyIPv6(t, small) })
}

// clientsFirst has the clients wait for the server.
func (d *dollyRig) clientsFirst(t *testing.T, file string) {
	clients := d.clients()
	log := filepath.Join(d.dir, "dolly.log")
	out := d.ends(d.server(fmt.Sprintf("-s -v -o %s -I %s -O %s -H %s", log, file, file, d.list())), 0)
	if got, want := asInTheGuide(out), guideText(t, "server.guide"); got != want {
		t.Errorf("the server prints\n%s\nwant\n%s", got, want)
	}
	want := guideText(t, "client.guide")
	for i, p := range clients {
		out := d.ends(p, 0)
		if first := dollyProgress.FindStringSubmatch(out); first == nil || first[1] == "25" {
			t.Errorf("client %d says nothing while data comes:\n%s", i, out)
		}
		got := asInTheGuide(out)
		if i == len(clients)-1 {
			if !strings.Contains(out, "I'm the last host.") || !strings.Contains(out, "is number 5\n") {
				t.Errorf("the last client prints\n%s", out)
			}
			continue
		}
		if got != want {
			t.Errorf("client %d prints\n%s\nwant\n%s", i, got, want)
		}
	}
	d.same(file, "sle15.sif", d.nodes...)
	text, _ := os.ReadFile(log)
	wantLog := "infile = NAME\noutfile = NAME\nStandard TCP segment size : N Bytes (N Byte eth)\nServer : NAME\nFanout = N\nNr of childs = N\nNr of hosts = N\n" +
		"Time: N\nMBytes/s: N\nAggregate MBytes/s: N"
	if got := asInTheGuide(string(text)); got != wantLog {
		t.Errorf("the log has\n%s\nwant\n%s", text, wantLog)
	}
}

// serverFirst has the server wait for the clients, which pdsh starts, with a configuration file.
func (d *dollyRig) serverFirst(t *testing.T, file string) {
	conf := filepath.Join(d.dir, "dolly.cfg")
	d.write(conf, fmt.Sprintf("infile %s\noutfile %s/second\nserver sle151\nfirstclient sle152\nlastclient sle154\nclients 3\nsle152\nsle153\nsle154\nendconfig\n", file, d.data))
	server := d.server("-v -s -f " + conf)
	if _, err := server.Line(d.ctx, "Waiting for ring to build..."); err != nil {
		t.Fatal(err)
	}
	pdsh := d.pdsh("sle15[2-4]")
	d.ends(server, 0)
	out := d.ends(pdsh, 0)
	for _, want := range []string{"sle152: sle152 is number 0\n", "sle153: Transmitted.", "sle154: I'm the last host.\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	d.same(file, "second", d.nodes[:3]...)
}

// withDaemons has our daemon on the nodes, which takes the transfer.
func (d *dollyRig) withDaemons(t *testing.T, small string) {
	d.start()
	for _, n := range d.nodes {
		if out := d.ends(d.dolly(n.Host, n.keys, "-v"), 0); !strings.Contains(out, "listens on :9998 already, and takes the transfer") {
			t.Errorf("%s says\n%s", n.Name, out)
		}
	}
	out := d.ends(d.server(fmt.Sprintf("-S -I %s -O %s/third -H 10.77.0.2-7", small, d.data)), 0)
	if out != "" {
		t.Errorf("without -v it prints\n%s", out)
	}
	d.same(small, "third", d.nodes...)
}

// dataNetwork sends the data by the second names of the nodes.
func (d *dollyRig) dataNetwork(t *testing.T, small string) {
	for _, n := range d.nodes { // control from the server, and nothing from other nodes
		for _, from := range d.nodes {
			if n != from {
				d.on(n.Host, "iptables", "-w", "-A", "INPUT", "-s", from.Addr.String(), "-j", "DROP")
			}
		}
	}
	conf, report := filepath.Join(d.dir, "giga.cfg"), filepath.Join(d.dir, "giga.json")
	d.write(conf, fmt.Sprintf("infile %s\noutfile %s/giga\nsegsize 1448\nadd 1:-giga\nfanout 1\nsle152\nsle153\nsle154\nsle155\nsle156\nsle157\nendconfig\n", small, d.data))
	out := d.ends(d.server(fmt.Sprintf("-s -v -f %s --report %s", conf, report)), 0)
	for _, want := range []string{"note: segsize has no effect", "note: add 1:-giga: data goes over", "Clients done."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := readReport(text); err != nil || rep.Direct != 0 || len(rep.Unreached) != 0 {
		t.Errorf("nodes did not reach each other: %s, %v", text, err)
	}
	d.same(small, "giga", d.nodes...)
}

// onlyIPv6 takes the IPv4 addresses away.
func (d *dollyRig) onlyIPv6(t *testing.T, small string) {
	for _, h := range d.net.Hosts() {
		d.on(h, "ip", "-4", "addr", "flush", "dev", "eth0")
	}
	d.ends(d.server(fmt.Sprintf("-s -6 -I %s -O %s/six -H sle152,sle153,fd77::4,[fd77::5]:9998,six6,six7", small, d.data)), 0)
	d.same(small, "six", d.nodes...)
	out := d.ends(d.server(fmt.Sprintf("-s -4 -r 0 -I %s -O %s/four -H six2", small, d.data)), 4)
	if !strings.Contains(out, "name not resolved: no IPv4 address") {
		t.Errorf("with -4 it says\n%s", out)
	}
}

// The guide's first command sends a device to the same device of the nodes. Here their policy has to list it, and somebody has
// to say for how many nodes that is meant.
func TestDollyDevice(t *testing.T) {
	together(t)
	d := newDollyRig(t, 6, 0)
	const size = 8 << 20
	var disks []*loopdev.Device
	for _, n := range d.nodes {
		disk := loopdev.New(t, d.dir, size, loopdev.Options{})
		disks = append(disks, disk)
		n.setPolicy(fmt.Sprintf("[[device]]\nname = \"sdc1\"\npath = %q\n", disk.Path))
		n.wrap = []string{"env", "DOLLY_IMG_TEST_LOOPS_BELOW=" + d.dir}
	}
	d.start()
	source := loopdev.New(t, d.dir, size, loopdev.Options{})
	d.on(d.net.Server, "sh", "-c", "head -c 8388608 /dev/urandom >"+source.Path)
	command := fmt.Sprintf("-s -v -I %s -O device:sdc1 -H %s", source.Path, d.list())
	out := d.ends(d.server(command), 2)
	if !strings.Contains(out, "--yes-overwrite 6") {
		t.Errorf("nobody said that devices may be overwritten, and it says\n%s", out)
	}
	out = d.ends(d.server(command+" --yes-overwrite 6"), 0)
	if !strings.Contains(out, "Clients done.") {
		t.Errorf("it says\n%s", out)
	}
	want := sum(t, source.Path)
	for i, disk := range disks {
		if got := sum(t, disk.Path); got != want {
			t.Errorf("%s: the device has other bytes", d.nodes[i].Name)
		}
	}
}
