package web

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

func listen(t *testing.T) *Server {
	t.Helper()
	s, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// ask makes a request to the server whatever the address says.
func (s *Server) ask(t *testing.T, method, path, host string, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// Nobody learns anything without the token, nor through a name that is another's, and nothing can be changed.
func TestWhoMayLook(t *testing.T) {
	s := listen(t)
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") || s.Open() || len(s.token) != 22 {
		t.Errorf("%s, open %v", s.URL(), s.Open())
	}
	own := "/" + s.token
	for _, tt := range []struct {
		method, path, host string
		body               io.Reader
		status             int
	}{
		{"GET", own + "/", s.host, nil, 200},
		{"GET", own + "/", "localhost:9", nil, 200}, // through a port that is forwarded
		{"GET", own + "/", "[::1]:9", nil, 200},
		{"GET", own + "/page.js", s.host, nil, 200},
		{"GET", own + "/style.css", s.host, nil, 200},
		{"HEAD", own + "/events", s.host, nil, 200},
		{"GET", own, s.host, nil, 302},
		{"GET", "/", s.host, nil, 404},
		{"GET", "/events", s.host, nil, 404},
		{"GET", "/page.js", s.host, nil, 404},
		{"GET", own[:len(own)-1] + "/", s.host, nil, 404},
		{"GET", own + "x/", s.host, nil, 404},
		{"GET", own + "/nothing.js", s.host, nil, 404},
		{"GET", own + "/../server.go", s.host, nil, 404},
		{"GET", own + "/%2e%2e/doc.go", s.host, nil, 404},
		{"GET", own + "/", "rebound.example", nil, 421},
		{"GET", own + "/events", "rebound.example:80", nil, 421},
		{"POST", own + "/", s.host, nil, 405},
		{"DELETE", own + "/events", s.host, nil, 405},
		{"GET", own + "/", s.host, strings.NewReader("body"), 400},
	} {
		resp, text := s.ask(t, tt.method, tt.path, tt.host, tt.body)
		if resp.StatusCode != tt.status || tt.status >= 400 && strings.Contains(text, s.token) {
			t.Errorf("%s %s of %s: %s: %s", tt.method, tt.path, tt.host, resp.Status, text)
		}
		h := resp.Header
		if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", tt.path, h)
		}
	}
	if again := listen(t); again.token == s.token {
		t.Error("two servers have one token")
	}
}

// An address that others can reach is said to be one; without a host it never is.
func TestAddresses(t *testing.T) {
	for addr, open := range map[string]bool{"": false, ":0": false, "127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true} {
		s, err := Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		if s.Open() != open || strings.Contains(s.URL(), "0.0.0.0") {
			t.Errorf("%q: %s, open %v", addr, s.URL(), s.Open())
		}
		s.Close()
	}
	for _, addr := range []string{"8080", "a:b:c", ":none-such"} {
		if err := CheckAddr(addr); err == nil {
			t.Errorf("%q is an address", addr)
		}
	}
}

// viewer opens the events of a server, and returns a function that reads the next one.
func (s *Server) viewer(t *testing.T) (resp *http.Response, next func() (name, data string)) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = (&http.Client{Transport: &http.Transport{}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp, events(t, resp.Body)
}

func events(t *testing.T, body io.Reader) func() (name, data string) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	return func() (name, data string) {
		for lines.Scan() {
			line := lines.Text()
			if v, ok := strings.CutPrefix(line, "event: "); ok {
				name = v
			}
			if v, ok := strings.CutPrefix(line, "data: "); ok {
				return name, v
			}
		}
		t.Fatalf("the events have ended: %v", lines.Err())
		return "", ""
	}
}

// The 17th viewer is told why it cannot look, and can as soon as another one has gone.
func TestViewersAreBounded(t *testing.T) {
	s := listen(t)
	s.Chain("x").Snapshot(snapshot(3, 1))
	var first *http.Response
	for i := range mostViewers {
		resp, next := s.viewer(t)
		if name, _ := next(); name != "head" || resp.StatusCode != 200 {
			t.Fatalf("viewer %d: %s, %q", i, resp.Status, name)
		}
		first = resp
	}
	resp, text := s.ask(t, "GET", "/"+s.token+"/events", s.host, nil)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "16 look already") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s: %s", resp.Status, text)
	}
	if resp, _ := s.ask(t, "GET", "/"+s.token+"/", s.host, nil); resp.StatusCode != 200 {
		t.Errorf("the page itself: %s", resp.Status)
	}
	first.Body.Close()
	for changed, full := s.feed.full(); full; changed, full = s.feed.full() {
		<-changed // until the server has noticed
	}
	if resp, _ := s.viewer(t); resp.StatusCode != 200 {
		t.Errorf("after one has gone: %s", resp.Status)
	}
}

