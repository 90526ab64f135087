package dolly

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// digits matches what differs between the machine of the guide and another one.
var digits = regexp.MustCompile(`\d+(\.\d+)?`)

// masked returns the lines of a text without their numbers, and without blanks at both ends: the guide has lost some.
func masked(text string) string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		lines = append(lines, digits.ReplaceAllString(strings.TrimSpace(line), "N"))
	}
	return strings.Join(lines, "\n")
}

func guide(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// guideParams are those of the examples in the guide.
func guideParams() Parameters {
	return Parameters{
		Input: Path{Path: "/dev/sdc1"}, Output: Path{Path: "/dev/sdc1"}, Port: 9998, Host: "sle151", Server: "sle151", Listed: true,
		Nodes: []string{"192.168.255.2", "192.168.255.3", "192.168.255.4", "192.168.255.5"},
	}
}

const guideBytes = 15854469120

func TestServerAsInTheGuide(t *testing.T) {
	var b bytes.Buffer
	p := guideParams()
	s := NewServer(&b, false, p)
	now := time.Unix(1e9, 0)
	s.Begin(131072)
	s.Event(ring.Event{Time: now, Kind: ring.EventPlan, Nodes: p.Nodes, Total: guideBytes})
	s.Event(ring.Event{Time: now, Kind: ring.EventLink, Link: "server -> 192.168.255.2", Up: true})
	s.Event(ring.Event{Time: now.Add(500 * time.Second), Kind: ring.EventProgress, Bytes: guideBytes, Total: guideBytes})
	s.Event(ring.Event{Time: now.Add(501 * time.Second), Kind: ring.EventProgress, Bytes: guideBytes, Total: guideBytes}) // nothing moved
	s.End(Statistics{Bytes: guideBytes, Nodes: 4, Time: 534627532 * time.Microsecond}, 4, false)
	if got, want := masked(b.String()), masked(guide(t, "server.guide")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// With the guide's times and bytes, the figures are the guide's.
	for _, want := range []string{"Time: 534.627532\nMBytes/s: 29.655\nAggregate MBytes/s: 118.621\n", "Read 15854469120 bytes", "Sent MB: 15854.\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestClientAsInTheGuide(t *testing.T) {
	var b bytes.Buffer
	p := guideParams()
	p.Host, p.Me = "192.168.255.2", Place(p.Nodes, "192.168.255.2")
	now := time.Unix(1e9, 0)
	c := NewClient(&b, false)
	c.Listening(196608, 0)
	c.Began(p, now)
	c.Ended(guideBytes, guideBytes, 534627532*time.Microsecond, false)
	if got, want := masked(b.String()), masked(guide(t, "client.guide")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	p.Me = 3
	c.Began(p, now)
	if !strings.Contains(b.String(), "I'm the last host.") || !strings.Contains(b.String(), "\tnone.\n") || strings.Contains(b.String(), "Connecting") {
		t.Errorf("the last one says\n%s", b.String())
	}
}

// A client prints progress while data comes: a line each time, or on a terminal always the same one, which ends where something
// else is printed. The time before the first bytes came does not count.
func TestClientProgress(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "Transfered MB: 2, MB/s: 2.000, Current MB/s: 2.000\nTransfered MB: 3, MB/s: 1.500, Current MB/s: 1.000\nwarning\n" +
			"Transfered MB: 5, MB/s: 1.000, Current MB/s: 0.667\nMax. bytes will be 6000000 bytes. 0 bytes left.\nTransfered MB: 6, MB/s: 1.000 \n\nSynced.\nTransmitted.\n",
		true: "\rTransfered MB: 2, MB/s: 2.000, Current MB/s: 2.000      \rTransfered MB: 3, MB/s: 1.500, Current MB/s: 1.000      \nwarning\n" +
			"\rTransfered MB: 5, MB/s: 1.000, Current MB/s: 0.667      \nMax. bytes will be 6000000 bytes. 0 bytes left.\nTransfered MB: 6, MB/s: 1.000 \n\nSynced.\nTransmitted.\n",
	} {
		var b bytes.Buffer
		c := NewClient(&b, terminal)
		now := time.Unix(1e9, 0)
		c.Began(Parameters{Me: -1}, now)
		b.Reset()
		for _, step := range []struct {
			second int
			bytes  int64
		}{{9, 0}, {10, 2e6}, {11, 3e6}, {12, 3e6}} {
			c.Progress(now.Add(time.Duration(step.second)*time.Second), step.bytes)
		}
		c.Write([]byte("warning\n"))
		c.Progress(now.Add(14*time.Second), 5e6)
		c.Ended(6e6, 6e6, 6*time.Second, false)
		c.Progress(now.Add(15*time.Second), 6e6) // one that was on its way
		if b.String() != want {
			t.Errorf("terminal %v: got\n%q\nwant\n%q", terminal, b.String(), want)
		}
	}
}

// On a terminal progress stays in its line; a node that has no data coming answers, too; one that fails is not hidden
// behind "Clients done".
func TestServerOtherwise(t *testing.T) {
	var b bytes.Buffer
	p := Parameters{Stall: 20, Input: Path{Path: "/i\n", Split: true}, Output: Path{Path: "/o", Compressed: true, Split: true, Each: 1024}, Nodes: []string{"a", "b", "c"}}
	s := NewServer(&b, true, p)
	now := time.Unix(1e9, 0)
	s.Begin(0)
	s.Event(ring.Event{Time: now, Kind: ring.EventNode, Node: "b", State: ring.Held})
	s.Event(ring.Event{Time: now, Kind: ring.EventNode, Node: "c", State: ring.Unreachable})
	s.Event(ring.Event{Time: now, Kind: ring.EventPlan, Nodes: []string{"a"}})
	s.Event(ring.Event{Time: now.Add(time.Second), Kind: ring.EventProgress, Bytes: 1e6})
	s.End(Statistics{Bytes: 2e6, Nodes: 2, Time: time.Second}, 3, true)
	got := b.String()
	for _, want := range []string{
		"Will set timeout to 20 seconds.\nParameter file:\ninfile = '/i', splitted in parts.\ncompressed outfile = '/o', splitted in 1024 byte parts.\n",
		"Host ready 'b'.\nMachines left to wait for: 2\nHost got parameters 'a'.\nMachines left to wait for: 2\nHost ready 'a'.\nMachines left to wait for: 1\nAccepted.\n",
		"\rSent MB: 1, MB/s: 1.000, Current MB/s: 1.000      \nRead 2000000 bytes",
		"Sent MB: 2.\nWaiting for child 0.\n*** ERROR *** 1 of 3 clients do not have it.\n",
		"Aggregate MBytes/s: 4.000\nTransmitted.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"Clients done", "Synced", "ready 'c'", "'writing"} {
		if strings.Contains(got, not) {
			t.Errorf("%q in\n%s", not, got)
		}
	}
}

// With -c the server says how much is left: of what is known to come, or of what -c says of a stream.
func TestServerLeft(t *testing.T) {
	for _, tt := range []struct {
		size, total, bytes int64
		want               string
	}{
		{0, 10e6, 2e6, "Sent MB: 2, MB/s: 1.000, Current MB/s: 1.000\n"},
		{5e6, 10e6, 2e6, "Sent MB: 2, MB/s: 1.000, Current MB/s: 1.000, 20% of 10 MB, 8s left\n"},
		{200e6, -1, 2e6, "Sent MB: 2, MB/s: 1.000, Current MB/s: 1.000, 1% of 200 MB, 3m18s left\n"},
		{1e6, -1, 2e6, "Sent MB: 2, MB/s: 1.000, Current MB/s: 1.000\n"},
	} {
		var b bytes.Buffer
		s := NewServer(&b, false, Parameters{Size: tt.size})
		now := time.Unix(1e9, 0)
		s.Event(ring.Event{Time: now, Kind: ring.EventProgress, Total: tt.total})
		b.Reset()
		s.Event(ring.Event{Time: now.Add(2 * time.Second), Kind: ring.EventProgress, Bytes: tt.bytes, Total: tt.total})
		if b.String() != tt.want {
			t.Errorf("%+v: %q", tt, b.String())
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestStatistics(t *testing.T) {
	s := Statistics{
		Input: Path{Path: "/i", Compressed: true}, Output: Path{Path: "/o"}, Bytes: 100 << 20, Server: "head", Nodes: 4, Time: 2000045 * time.Microsecond,
	}
	dummy := s
	dummy.Dummy = true
	expanded := s
	expanded.Expanded = 200_009_000
	for _, tt := range []struct {
		s       Statistics
		verbose bool
		want    string
	}{
		{s, false, "compressed infile = '/i'\noutfile = '/o'\n     1460        4   2.000045  52.427620  209.710482  \n"},
		{dummy, false, "      100     1460        4   2.000045  52.427620  209.710482  \n"},
		{s, true, "compressed infile = '/i'\noutfile = '/o'\nStandard TCP segment size : 1460 Bytes (1514 Byte eth)\nServer : 'head'\nFanout = 1\nNr of childs = 1\nNr of hosts = 4\n" +
			"Time: 2.000045\nMBytes/s: 52.428\nAggregate MBytes/s: 209.710\n"},
		{expanded, false, "compressed infile = '/i'\noutfile = '/o'\n     1460        4   2.000045  52.427620  209.710482  " +
			"Bytes written on each node: 200009000\nMBytes/s written: 100.002\nAggregate MBytes/s written: 400.009\n\n"},
		{dummy, true, "Transfered block : 100 MB\nStandard TCP segment size : 1460 Bytes (1514 Byte eth)\nServer : 'head'\nFanout = 1\nNr of childs = 1\nNr of hosts = 4\n" +
			"Time: 2.000045\nMBytes/s: 52.428\nAggregate MBytes/s: 209.710\n"},
	} {
		var b bytes.Buffer
		if err := tt.s.Write(&b, tt.verbose); err != nil || b.String() != tt.want {
			t.Errorf("got\n%q, %v, want\n%q", b.String(), err, tt.want)
		}
	}
	if err := s.Write(broken{}, true); err == nil {
		t.Error("a log that cannot be written is no error")
	}
	zero := Statistics{Dummy: true}
	var b bytes.Buffer
	if err := zero.Write(&b, false); err != nil || strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestBufferSize(t *testing.T) {
	for line, want := range map[string]int{"4096\t131072\t6291456\n": 131072, "": 0, "1 x 3": 0} {
		if got := BufferSize(line); got != want {
			t.Errorf("%q: %d", line, got)
		}
	}
}
