package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

func TestTable(t *testing.T) {
	row := func(node string, state ring.State) ring.Row {
		return ring.Row{Node: node, State: state, Bytes: 1_500_000, Seconds: 1.25}
	}
	few := &ring.Report{
		Transfer: "t", Digest: "sha256:ab", Bytes: 1_500_000, Sent: 1_500_000, Elapsed: 500 * time.Millisecond,
		Nodes: []ring.Row{
			row("node1", ring.Committed),
			{Node: "node2", State: ring.Held, Skipped: 1_500_000, Seconds: 0.1},
			{Node: "node3", State: ring.Failed, Reason: "disk\x1b[2J full", Link: "node1 -> node3"},
		},
	}
	many := &ring.Report{Transfer: "t", Digest: "sha256:ab"}
	for i := range 998 {
		many.Nodes = append(many.Nodes, row(fmt.Sprintf("node%03d", i+1), ring.Committed))
	}
	silent := func(node string, n int) ring.Row {
		c := ring.Cause{Fault: ring.FaultSilent, Text: "no answer from ", Addr: fmt.Sprintf("10.0.0.%d:9998", n), After: " in 2s"}
		return ring.Row{Node: node, State: ring.Unreachable, Reason: c.String(), Cause: c}
	}
	many.Nodes[16] = silent("node017", 17)
	many.Nodes[17].State = ring.Held
	many.Nodes[18] = silent("node019", 19)
	many.Nodes[19].Reason = "slow: disk 2 MB/s; served behind the others"
	many.Nodes[20] = ring.Row{Node: "node021", State: ring.Failed, Reason: "no space"}
	for i := 21; i < 32; i++ {
		many.Nodes[i] = ring.Row{Node: fmt.Sprintf("node%03d", i+1), State: ring.Failed, Reason: "write: input/output error"}
	}
	refused := func(node string, fault ring.Fault, why string) ring.Row {
		return ring.Row{Node: node, State: ring.Refused, Reason: why, Cause: ring.Cause{Fault: fault, Text: why}}
	}
	none := &ring.Report{Transfer: "t", Nodes: []ring.Row{
		refused("node1", ring.FaultForeign, "the node refused our certificate: tls: unknown certificate authority"),
		refused("node2", ring.FaultForeign, "its certificate is of another cluster: x509: certificate signed by unknown authority"),
		refused("node3", ring.FaultCertificate, "the node refused our certificate: tls: bad certificate"),
		refused("node4", ring.FaultNone, "output /x: not permitted"),
		refused("node5", ring.FaultNone, "output /x: not permitted"),
		refused("node6", ring.FaultNone, "output /y: unknown certificate authority"), // only words
		{Node: "node7", State: ring.Failed, Code: "readback", Reason: "/dev/sdb reads back with other bytes than were written, from byte 0 to 512"},
	}}
	for _, c := range []struct {
		name  string
		r     *ring.Report
		quiet bool
		want  string
	}{
		{"few", few, false, `
committed  node1  1.50 MB received in 1.25 s
held       node2  had all of it before, nothing to switch
failed     node3  disk\x1b[2J full (link node1 -> node3)
2 of 3 nodes have it: manifest sha256:ab, 1.50 MB
Time: 0.500  MBytes/s: 3.000  Aggregate MBytes/s: 3.000  server sent 1.50 MB
`},
		{"quiet", few, true, `
failed  node3  disk\x1b[2J full (link node1 -> node3)
`},
		{"folded", many, false, `
committed 982  node[001-016,033-998]
held 1         node018
committed 1    node020        slow: disk 2 MB/s; served behind the others
unreachable 2  node[017,019]  no answer from 10.0.0.[17,19]:9998 in 2s
failed         node021        no space
failed 11      node[022-032]  write: input/output error
hint: look on node[017,019]: is the machine up, does the daemon run there (systemctl status dolly-img), and does its firewall let TCP port 9998 in from this server and from the other nodes?
984 of 998 nodes have it: manifest sha256:ab, 0 B
`},
		{"none", none, false, `
refused    node1      the node refused our certificate: tls: unknown certificate authority
refused    node2      its certificate is of another cluster: x509: certificate signed by unknown authority
refused    node3      the node refused our certificate: tls: bad certificate
refused 2  node[4-5]  output /x: not permitted
refused    node6      output /y: unknown certificate authority
failed     node7      /dev/sdb reads back with other bytes than were written, from byte 0 to 512
hint: a disk of node7 loses or changes what is written to it: smartctl -a DEVICE and dmesg, there, may say how; replace it, and then repeat the command for that node. A device stays half-written until then
hint: the keys of node[1-2] are of another cluster than those used here: name the right ones with --keys, or copy ca.pem and node.pem from here to /etc/dolly-img/keys there; dolly-img keys show, on both, tells them apart
hint: the log of node3 says what is wrong with our certificate (journalctl -u dolly-img); it may be revoked in /etc/dolly-img/keys/revoked there, by the name or the serial number that dolly-img keys show prints here
0 of 7 nodes have it
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			printTable(&b, c.r, "manifest", "have it", c.quiet, nil, "switched to it")
			if got := "\n" + b.String(); got != c.want {
				t.Errorf("got%swant%s", got, c.want)
			}
		})
	}
}

// TestRates: the rates are of the image and of the nodes that committed, whatever rows say they received;
// what the server sent stands beside them.
func TestRates(t *testing.T) {
	committed := func(received, held int64) ring.Row {
		return ring.Row{Node: "n", State: ring.Committed, Bytes: received, Skipped: held}
	}
	held := ring.Row{Node: "n", State: ring.Held, Skipped: 100e6}
	failed := ring.Row{Node: "n", State: ring.Failed, Bytes: 60e6}
	for _, c := range []struct {
		name string
		sent int64
		rows []ring.Row
		want string
	}{
		{"ring", 100e6, []ring.Row{committed(100e6, 0), committed(100e6, 0), failed},
			"Time: 2.000  MBytes/s: 50.000  Aggregate MBytes/s: 100.000  server sent 100 MB\n"},
		{"star", 200e6, []ring.Row{committed(100e6, 0), committed(100e6, 0)},
			"Time: 2.000  MBytes/s: 50.000  Aggregate MBytes/s: 100.000  server sent 200 MB, 2.0 times the image, at 100.000 MBytes/s\n"},
		{"sent twice to a node", 104e6, []ring.Row{committed(104e6, 0)},
			"Time: 2.000  MBytes/s: 50.000  Aggregate MBytes/s: 50.000  server sent 104 MB\n"},
		{"resumed", 40e6, []ring.Row{committed(40e6, 60e6), committed(20e6, 80e6), committed(100e6, 2), held},
			"Time: 2.000  MBytes/s: 50.000  Aggregate MBytes/s: 150.000  server sent 40.0 MB, at 20.000 MBytes/s\n" +
				"the rates count whole images, also what was held before: 140 MB on 2 of 3 nodes\n"},
		{"held", 0, []ring.Row{held, held}, ""},
		{"another name", 0, []ring.Row{committed(0, 100e6)}, ""},
		{"none", 60e6, []ring.Row{failed}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			printRates(&b, &ring.Report{Bytes: 100e6, Sent: c.sent, Elapsed: 2 * time.Second, Nodes: c.rows})
			if b.String() != c.want {
				t.Errorf("got\n%swant\n%s", b.String(), c.want)
			}
		})
	}
}

// TestFigures: what was held before is told where it matters.
func TestFigures(t *testing.T) {
	for _, c := range []struct {
		row  ring.Row
		want string
	}{
		{ring.Row{State: ring.Committed, Bytes: 100e6 - 2, Skipped: 2, Seconds: 1.5}, "100 MB received in 1.00 s"},
		{ring.Row{State: ring.Committed, Bytes: 60e6, Skipped: 40e6, Seconds: 1.5, Reason: "came back"}, "60.0 MB received, 40.0 MB held before, in 1.00 s, came back"},
		{ring.Row{State: ring.Committed, Skipped: 100e6, Seconds: 1.5}, "had all of it before, and switched to it"},
		{ring.Row{State: ring.Committed, Seconds: 1.5}, "0 B received in 1.00 s"},
		{ring.Row{State: ring.Held, Skipped: 100e6, Seconds: 0.1}, "had all of it before, nothing to switch"},
	} {
		if got := figures(c.row, 100e6, 500*time.Millisecond, "switched to it"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.row, got, c.want)
		}
	}
}

// TestAgain runs what is printed in a shell: the words have to come back.
func TestAgain(t *testing.T) {
	var words []string
	root := &cobra.Command{Use: "dolly-img"}
	push := newPush()
	push.RunE = func(cmd *cobra.Command, args []string) error {
		words = strings.Split(again(cmd, []string{"node3", "node17"}), "\x00")
		return nil
	}
	root.AddCommand(push)
	root.SetArgs([]string{"push", "my image's.sif", "--nodes", "node[1-20]", "-w", "x", "-x", "node1", "--quiet", "--mkdir=false",
		"--output", "/data/$HOME/", "--min-success", "90%", "--wait", "60", "--report", "/tmp/r.json"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	want := `dolly-img push 'my image'\''s.sif' --nodes 'node[3,17]' --mkdir=false --output '/data/$HOME/' --quiet --report /tmp/r-2.json --wait 1m0s`
	if words[0] != want {
		t.Fatalf("got  %s\nwant %s", words[0], want)
	}
	sh, err := exec.Command("sh", "-c", `printf '%s\n' `+want).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(string(sh), "\n"); got[2] != "my image's.sif" || got[4] != "node[3,17]" || got[7] != "/data/$HOME/" {
		t.Errorf("a shell reads %q", got)
	}
}

func TestEnough(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want int // -1: error
	}{
		{"", 10, 0}, {"3", 10, 3}, {"10", 10, 10}, {"11", 10, -1}, {"0", 10, -1}, {"-1", 10, -1}, {"1.5", 10, -1},
		{"50%", 3, 2}, {"99.5%", 1000, 995}, {"55%", 100, 55}, {"7%", 100, 7}, {"0.0001%", 7, 1}, {"99.9%", 1000, 999}, {"99.91%", 1000, 1000}, {"100%", 7, 7}, {"0%", 7, -1}, {"101%", 7, -1}, {"%", 7, -1},
		{"NaN", 7, -1}, {"NaN%", 7, -1}, {"inf", 7, -1},
	} {
		got, err := enough(c.s, c.n)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("enough(%q, %d) = %d, want %d", c.s, c.n, got, c.want)
		}
	}
}

func TestReportFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.json")
	f, err := openReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there before it is written: %v", err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	failed, err := (&push.Push{Nodes: []string{"a"}, Keys: keys, What: noSource{}}).Run(t.Context())
	if err == nil || failed.Exit != ring.ExitSource {
		t.Errorf("exit %d, %v", failed.Exit, err)
	}
	if err := f.write(failed); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	for _, want := range []string{`"node": "a"`, `"state": "failed"`, `"reason": "not asked: no; source"`, `"seconds": 0`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := openReport("/dev/null"); err == nil {
		t.Error("a device would be replaced by a file")
	}
	if f, err := openReport(""); f != nil || err != nil || f.write(nil) != nil {
		t.Error("no report is no report")
	}
}

// noSource cannot be opened.
type noSource struct{}

func (noSource) Open(context.Context, *push.Push, *meta.Transfer) (ring.Source, error) {
	return nil, errors.New("no\nsource")
}
