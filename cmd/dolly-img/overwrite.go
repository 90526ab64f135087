package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// deviceFlags are those of a transfer to block devices.
type deviceFlags struct {
	yes       int
	forceKind bool
	gpt       string
	verify    string
}

// spinUp is how long nodes are waited for before devices are overwritten, unless --wait says another time: they have to
// be in the plan, and their disks may have to spin up.
const spinUp = 30 * time.Second

func (f *deviceFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.IntVar(&f.yes, "yes-overwrite", 0, "overwrite devices without asking; `N` is how many nodes the command names")
	fl.BoolVar(&f.forceKind, "force-kind", false, "write the image of a whole disk to a partition, that of a partition to a whole disk, or less than 1 MiB of nothing known")
	fl.StringVar(&f.gpt, "gpt", "move", "what to do with a GPT on a larger disk, `move|keep`: move its backup to the end of the disk, or leave it as it is in the image")
	fl.StringVar(&f.verify, "verify", "read-back", "how nodes verify a device that they have written, `read-back|none`: read all of it again, or believe the disk")
}

// into notes the flags in m where it goes to a device.
func (f *deviceFlags) into(cmd *cobra.Command, m *meta.Transfer, input string, send *sendFlags) error {
	if f.gpt != "move" && f.gpt != "keep" {
		return usagef("--gpt %q: want move or keep", f.gpt)
	}
	if f.verify != "read-back" && f.verify != "none" {
		return usagef("--verify %q: want read-back or none", f.verify)
	}
	if m.Device == nil {
		for _, name := range []string{"yes-overwrite", "force-kind", "gpt", "verify"} {
			if cmd.Flags().Changed(name) {
				return usagef("--%s is for devices, as with --output device:NAME", name)
			}
		}
		return nil
	}
	if input == "-" {
		return &usageError{errors.New("standard input cannot go to a device: its length is not known before"), "write it to a file first"}
	}
	m.Device.AnyKind, m.Device.KeepTable = f.forceKind, f.gpt == "keep"
	m.Device.Unread = f.verify == "none"
	if !cmd.Flags().Changed("wait") {
		send.wait = spinUp
	}
	return nil
}

// confirms has j ask before devices are overwritten.
func (f *deviceFlags) confirms(j *job) error {
	if j.Meta.Device == nil {
		return nil
	}
	if n := len(j.Nodes); f.yes != 0 && f.yes != n {
		return usagef("--yes-overwrite %d: the command names %d nodes", f.yes, n)
	}
	j.Confirm = func(ctx context.Context, p push.Plan) error {
		j.screen.progress("")
		printOverwrites(j.screen, p)
		j.printOwn(j.screen, p.Nodes)
		j.news.plan(unserved(p.Nodes))
		if f.yes == 0 {
			if err := j.ask(ctx, len(p.Nodes)); err != nil {
				return err
			}
		}
		j.agreed.Store(true)
		return nil
	}
	return nil
}

