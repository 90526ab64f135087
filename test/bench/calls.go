package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/dolly-img/dolly-img/test/netns"
)

// calls are the system calls that one process made, by name.
type calls map[string]int64

func (c calls) sum() (n int64) {
	for _, count := range c {
		n += count
	}
	return n
}

// otherCalls is the entry for all calls that perf does not count by name.
const otherCalls = "others"

// namedCalls are those that perf counts one by one.
var namedCalls = []string{
	"read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg", "splice", "pwrite64", "pwritev",
	"epoll_pwait", "epoll_ctl", "select", "futex", "nanosleep", "clock_nanosleep", "sched_yield", "sync_file_range",
}

// tracer counts the system calls of one process.
type tracer struct {
	name  string
	start func(ctx context.Context, pid int, file string) (stop func(context.Context) error, err error)
	parse func(file string) (calls, error)
}

// perf hardly slows the process; strace stops it at each call, so that a node under it finds more to read
// at once than it does alone.
var (
	perf   = &tracer{"perf", startPerf, parsePerf}
	strace = &tracer{"strace, which slows it", startStrace, parseStrace}
)

// newTracer returns nil if the machine has nothing to count with.
func newTracer(ctx context.Context) *tracer {
	if exec.CommandContext(ctx, "perf", "stat", "-e", "raw_syscalls:sys_enter", "true").Run() == nil {
		return perf
	}
	if _, err := exec.LookPath("strace"); err == nil {
		return strace
	}
	return nil
}

// count counts the calls of the process pid while run runs.
func (t *tracer) count(ctx context.Context, pid int, dir string, run func() error) (calls, error) {
	file := filepath.Join(dir, "calls")
	stop, err := t.start(ctx, pid, file)
	if err != nil {
		return nil, err
	}
	err = run()
	if serr := stop(ctx); err == nil {
		err = serr
	}
	if err != nil {
		return nil, err
	}
	return t.parse(file)
}

func startPerf(ctx context.Context, pid int, file string) (func(context.Context) error, error) {
	commandsIn, commandsOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer commandsIn.Close()
	answersIn, answersOut, err := os.Pipe()
	if err != nil {
		commandsOut.Close()
		return nil, err
	}
	defer answersIn.Close()
	events := "raw_syscalls:sys_enter"
	for _, name := range namedCalls {
		events += ",syscalls:sys_enter_" + name
	}
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-o", file, "-p", strconv.Itoa(pid), "--delay", "-1", "--control", "fd:3,4", "-e", events)
	cmd.ExtraFiles = []*os.File{commandsIn, answersOut}
	p, err := netns.Start(cmd)
	answersOut.Close()
	if err != nil {
		commandsOut.Close()
		return nil, err
	}
	// perf answers when it counts, and the pipe breaks when it cannot.
	_, err = commandsOut.WriteString("enable\n")
	if err == nil {
		_, err = io.ReadFull(answersIn, make([]byte, len("ack\n")))
	}
	if err != nil {
		commandsOut.Close()
		p.Kill()
		return nil, fmt.Errorf("perf: %w: %s", err, p.Output())
	}
	return func(ctx context.Context) error {
		defer commandsOut.Close()
		return interrupt(ctx, p)
	}, nil
}

func startStrace(ctx context.Context, pid int, file string) (func(context.Context) error, error) {
	p, err := netns.Start(exec.CommandContext(ctx, "strace", "-f", "-c", "-o", file, "-p", strconv.Itoa(pid)))
	if err != nil {
		return nil, err
	}
	if _, err := p.Line(ctx, "attached"); err != nil {
		p.Kill()
		return nil, err
	}
	return func(ctx context.Context) error { return interrupt(ctx, p) }, nil
}

// interrupt ends a tracer as ^C does. The status of the tracer is ignored, because it only says that.
func interrupt(ctx context.Context, p *netns.Process) error {
	p.Signal(syscall.SIGINT)
	_, err := p.Wait(ctx)
	return err
}

// parsePerf reads lines like "268,,syscalls:sys_enter_read,74229,100.00,,". The third field is the event.
func parsePerf(file string) (calls, error) {
	c := calls{}
	err := eachLine(file, func(line string) error {
		fields := strings.Split(line, ",")
		if len(fields) < 3 || !strings.Contains(fields[2], "sys_enter") {
			return nil
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return fmt.Errorf("perf: %q is no count", line)
		}
		name, named := strings.CutPrefix(fields[2], "syscalls:sys_enter_")
		if !named {
			name = otherCalls // the sum of all, from which those with names are taken below
		}
		if n > 0 {
			c[name] += n
		}
		return nil
	})
	for name, n := range c {
		if name != otherCalls {
			c[otherCalls] -= n
		}
	}
	return c, err
}

// parseStrace reads lines like " 35.10    0.010000          37       268        12 read". The fourth field
// is the count, and the fifth, the count of errors, can be missing.
func parseStrace(file string) (calls, error) {
	c := calls{}
	err := eachLine(file, func(line string) error {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[len(fields)-1] == "total" {
			return nil
		}
		if n, err := strconv.ParseInt(fields[3], 10, 64); err == nil {
			c[fields[len(fields)-1]] = n
		}
		return nil
	})
	return c, err
}

func eachLine(file string, do func(string) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if err := do(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// printCalls writes the calls of one node per MiB of the image, a line for each call that any of the
// programs makes often.
func (r *result) printCalls(w io.Writer) {
	if r.Rate > 0 {
		return
	}
	if r.Calls == nil {
		fmt.Fprintln(w, "\nsystem calls are not counted: this machine has neither perf nor strace")
		return
	}
	fmt.Fprintf(w, "\nsystem calls of node %d of %d per MiB, counted with %s in a run of its own\n", r.middle()+1, r.Nodes, r.Tracer)
	mib := float64(r.Size) / (1 << 20)
	most := map[string]float64{}
	var programs []string
	for _, name := range names() {
		if r.Calls[name] == nil {
			continue
		}
		programs = append(programs, name)
		for call, n := range r.Calls[name] {
			most[call] = max(most[call], float64(n)/mib)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s\t\n", strings.Join(programs, "\t"))
	row := func(head string, of func(calls) int64) {
		fmt.Fprintf(t, "%s\t", head)
		for _, name := range programs {
			fmt.Fprintf(t, "%.2f\t", float64(of(r.Calls[name]))/mib)
		}
		fmt.Fprintln(t)
	}
	row("all", calls.sum)
	if base := r.Calls[reference].sum(); base > 0 {
		fmt.Fprintf(t, "all, to %s\t", reference)
		for _, name := range programs {
			fmt.Fprintf(t, "%.2f\t", float64(r.Calls[name].sum())/float64(base))
		}
		fmt.Fprintln(t)
	}
	byMost := func(a, b string) int {
		if most[a] != most[b] {
			return int(1e3 * (most[b] - most[a]))
		}
		return strings.Compare(a, b)
	}
	for _, call := range slices.SortedFunc(maps.Keys(most), byMost) {
		if most[call] >= 0.01 {
			row(call, func(c calls) int64 { return c[call] })
		}
	}
	t.Flush()
}

// switches returns how often the threads of a process gave up a processor or lost it. If the process still runs, these
// are only the threads that it has now.
func switches(p *netns.Process) (int64, error) {
	select {
	case <-p.Done():
		used := p.State().SysUsage().(*syscall.Rusage)
		return used.Nvcsw + used.Nivcsw, nil
	default:
		return netns.Switches(p.Pid())
	}
}