func (f *feed) full() (changed <-chan struct{}, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed, f.viewers >= mostViewers
}

// snapshot is one of n nodes in which everything may differ from one number to the next.
func snapshot(n int, number uint64) ring.NodesSnapshot {
	rng := rand.New(rand.NewPCG(number, 1))
	at := time.Unix(1_800_000_000, 0).Add(time.Duration(number) * time.Second)
	s := ring.NodesSnapshot{Time: at, Phase: ring.PhaseSend, Sums: ring.Event{Bytes: int64(number) * 1e6, Total: 1e9, Rate: 1e6}}
	for i := range n {
		s.Nodes = append(s.Nodes, ring.NodeNow{
			Name: fmt.Sprintf("node%04d", i+1), State: ring.Serving, Wait: ring.WaitFeeder, WaitsFor: i, Feeder: i, Linked: true, Since: at.Add(-time.Duration(rng.IntN(9)) * time.Second),
			Bytes: int64(number)*1e6 + rng.Int64N(1e6), Rate: rng.Int64N(1e9),
		})
	}
	return s
}

// A viewer that reads nothing for a while is sent the newest state then, and not all that it has missed.
func TestSlowViewer(t *testing.T) {
	s := listen(t)
	c := s.Chain("x")
	const nodes, last = 1000, 60
	c.Snapshot(snapshot(nodes, 1))
	raw, err := net.Dial("tcp", s.host)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(raw, "GET /%s/events HTTP/1.0\r\nHost: %s\r\n\r\n", s.token, s.host)
	_, keeps := s.viewer(t)
	keeps() // head: both look by now, or the next one does
	for k := uint64(2); k <= last; k++ {
		c.Snapshot(snapshot(nodes, k))
		for { // one that keeps up is never behind
			var f struct{ N uint64 }
			name, data := keeps()
			if err := json.Unmarshal([]byte(data), &f); err != nil || name != "delta" && name != "full" {
				t.Fatalf("%s: %v", name, err)
			}
			if f.N == k {
				break
			}
		}
	}
	next, got, newest := events(t, raw), 0, uint64(0)
	for newest < last {
		_, data := next()
		var f struct{ N uint64 }
		if err := json.Unmarshal([]byte(data), &f); err != nil || f.N < newest {
			t.Fatalf("%d after %d, %v", f.N, newest, err)
		}
		newest = f.N
		got++
	}
	if got >= last/2 {
		t.Errorf("it was sent %d of %d states", got, last)
	}
}

// follow is the page in Go: it keeps what the events say.
type follow struct {
	names   []string
	columns map[string][]int32
	rows    []row
	frame   frame
}

func (f *follow) take(t *testing.T, name, data string) {
	t.Helper()
	if name == "head" {
		var head struct{ Names []string }
		if err := json.Unmarshal([]byte(data), &head); err != nil {
			t.Fatal(err)
		}
		f.names = head.Names
		return
	}
	var in frame
	if err := json.Unmarshal([]byte(data), &in); err != nil {
		t.Fatal(err)
	}
	if name == "delta" && in.Number != f.frame.Number+1 {
		t.Errorf("a delta to %d after %d", in.Number, f.frame.Number)
	}
	if name == "full" {
		f.columns = map[string][]int32{}
		for k, c := range columnNames {
			f.columns[c] = slices.Repeat([]int32{defaults[k]}, len(f.names))
		}
	}
	for c, col := range in.Columns {
		if col.Dense != nil {
			f.columns[c] = col.Dense
		}
		at := int32(0)
		for k, gap := range col.Gaps {
			at += gap
			f.columns[c][at] = col.Values[k]
		}
	}
	if f.frame = in; in.Rows != nil {
		f.rows = *in.Rows
	}
}