// ask has the user type how many nodes there are, if there is a user.
func (j *job) ask(ctx context.Context, nodes int) error {
	in, ok := j.cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) || !j.screen.tty || j.flags.stdin {
		return push.ErrUnconfirmed
	}
	fmt.Fprintf(j.cmd.ErrOrStderr(), "type %d, the number of nodes that were asked, to overwrite these devices: ", nodes)
	typed := make(chan string, 1)
	go func() { // a read of a terminal cannot be cut short
		line, _ := bufio.NewReader(in).ReadString('\n')
		typed <- line
	}()
	select {
	case line := <-typed:
		if n, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || n != nodes {
			return push.ErrUnconfirmed
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// confirmWith returns the error of a plan that nobody agreed to, with the command that does.
func (j *job) confirmWith(err error) error {
	return hintf(fmt.Sprintf("if that is what you want: %s --yes-overwrite %d", j.again(j.Nodes), len(j.Nodes)), "%w", err)
}

// printOverwrites prints what would be written, and what would be overwritten: a line for all nodes whose devices are alike, the largest
// group first, and of equal ones that of the first node in the plan. Then comes who is not in the plan.
func printOverwrites(w io.Writer, p push.Plan) {
	fmt.Fprintln(w, printable.Line(fmt.Sprintf("sends %s, %s, holds: %s", p.Source, bytesize.Text(p.Size), p.Holds)))
	devices, does := p.Devices(), "overwrites"
	if p.Update {
		does = "compares, and overwrites where it differs,"
	}
	for _, g := range alikeDevices(p) {
		text := string(p.Nodes[g.rows[0]].Facts)
		if f := devices[g.rows[0]]; f != nil {
			text = overwrites(f, g.path, p.Size)
		}
		var names []string
		for _, i := range g.rows {
			names = append(names, p.Nodes[i].Node)
		}
		fmt.Fprintln(w, printable.Line(fmt.Sprintf("%s on %s: %s", does, counted(names), text)))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	out := grouped(unserved(p.Nodes))
	printBad(t, out)
	t.Flush()
	printHints(w, out)
	if alike := p.Alike(); len(alike) > 0 && !p.Update && push.Updates(true, p.Size) {
		var names []string
		for _, i := range alike {
			names = append(names, p.Nodes[i].Node)
		}
		fmt.Fprintln(w, printable.Line(fmt.Sprintf("hint: %s may have most of it already: with --update only what differs is sent and written", counted(names))))
	}
}

// devicesOf are the nodes of a plan whose devices are alike, by their places in it.
type devicesOf struct {
	path string // of the device; where the numbers of loop devices differ, there is a * in their place
	rows []int
}

// alikeDevices groups the nodes of a plan that would overwrite something.
func alikeDevices(p push.Plan) (groups []*devicesOf) {
	devices, known := p.Devices(), map[string]*devicesOf{}
	for i := range p.Nodes {
		f, ok := devices[i]
		if !ok {
			continue
		}
		key, path, pattern := string(p.Nodes[i].Facts), "", ""
		if f != nil {
			path = f.Path
			if pattern = path; f.Kind == disk.Loop {
				pattern = strings.TrimRight(path, "0123456789") + "*"
			}
			key = overwrites(f, pattern, p.Size)
		}
		g := known[key]
		if g == nil {
			g = &devicesOf{path: path}
			known[key], groups = g, append(groups, g)
		}
		if g.path != path {
			g.path = pattern
		}
		g.rows = append(g.rows, i)
	}
	slices.SortStableFunc(groups, func(a, b *devicesOf) int { return cmp.Compare(len(b.rows), len(a.rows)) })
	return groups
}

// printOwn says which of the nodes that refused since their device is busy is this machine, which sends a device. It says so once.
func (j *job) printOwn(w io.Writer, rows []ring.Row) {
	if j.ownSaid || !raw.IsDevice(j.Name) {
		return
	}
	for _, row := range rows {
		k := slices.IndexFunc(j.Peers, func(p ring.Peer) bool { return p.Name == row.Node })
		if row.Code != "busy" || k < 0 || !slices.ContainsFunc(j.Peers[k].Addrs, isOwn) {
			continue
		}
		j.ownSaid = true
		name := printable.Line(row.Node)
		fmt.Fprintf(w, "hint: %s is this machine, and %s is what it sends: leave it out with -x %s\n", name, printable.Line(j.Name), quote(name))
	}
}

// isOwn reports whether an address with a port is one of this machine.
func isOwn(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	own, err := net.InterfaceAddrs()
	return ip.IsLoopback() || err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// unserved returns the rows of a plan of those that would not be served.
func unserved(rows []ring.Row) []ring.Row {
	return rowsIn(&ring.Report{Nodes: rows}, func(row ring.Row) bool { return row.State != ring.Pending && !row.State.Good() })
}

// counted returns the names of nodes, and how many they are.
func counted(names []string) string {
	if len(names) == 1 {
		return fold(names)
	}
	return fmt.Sprintf("%d nodes, %s", len(names), fold(names))
}

// overwrites says what a device is and holds. Disks that differ by their serial numbers only are alike, and what the device mapper
// made is known by its name there, and not by path.
func overwrites(f *disk.Facts, path string, size int64) string {
	words := []string{f.Output}
	switch {
	case f.MapName != "":
		words = append(words, "/dev/mapper/"+f.MapName)
	case f.Path != f.Output:
		words = append(words, path)
	}
	if f.Model != "" {
		words = append(words, f.Model)
	}
	words = append(words, bytesize.Text(f.Size))
	text := strings.Join(words, " ") + ", holds: " + f.Held()
	if more := f.Size - size; more > 0 {
		text += fmt.Sprintf("; %s larger than the source", bytesize.Text(more))
	}
	return text
}

// printNotReadBack says of devices that nobody read back that they are as good as their disks say.
func (j *job) printNotReadBack(w io.Writer, rep *ring.Report) {
	rows := rowsIn(rep, func(row ring.Row) bool { return row.Code == push.CodeNotReadBack })
	if len(rows) > 0 && !j.flags.quiet {
		fmt.Fprintf(w, "not read back: the device of %s, as --verify none says: what its disk lost or changed was not noticed\n", counted(namesOf(rows)))
	}
}

// printHalf says which devices are half-written, or may be, at the end of a transfer that ended with err. What a source failed
// in goes through only once the source is another one.
func (j *job) printHalf(w *screen, rep *ring.Report, err error) {
	how := "go on with"
	if source := new(ring.SourceError); errors.As(err, &source) {
		how = "once the source is right, go on with"
	}
	for _, of := range []struct {
		target ring.TargetState
		text   string
	}{
		{ring.TargetOverwritten, "half-written, and of no use until the transfer has gone through: the device of %s"},
		{ring.TargetUnknown, "half-written, untouched or complete, which only the node knows (dolly-img devices, there, says what it holds): the device of %s"},
	} {
		if rows := rowsIn(rep, func(row ring.Row) bool { return row.Target == of.target }); len(rows) > 0 {
			w.printf(of.text, counted(namesOf(rows)))
		}
	}
	half := func(row ring.Row) bool {
		return row.Target == ring.TargetOverwritten || row.Target == ring.TargetUnknown
	}
	if j.again != nil && rep.Count() == 0 && slices.ContainsFunc(rep.Nodes, half) { // else it was said how to serve the nodes that were not
		w.printf("%s: %s", how, j.again(namesOf(rowsIn(rep, func(row ring.Row) bool { return row.Cause.Fault != ring.FaultDenied }))))
	}
}
