package metrics

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// promtool runs a program that Prometheus comes with.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal("counterpart missing: promtool (package prometheus)")
		}
		t.Skip("counterpart missing: promtool (package prometheus)")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", cmd, err, out)
	}
}

// Whatever is in a label stays one label, and what is not known is left out.
func TestText(t *testing.T) {
	faults := NewCounter(LinkFaults)
	faults.Add("crc")
	faults.Add("a cause of a later version")
	text := Text(t.Context(), Daemon, faults.Put, Build{"1.2\"}\n\\", "a\xffb", ""}.Put, func(_ context.Context, put Put) {
		PutTime(put, CertificateExpiry, time.UnixMilli(1797693134862), "own")
		PutTime(put, MirrorLastSuccess, time.Time{})
		PutBool(put, ConfigValid, true)
		put(CacheBytes, 1<<53)
	})
	promtool(t, text, "check", "metrics")
	for line := range strings.SplitSeq(`dolly_img_build_info{version="1.2\"}\n\\",revision="a`+"\uFFFD"+`b",goversion=""} 1
dolly_img_certificate_expiry_timestamp_seconds{certificate="own"} 1797693134.862
dolly_img_config_valid 1
dolly_img_link_faults_total{cause="network"} 0
dolly_img_link_faults_total{cause="crc"} 1
dolly_img_link_faults_total{cause="other"} 1
dolly_img_cache_bytes 9007199254740992`, "\n") {
		if !bytes.Contains(text, []byte("\n"+line+"\n")) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if bytes.Contains(text, []byte("mirror")) {
		t.Errorf("a time that is not known: %s", text)
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"9997": "127.0.0.1:9997", ":9997": "127.0.0.1:9997", "0": "127.0.0.1:0", "0.0.0.0:9997": "0.0.0.0:9997", "[::]:9997": "[::]:9997",
		"[fe80::1%eth0]:1": "[fe80::1%eth0]:1", "localhost:9997": "localhost:9997", "node-7.example:65535": "node-7.example:65535",
		"": "", "localhost": "", "65536": "", "-1": "", "+1": "", "01": "", "127.0.0.1": "", "::1:9997": "", "[::1]": "", "a b:1": "", "-a:1": "",
		"http://localhost:9997": "", "unix:/run/x": "", "localhost:http": "", "localhost:": "", "[::1:1": "", "10.0.0.1/8:1": "",
	} {
		if got, err := Address(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

// row is the line of a metric in the README.
func (m *Metric) row() string {
	name, values := m.Name, ""
	if len(m.Labels) > 0 {
		name += "{" + strings.Join(m.Labels, ", ") + "}"
	}
	if len(m.Values) > 0 {
		values = " (" + strings.Join(m.Values, ", ") + ")"
	}
	return "| `" + name + "`" + values + " | " + m.Type + " | " + m.Help + " |"
}

// The README has every metric as it is exposed, and names no others.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range exposed() {
		names = append(names, m.Name)
		if !strings.Contains(string(text), "\n"+m.row()+"\n") {
			t.Errorf("the README has no row\n%s", m.row())
		}
	}
	for _, name := range named(text) {
		if !slices.Contains(names, name) {
			t.Errorf("the README has %s, which nobody exposes", name)
		}
	}
}

// exposed has every metric once.
func exposed() []*Metric {
	all := slices.Clone(Daemon)
	for _, m := range Controller {
		if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// named returns the metrics that a text names.
func named(text []byte) []string {
	return regexp.MustCompile(`dolly_img_[a-z_]+`).FindAllString(string(text), -1)
}

// The alerts wake people for what their tests say, and are about metrics and values that there are.
func TestAlerts(t *testing.T) {
	const dir = "../../packaging/"
	promtool(t, nil, "check", "rules", "--lint=all", "--lint-fatal", dir+"dolly-img-alerts.yml")
	promtool(t, nil, "test", "rules", dir+"dolly-img-alerts_test.yml")
	for _, file := range []string{"dolly-img-alerts.yml", "dolly-img-alerts_test.yml"} {
		text, err := os.ReadFile(dir + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named(text) {
			if !slices.ContainsFunc(exposed(), func(m *Metric) bool { return m.Name == name }) {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
		for _, m := range regexp.MustCompile(`outcome=~?"([a-z|]+)"`).FindAllSubmatch(text, -1) {
			for outcome := range strings.SplitSeq(string(m[1]), "|") {
				if !slices.Contains(Transfers.Values, outcome) {
					t.Errorf("%s: there is no outcome %s", file, outcome)
				}
			}
		}
	}
}
