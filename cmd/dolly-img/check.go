package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// speed is the rate at which bytes are expected to move, and how it is known.
type speed struct {
	// rate is in bytes per second; 0 is unknown.
	rate int64
	why  string
	// times is how many nodes the server feeds itself, each with all bytes.
	times int64
}

// softHash is about how fast a core without SHA instructions hashes, in bytes per second. It was measured:
// test/bench/RESULTS.md.
const softHash = 250e6

// figures counts what there is to move, and how long that should take.
func (j *job) figures(r *ring.Report) *ring.Plan {
	p := &ring.Plan{Holds: j.Plan(r.Nodes, r.Bytes).Holds, Free: map[string]int64{}}
	most := int64(0) // bytes that move over the first link
	for _, row := range r.Nodes {
		switch row.State {
		case ring.Pending:
			p.Serve++
			p.Move += max(r.Bytes-row.Skipped, 0)
			most = max(most, r.Bytes-row.Skipped)
		case ring.Held:
			p.Hold++
		default:
			continue
		}
		if row.Free >= 0 && j.Meta.Device == nil {
			p.Free[row.Node] = row.Free
		}
	}
	if r.Bytes < 0 {
		p.Move = -1
	}
	if p.Serve == 0 || r.Bytes < 0 {
		return p
	}
	s := j.speed(r).shared(r, j.flags.maxDirect).hashed(r)
	p.Send, p.Rate, p.Limit = most*s.times, s.rate, s.why
	if s.rate > 0 {
		p.Seconds = float64(most) / float64(s.rate)
	}
	return p
}

