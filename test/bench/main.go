// Bench measures dolly-img beside programs that do the same, on hosts that are network
// namespaces of this machine, and a chain of this program's own that does the least. It needs root, and
// mbuffer and udpcast (--only leaves them out).
//
//	go run ./test/bench                         # 4 nodes, as fast as it goes
//	go run ./test/bench --preset shaped         # 1 to 32 nodes on slow links
//	go run ./test/bench --preset images         # from a registry beside skopeo, the mirror beside nginx
//	go run ./test/bench --preset layers         # docker save archives with and without checking their layers
//	go run ./test/bench --nodes 4,16 --rate 100M --size 256M --only plain,mbuffer
//
// All run in turn within each round, so that what else the machine does meets each of
// them; figures are the median over the rounds, with the extremes. The time is that of
// the sending process, from its start until it and all receivers have everything.
// Ratios are those to the bare chain in the same round. Where links are not slow, each program runs once
// more after the rounds while perf, or else strace, counts the system calls of a node in the middle.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/dolly-img/dolly-img/test/netns"
)

// scenario is one set of hosts and all that is measured on it.
type scenario struct {
	Nodes int    `json:"nodes"`
	Size  int64  `json:"size"` // bytes
	Rate  int64  `json:"rate"` // bits per second of every link; 0: as fast as it goes
	Sink  string `json:"sink"` // null or tmpfs
}

var presets = map[string]struct {
	rounds    int
	scenarios []scenario
}{
	"unshaped": {7, []scenario{{4, 256 << 20, 0, "null"}, {4, 256 << 20, 0, "tmpfs"}}},
	"shaped": {3, []scenario{
		{1, 256 << 20, 100e6, "null"}, {4, 256 << 20, 100e6, "null"}, {16, 256 << 20, 100e6, "null"},
		{1, 128 << 20, 50e6, "null"}, {32, 128 << 20, 50e6, "null"},
	}},
}

type options struct {
	scenarios []scenario
	rounds    int
	only      []string
	json      bool
	images    string // the preset, of those about images
	binary    string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareWord {
		if err := runBare(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, bareWord+":", err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	var o options
	fl := flag.NewFlagSet("bench", flag.ExitOnError)
	preset := fl.String("preset", "", "unshaped, shaped, or design for both: the figures of the design; images: pushes from a registry, and the mirror; layers: what checking those of docker save costs")
	nodes := fl.String("nodes", "4", "numbers of nodes, separated by commas")
	size := fl.String("size", "256M", "bytes to send; K, M, G are powers of 1024")
	rate := fl.String("rate", "0", "bits per second of each link, both ways; K, M, G are powers of 1000; 0 is unlimited")
	sinks := fl.String("sinks", "null,tmpfs", "where nodes put it: null, tmpfs")
	only := fl.String("only", "", "of "+strings.Join(names(), ", ")+" only these")
	fl.IntVar(&o.rounds, "rounds", 0, "rounds (default 5, or the preset's)")
	fl.BoolVar(&o.json, "json", false, "all samples as JSON on standard output, the table on standard error")
	fl.StringVar(&o.binary, "binary", "", "the dolly-img to measure (default: build it)")
	fl.Parse(args)
	if fl.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fl.Arg(0))
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if !slices.Contains(names(), name) {
				return nil, fmt.Errorf("--only %s: not one of %s", name, strings.Join(names(), ", "))
			}
		}
	}
	if *preset == "images" || *preset == "layers" {
		o.images, o.rounds = *preset, max(o.rounds, 1)
		return &o, nil
	}
	if *preset != "" {
		rounds := 0
		for _, name := range []string{"unshaped", "shaped"} {
			if *preset == name || *preset == "design" {
				o.scenarios = append(o.scenarios, presets[name].scenarios...)
				rounds = max(rounds, presets[name].rounds)
			}
		}
		if o.scenarios == nil {
			return nil, fmt.Errorf("--preset %s: want unshaped, shaped, design, images or layers", *preset)
		}
		if o.rounds == 0 {
			o.rounds = rounds
		}
		return &o, nil
	}
	if o.rounds == 0 {
		o.rounds = 5
	}
	bytes, err := number(*size, 1024)
	if err != nil || bytes == 0 {
		return nil, fmt.Errorf("--size %s: want a number of bytes", *size)
	}
	bits, err := number(*rate, 1000)
	if err != nil {
		return nil, fmt.Errorf("--rate %s: want bits per second", *rate)
	}
	for _, sink := range strings.Split(*sinks, ",") {
		if sink != "null" && sink != "tmpfs" {
			return nil, fmt.Errorf("--sinks %s: want null or tmpfs", sink)
		}
		for _, n := range strings.Split(*nodes, ",") {
			count, err := strconv.Atoi(n)
			if err != nil || count < 1 || count > 1000 {
				return nil, fmt.Errorf("--nodes %s: want numbers from 1 to 1000", *nodes)
			}
			o.scenarios = append(o.scenarios, scenario{count, bytes, bits, sink})
		}
	}
	return &o, nil
}

// number reads 256M and the like.
func number(s string, base int64) (int64, error) {
	factor := int64(1)
	if i := strings.IndexByte("KMG", s[max(0, len(s)-1)]); len(s) > 1 && i >= 0 {
		s = s[:len(s)-1]
		for range i + 1 {
			factor *= base
		}
	}
	n, err := strconv.ParseInt(s, 10, 40)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return n * factor, err
}

func run(ctx context.Context, o *options) error {
	if err := netns.Available(); err != nil {
		return err
	}
	if o.images != "" {
		return runImages(ctx, o, os.Stdout)
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	table := os.Stdout
	if o.json {
		table = os.Stderr
	}
	model, cores, err := netns.Processor()
	if err != nil {
		return err
	}
	fmt.Fprintf(table, "%d cores, %s\n", cores, model)
	var all []*result
	for _, s := range o.scenarios {
		r, err := b.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", s.Nodes, err)
		}
		all = append(all, r)
		r.print(table, all)
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	return nil
}