// A viewer that has read deltas knows the same as one that has just come, and what it knows is what the ring said.
func TestDeltas(t *testing.T) {
	s := listen(t)
	c := s.Chain("app.sif")
	_, next := s.viewer(t)
	c.Snapshot(snapshot(5, 1))
	var f follow
	for range 2 {
		f.hear(t, next)
	}
	now := snapshot(5, 2)
	now.Nodes[1] = ring.NodeNow{Name: now.Nodes[1].Name, State: ring.Lost, Wait: ring.WaitAnswer, WaitsFor: -1, Feeder: -1, Bypassed: true, Since: now.Time, Cause: ring.Cause{Text: "no answer from ", Addr: "10.0.0.1:9998"}}
	now.Nodes[3] = now.Nodes[1]
	now.Nodes[3].Name, now.Nodes[3].Cause.Addr = "node0004", "10.0.0.3:9998"
	now.Nodes[2].Feeder, now.Nodes[2].WaitsFor, now.Nodes[2].Slow = 1, 1, true
	c.Snapshot(now)
	name, data := next()
	f.take(t, name, data)
	if name != "delta" {
		t.Errorf("a viewer that reads is sent %s", name)
	}
	var late follow
	_, other := s.viewer(t)
	for range 2 {
		late.hear(t, other)
	}
	for _, f := range []follow{f, late} {
		want := map[string][]int32{"st": {1, 2, 1, 2, 1}, "wf": {0, -1, 1, -1, 4}, "fd": {0, -1, 1, -1, 4}, "fl": {1, 2, 5, 2, 1}, "ro": {-1, 0, -1, 0, -1}}
		for name, column := range want {
			if !slices.Equal(f.columns[name], column) {
				t.Errorf("%s is %v, want %v", name, f.columns[name], column)
			}
		}
		if len(f.rows) != 1 || f.rows[0].Nodes != "node[0002,0004]" || f.rows[0].Why != "no answer from its address" || f.rows[0].Count != 2 {
			t.Errorf("rows %+v", f.rows)
		}
	}
	rep := &ring.Report{Exit: 3}
	for i, n := range now.Nodes {
		row := ring.Row{Node: n.Name, State: ring.Committed}
		if i == 1 || i == 3 {
			row.State, row.Reason, row.Cause = ring.Failed, n.Cause.String(), n.Cause // which are out since they were lost
		}
		rep.Nodes = append(rep.Nodes, row)
	}
	c.last.Time = now.Time.Add(time.Minute)
	c.Report(rep, nil)
	f.hear(t, next)
	if f.frame.Phase != ring.PhaseEnd || f.frame.Result != "3 of 5 nodes have it; exit status 3" || !slices.Equal(f.columns["st"], []int32{3, 5, 3, 5, 3}) || f.rows[0].State != ring.Failed || f.rows[0].Since != 1 {
		t.Errorf("at the end %+v, %v, %+v", f.frame, f.columns["st"], f.rows)
	}
	go s.Close()
	if name, _ := next(); name != "bye" {
		t.Errorf("%s instead of bye", name)
	}
}

// hear takes the next event.
func (f *follow) hear(t *testing.T, next func() (name, data string)) {
	t.Helper()
	name, data := next()
	f.take(t, name, data)
}

// What is sent of 1000 nodes, in all of which nearly everything changes each second.
func TestThousandIsSmall(t *testing.T) {
	f := newFeed()
	c := f.chain("x")
	f.enter()
	sum, most := 0, 0
	const seconds = 60
	for k := uint64(1); k <= seconds; k++ {
		c.Snapshot(snapshot(1000, k))
		sum += len(c.delta)
		most = max(most, len(c.delta))
	}
	full, _ := c.events(0)
	t.Logf("%d bytes a second, %d at most; who comes is sent %d and %d", sum/seconds, most, len(full[0]), len(full[1]))
	if sum/seconds > 30e3 {
		t.Errorf("%d bytes a second", sum/seconds)
	}
}

// A controller's snapshot becomes a matrix of images and groups.
func TestWarmMatrix(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	v := viewOf(&warm.Snapshot{
		Groups: []warm.GroupStatus{{Name: "cpu", Nodes: 2, Members: []string{"c1", "c2"}}, {Name: "gpu", Nodes: 3, Members: []string{"g1", "g2", "g3"}}},
		Images: []warm.ImageStatus{{Ref: "docker://r/a:1", State: warm.ImageDegraded, Warm: 1, Groups: []string{"gpu"}, Nodes: []warm.NodeStatus{
			{Node: "g1", State: warm.NodeWarm}, {Node: "g2", State: warm.NodeAway, Reason: "no answer", Since: at.Add(time.Hour)}, {Node: "g3", State: warm.NodeAway, Reason: "no answer", Since: at},
		}}},
	})
	i := v.Images[0]
	if i.Cells[0] != nil || i.Cells[1].Nodes != 3 || i.Cells[1].States["warm"] != 1 || i.Cells[1].States["away"] != 2 {
		t.Errorf("cells %v", i.Cells)
	}
	if len(i.Rows) != 1 || i.Rows[0].Nodes != "g[2-3]" || i.Rows[0].Since != at.Unix() || i.Rows[0].Count != 2 {
		t.Errorf("rows %+v", i.Rows)
	}
}