// printCheck prints the plan: a row for each node, or one for all nodes with the same plan if there are many, what
// there is to move, and the time that it should take. Of a transfer to devices it says what would be overwritten. With update nodes
// compare what they have first, so that less may move.
func printCheck(w io.Writer, r *ring.Report, quiet, update bool, devices *push.Plan) {
	var good []ring.Row
	for _, row := range r.Nodes {
		if row.State == ring.Pending || row.State == ring.Held {
			good = append(good, row)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	switch {
	case devices != nil && !quiet:
		printOverwrites(w, *devices)
	default:
		if !quiet {
			printPlans(t, r, good)
		}
		groups := grouped(unserved(r.Nodes))
		printBad(t, groups)
		t.Flush()
		printHints(w, groups)
	}
	if quiet {
		return
	}
	would, nothing, most := "served", "moved", ""
	if devices != nil {
		would, nothing, most = "overwritten", "written", "at most " // zeros do not move, nor what a transfer that broke off has left
	}
	if update {
		most = "at most "
		if devices != nil {
			would = "compared and updated"
		}
	}
	p := r.Plan
	fmt.Fprintf(w, "%d of %d nodes would be %s, %d hold it; nothing was %s\n", p.Serve, len(r.Nodes), would, p.Hold, nothing)
	switch {
	case p.Serve == 0:
	case p.Move < 0:
		fmt.Fprintln(w, "to move: the input until it ends, to each of them; expected time: unknown")
	default:
		fmt.Fprintf(w, "to move: %s%s over the ring, %s of it from here\n", most, bytesize.Text(p.Move), bytesize.Text(p.Send))
		if p.Rate <= 0 {
			fmt.Fprintf(w, "expected time: unknown, %s; --rate sets a speed\n", p.Limit)
			return
		}
		behind := ""
		if devices != nil && !devices.Unread {
			behind = "; then each node reads its device back"
		}
		fmt.Fprintf(w, "expected time: %s at %s/s, %s%s\n", clockFrom(time.Duration(p.Seconds*float64(time.Second))), bytesize.Text(p.Rate), p.Limit, behind)
	}
}

// printPlans prints what a push would do to the nodes that can be served.
func printPlans(w io.Writer, r *ring.Report, rows []ring.Row) {
	if len(rows) < foldGood {
		for _, row := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s, %s\n", planned(row), printable.Line(row.Node), moves(r, row), free(row.Free))
		}
		return
	}
	type plan struct{ what, moves string }
	var order []plan
	same := map[plan][]ring.Row{}
	for _, row := range rows {
		p := plan{planned(row), moves(r, row)}
		if same[p] == nil {
			order = append(order, p)
		}
		same[p] = append(same[p], row)
	}
	for _, p := range order {
		least := slices.MinFunc(same[p], func(a, b ring.Row) int { return cmp.Compare(a.Free, b.Free) })
		room := free(least.Free)
		if least.Free >= 0 {
			room = "at least " + room + ", on " + printable.Line(least.Node)
		}
		fmt.Fprintf(w, "%s %d\t%s\t%s, %s\n", p.what, len(same[p]), fold(namesOf(same[p])), p.moves, room)
	}
}

func planned(row ring.Row) string {
	if row.State == ring.Pending {
		return "would be served"
	}
	return string(row.State)
}

// moves says what a node holds and what it would receive.
func moves(r *ring.Report, row ring.Row) string {
	move := bytesize.Text(max(r.Bytes-row.Skipped, 0))
	switch {
	case row.State == ring.Held:
		return "has all of it, nothing to move"
	case r.Bytes < 0:
		move = "all"
	case row.Skipped >= r.Bytes:
		move = "nothing"
	}
	if !matters(row.Skipped, r.Bytes) {
		return move + " to move"
	}
	return fmt.Sprintf("%s held, %s to move", bytesize.Text(row.Skipped), move)
}

func free(bytes int64) string {
	if bytes < 0 {
		return "free space unknown"
	}
	return bytesize.Text(bytes) + " free"
}

// clockFrom writes d as clock does, and with tenths of a second if it is short.
func clockFrom(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return clock(d)
}

// speed returns --rate, or else the speed of the interface towards the first node that would be served: the chain is not
// faster than the server can send.
func (j *job) speed(r *ring.Report) speed {
	if j.Rate > 0 {
		return speed{rate: j.Rate, why: "as --rate says"}
	}
	for _, row := range r.Nodes {
		k := slices.IndexFunc(j.Peers, func(p ring.Peer) bool { return p.Name == row.Node })
		if row.State != ring.Pending || k < 0 || len(j.Peers[k].Addrs) == 0 {
			continue
		}
		dev, err := interfaceTo(j.Peers[k].Addrs[0])
		if err != nil {
			return speed{why: "no interface towards " + row.Node + " was found"}
		}
		rate, ok := linkSpeed("/sys/class/net", dev)
		if !ok {
			return speed{why: "the system does not know the speed of " + dev + " towards " + row.Node}
		}
		return speed{rate: rate, why: "the speed of " + dev + " towards " + row.Node}
	}
	return speed{why: "nobody is to be served"}
}

// hashed returns the speed of machines that have no SHA instructions where there are some and s is higher or unknown,
// and otherwise s.
func (s speed) hashed(r *ring.Report) speed {
	if s.rate > 0 && s.rate <= softHash {
		return s
	}
	var where []string
	if r.NoSHA {
		where = append(where, "this server")
	}
	slow := rowsIn(r, func(row ring.Row) bool { return row.State == ring.Pending && row.NoSHA })
	if len(slow) > 0 {
		where = append(where, fold(namesOf(slow)))
	}
	if len(where) > 0 {
		s.rate, s.why = softHash, "hashing without SHA instructions on "+strings.Join(where, " and ")
	}
	return s
}

// interfaceTo returns the name of the interface by which packets to addr leave. It connects a datagram socket, which
// looks up the route and sends nothing.
func interfaceTo(addr string) (string, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	own := conn.LocalAddr().(*net.UDPAddr).IP
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, dev := range all {
		addrs, err := dev.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(own) {
				return dev.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has %s", own)
}

// linkSpeed returns the speed that the driver of dev reports below sys. The file has Mbit/s. If the driver does not know
// its speed, the file has -1 or cannot be read. A virtual interface is as fast as the fastest one that it is made of, since its own figure
// is made up; only a bond adds up what it has.
func linkSpeed(sys, dev string) (bytesPerSecond int64, ok bool) {
	dir := filepath.Join(sys, filepath.Base(dev))
	if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
		var most int64
		lower, _ := filepath.Glob(filepath.Join(dir, "lower_*")) // the pattern is good
		for _, path := range lower {
			if n, ok := linkSpeed(sys, strings.TrimPrefix(filepath.Base(path), "lower_")); ok {
				most = max(most, n)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "bonding")); err != nil || most == 0 {
			return most, most > 0
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "speed"))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 || n > 1e7 {
		return 0, false
	}
	return n * 1e6 / 8, true
}
