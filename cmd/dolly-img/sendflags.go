package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// sendFlags holds the flags that push and raw share: whom to serve, how, and what to print about it.
type sendFlags struct {
	nodes      []string
	exclude    []string
	port       int
	data       string
	keys       string
	rate       string
	wait       time.Duration
	minSuccess string
	straggler  string
	retries    int
	maxDirect  int
	check      bool
	report     string
	json       bool
	quiet      bool
	verbose    bool
	web        webFlags

	// stdin says that the list of nodes was read from standard input.
	stdin bool
}

func (f *sendFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	// This is not a StringSlice, which would split at the commas inside brackets.
	fl.StringArrayVarP(&f.nodes, "nodes", "w", nil, "`LIST` of nodes in chain order: a,node[001-128],10.0.0.[1-9]:9998,@FILE,!node7 (repeatable; the lists are joined)")
	fl.StringArrayVarP(&f.exclude, "exclude", "x", nil, "`LIST` of nodes to leave out of --nodes (repeatable)")
	fl.IntVar(&f.port, "port", ring.DefaultPort, "`PORT` of nodes that are named without one")
	fl.StringVar(&f.data, "data", "tls", "encrypt the data links or not, `tls|plain`; plain needs the permission of the nodes' policy")
	fl.StringVar(&f.keys, "keys", "", "`DIR` of the keys (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
	fl.StringVar(&f.rate, "rate", "", "send at most `BYTES` per second, such as 200M")
	timeVar(fl, &f.wait, "wait", 0, "keep dialling nodes that do not answer yet for `TIME` (default 0, which dials each once)")
	fl.StringVar(&f.minSuccess, "min-success", "", "exit 0 when `N` nodes confirm, or a share of them such as 95% (default all)")
	fl.StringVar(&f.straggler, "straggler", "demote", "what to do with a node that is slower than the others, `demote|wait|drop`: serve it behind them, let it slow them down, or fail it")
	fl.IntVar(&f.retries, "retries", 3, "take back a node that was lost, up to `N` times")
	fl.IntVar(&f.maxDirect, "max-direct", 4, "feed up to `N` nodes from the server if no other node can reach them; further ones fail")
	fl.BoolVar(&f.check, "check", false, "only ask every node, and print who would be served, bytes to move, free space, expected time, and nodes that cannot reach each other")
	fl.StringVar(&f.report, "report", "", "write what became of every node to `FILE`, as JSON")
	fl.BoolVar(&f.json, "json", false, "print events on standard output, one JSON object a line; the last one is the report")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print only what went wrong")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "print what the ring does")
	f.web.add(cmd)
}

// slowRate is a rate, in bytes per second, below which a unit was probably forgotten.
const slowRate = 100_000

// job checks the flags, and returns the transfer that users call name.
func (f *sendFlags) job(cmd *cobra.Command, name string, m *meta.Transfer) (*job, error) {
	j := &job{cmd: cmd, screen: newScreen(cmd.ErrOrStderr()), flags: f, Push: &push.Push{
		Name: name, Meta: *m, Keys: f.keys, Port: f.port, Wait: f.wait, Straggler: ring.Straggler(f.straggler),
		Retries: f.retries, MaxDirect: f.maxDirect, Check: f.check, Software: software(),
	}}
	if f.maxDirect == 0 {
		j.MaxDirect = -1 // which is no limit for the ring
	}
	j.Log = f.log(j.screen)
	if len(f.nodes) == 0 {
		return nil, &usageError{fmt.Errorf("no nodes"), "name them with --nodes node[01-16] or --nodes @FILE"}
	}
	var err error
	if f.port < 1 || f.port > 65535 {
		return nil, usagef("--port %d: want a number from 1 to 65535", f.port)
	}
	if j.Nodes, err = f.list(cmd); err != nil {
		return nil, &usageError{err: err}
	}
	switch f.data {
	case "tls":
	case "plain":
		j.Plain = true
	default:
		return nil, usagef("--data %q: want tls or plain", f.data)
	}
	if f.rate != "" {
		if j.Rate, err = bytesize.Parse(f.rate); err != nil {
			return nil, usagef("--rate: %w", err)
		}
		if j.Rate == 0 {
			return nil, usagef("--rate 0: nothing could be sent")
		}
		if j.Rate < slowRate {
			j.warn(fmt.Errorf("--rate %s is %s a second; with M behind the number it is so many MB a second", f.rate, bytesize.Text(j.Rate)))
		}
	}
	if err := f.web.check(); err != nil {
		return nil, err
	}
	if f.wait < 0 {
		return nil, usagef("--wait %v: negative", f.wait)
	}
	switch s := ring.Straggler(f.straggler); s {
	case ring.Demote, ring.Drop, ring.Wait:
	default:
		return nil, usagef("--straggler %q: want demote, wait or drop", f.straggler)
	}
	if f.maxDirect < 0 {
		return nil, usagef("--max-direct %d: negative", f.maxDirect)
	}
	if f.retries < 0 {
		return nil, usagef("--retries %d: negative", f.retries)
	}
	if j.Enough, err = enough(f.minSuccess, len(j.Nodes)); err != nil {
		return nil, err
	}
	j.again = func(nodes []string) string { return again(cmd, nodes) }
	return j, nil
}

// list returns the nodes of --nodes without those of --exclude.
func (f *sendFlags) list(cmd *cobra.Command) ([]string, error) {
	return hostlist.Parse(f.nodes, hostlist.Options{
		Port: f.port, Exclude: f.exclude,
		Open: func(name string) (io.ReadCloser, error) {
			if name == "-" {
				f.stdin = true
				return io.NopCloser(cmd.InOrStdin()), nil
			}
			return os.Open(name)
		},
		Note: func(text string) {
			if !f.quiet {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: node list: %s\n", printable.Line(text))
			}
		},
	})
}

// enough reads --min-success. It returns how many of n nodes are success, and 0 for all of them.
func enough(s string, n int) (int, error) {
	if s == "" {
		return 0, nil
	}
	share, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(share, 64)
	switch {
	case err == nil && percent && f > 0 && f <= 100:
		// In floating point 0.55*100 is a little more than 55, and that must not demand a 56th node.
		return int(math.Ceil(f*float64(n)/100 - 1e-9)), nil
	case err == nil && !percent && f == math.Trunc(f) && f >= 1 && f <= float64(n):
		return int(f), nil
	}
	return 0, usagef("--min-success %q: want a number from 1 to %d, or a share such as 95%%", s, n)
}

// outputFlags holds the flags that say which file a transfer makes on the nodes.
type outputFlags struct {
	output  string
	mode    string
	owner   string
	mkdir   bool
	shared  bool
	discard bool
}

// device makes of the output a device that the nodes know.
func (f *outputFlags) device(kind string, m *meta.Transfer) (*meta.Transfer, error) {
	switch {
	case kind != meta.KindRaw:
		return nil, toDevice(f.output)
	case f.mode != "" || f.owner != "" || f.mkdir || f.shared:
		return nil, usagef("--mode, --owner, --mkdir and --shared-output: a device has none of these")
	}
	if name, ok := strings.CutPrefix(f.output, "device:"); ok && !identity.IsDeviceName(name) {
		return nil, noDevice(f.output, "not the name of a device")
	}
	m.Output, m.Device = f.output, &meta.Device{}
	return m, nil
}

// toDevice returns the error of an image that shall go to a device.
func toDevice(output string) error {
	return &usageError{fmt.Errorf("--output %s: an image goes to files only", output), "dolly-img raw FILE --output device:NAME writes the image of a disk to a device"}
}

// noDevice returns the error of an output that is none for a reason, and means a device.
func noDevice(output, why string) error {
	return &usageError{fmt.Errorf("--output %q: %s", output, why), "a device is device:NAME, with the name that it has in the node's policy.toml, or the path that is listed there"}
}

// likeDevice matches what looks like device:NAME.
var likeDevice = regexp.MustCompile(`(?i)^\s*devices?\s*:`)

func (f *outputFlags) add(cmd *cobra.Command, usage string) {
	fl := cmd.Flags()
	fl.StringVar(&f.output, "output", "", usage)
	fl.StringVar(&f.mode, "mode", "", "permission `BITS` of the output (default those of the file that is sent, else 0644)")
	fl.StringVar(&f.owner, "owner", "", "`USER[:GROUP]` that owns the output, as the nodes know them (default the daemon's)")
	fl.BoolVar(&f.mkdir, "mkdir", false, "make missing parent directories of the output")
	fl.BoolVar(&f.shared, "shared-output", false, "allow an output on a network file system; name one node for each directory that nodes share")
	fl.BoolVar(&f.discard, "verify-only", false, "have the nodes verify what they receive and throw it away")
	fl.BoolVar(&f.discard, "discard", false, "the name of --verify-only until 2026, which was taken for TRIM")
	fl.MarkHidden("discard")
}

// meta checks the flags, and returns them as the nodes are told. Name is the file name of the source, "" if it has none.
func (f *outputFlags) meta(kind, name string) (*meta.Transfer, error) {
	m := &meta.Transfer{Kind: kind, Owner: f.owner, Mkdir: f.mkdir, Shared: f.shared, Discard: f.discard}
	if f.mode != "" {
		bits, err := strconv.ParseUint(f.mode, 8, 32)
		if err != nil || bits == 0 || bits > 0o777 {
			return nil, usagef("--mode %q: want octal permission bits such as 0644", f.mode)
		}
		m.Mode = uint32(bits)
	}
	switch {
	case f.discard && f.output != "":
		return nil, usagef("--verify-only and --output: only one of them")
	case f.output == "" && (f.mode != "" || f.owner != "" || f.mkdir || f.shared):
		return nil, usagef("--mode, --owner, --mkdir and --shared-output need --output")
	case f.output == "" || f.output == "-":
		m.Output = f.output
		return m, nil
	case identity.IsDevice(f.output):
		return f.device(kind, m)
	case likeDevice.MatchString(f.output):
		return nil, noDevice(f.output, "want an absolute path, or a device")
	case !filepath.IsAbs(f.output):
		return nil, usagef("--output %q: want an absolute path, on the nodes", f.output)
	}
	m.Output = filepath.Clean(f.output)
	if strings.HasSuffix(f.output, "/") {
		if name == "" {
			return nil, usagef("--output %s: the input has no name to put below it", f.output)
		}
		m.Output = filepath.Join(m.Output, name)
	}
	if err := meta.CheckOutput(m.Output); err != nil {
		return nil, &usageError{err: err}
	}
	return m, nil
}
