// Bench measures dolly-img beside programs that do the same, on hosts that are network
// namespaces of this machine, and a chain of this program's own that does the least. It needs root, and
// mbuffer and udpcast (--only leaves them out).
//
//	go run ./test/bench                         # 4 nodes, as fast as it goes
//	go run ./test/bench --preset shaped         # 1 to 32 nodes on slow links
//	go run ./test/bench --preset cost           # beside the bare chain, quiet, beside busy loops and on one core; start-up; without SHA instructions
//	go run ./test/bench --preset images         # from a registry beside skopeo, the mirror beside nginx
//	go run ./test/bench --preset device         # the sink of a block device beside dd, devices through the ring, leaves hashed by all cores beside one
//	go run ./test/bench --preset update         # updates: nothing changed, beside dd and hashing; a hundredth changed
//	go run ./test/bench --preset layers         # docker save archives with and without checking their layers
//	go run ./test/bench --preset sparse         # an image of which a tenth is data, beside one without zeros
//	go run ./test/bench --preset tree           # a directory of 20,000 files beside tar behind a chain of mbuffer
//	go run ./test/bench --preset startup --before OLD   # this tree's dolly-img and another one in turn
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
	"maps"
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
	Nodes   int    `json:"nodes"`
	Size    int64  `json:"size"` // bytes
	Rate    int64  `json:"rate"` // bits per second of every link; 0: as fast as it goes
	Sink    string `json:"sink"` // null or tmpfs
	OneCore bool   `json:"one_core,omitempty"`
	Load    int    `json:"load,omitempty"` // busy loops beside it
}

// preset is what one word on the command line measures: scenarios with all programs in a table each, or
// parts, with lines of their own.
type preset struct {
	rounds    int
	scenarios []scenario
	only      []string // programs; nil: all
	parts     []string
}

var presets = map[string]preset{
	"unshaped": {rounds: 7, scenarios: []scenario{{Nodes: 4, Size: 256 << 20, Sink: "null"}, {Nodes: 4, Size: 256 << 20, Sink: "tmpfs"}}},
	"shaped": {rounds: 3, scenarios: []scenario{
		{Nodes: 1, Size: 256 << 20, Rate: 100e6, Sink: "null"}, {Nodes: 4, Size: 256 << 20, Rate: 100e6, Sink: "null"},
		{Nodes: 16, Size: 256 << 20, Rate: 100e6, Sink: "null"},
		{Nodes: 1, Size: 128 << 20, Rate: 50e6, Sink: "null"}, {Nodes: 32, Size: 128 << 20, Rate: 50e6, Sink: "null"},
	}},
	// To wake a process costs more where another one has its processor.
	"cost": {rounds: 3, scenarios: []scenario{
		{Nodes: 4, Size: 256 << 20, Sink: "null"}, {Nodes: 4, Size: 1 << 30, Sink: "null"},
		{Nodes: 4, Size: 256 << 20, Sink: "null", Load: 2}, {Nodes: 4, Size: 1 << 30, Sink: "null", Load: 2},
		{Nodes: 4, Size: 256 << 20, Sink: "null", OneCore: true}, {Nodes: 4, Size: 1 << 30, Sink: "null", OneCore: true},
	}, only: []string{"plain", "tls", "bare", "bare-tls", "mbuffer"}, parts: []string{"startup", "nosha", "slowdisk", "leaves"}},
	"startup":  {rounds: 3, parts: []string{"startup"}},
	"device":   {rounds: 3, parts: []string{"leaves", "device"}},
	"update":   {rounds: 3, parts: []string{"update"}},
	"nosha":    {rounds: 3, parts: []string{"nosha"}},
	"slowdisk": {rounds: 3, parts: []string{"slowdisk"}},
	"images":   {rounds: 1, parts: []string{"pull", "serve"}},
	"sparse":   {rounds: 3, parts: []string{"sparse"}},
	"layers":   {rounds: 1, parts: []string{"layers"}},
	"tree":     {rounds: 3, parts: []string{"tree"}},
}

type options struct {
	scenarios []scenario
	rounds    int
	only      []string
	json      bool
	parts     []string
	binary    string
	before    string // another dolly-img, for the parts about cost; "": none
}

// workers are what this program is when another one of it starts it with such a word.
var workers = map[string]func(args []string) error{bareWord: runBare, loopWord: runLoop, hashWord: runHash}

func main() {
	if len(os.Args) > 1 && workers[os.Args[1]] != nil {
		if err := workers[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
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
	name := fl.String("preset", "", strings.Join(slices.Sorted(maps.Keys(presets)), ", ")+"; design is unshaped and shaped")
	nodes := fl.String("nodes", "4", "numbers of nodes, separated by commas")
	size := fl.String("size", "256M", "bytes to send, several separated by commas; K, M, G are powers of 1024")
	rate := fl.String("rate", "0", "bits per second of each link, both ways; K, M, G are powers of 1000; 0 is unlimited")
	sinks := fl.String("sinks", "null,tmpfs", "where nodes put it: null, tmpfs")
	only := fl.String("only", "", "of "+strings.Join(names(), ", ")+" only these")
	var like scenario
	fl.BoolVar(&like.OneCore, "one-core", false, "all processes on one core")
	fl.IntVar(&like.Load, "load", 0, "busy loops beside each run, at most 64")
	fl.IntVar(&o.rounds, "rounds", 0, "rounds (default 5, or the preset's)")
	fl.BoolVar(&o.json, "json", false, "all samples as JSON on standard output, the table on standard error")
	fl.StringVar(&o.binary, "binary", "", "the dolly-img to measure (default: build it)")
	fl.StringVar(&o.before, "before", "", "another dolly-img, with which the presets startup, nosha and slowdisk compare it in each round")
	fl.Parse(args)
	if fl.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fl.Arg(0))
	}
	if like.Load < 0 || like.Load > 64 {
		return nil, fmt.Errorf("--load %d: want 0 to 64", like.Load)
	}
	err := o.usePreset(*name)
	if err == nil && *name == "" {
		err = o.cross(like, *nodes, *size, *rate, *sinks)
	}
	if err == nil && *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if !slices.Contains(names(), name) {
				return nil, fmt.Errorf("--only %s: not one of %s", name, strings.Join(names(), ", "))
			}
		}
	}
	return &o, err
}

// usePreset sets what --preset says, and the default number of rounds.
func (o *options) usePreset(name string) error {
	rounds := 5
	switch p, ok := presets[name]; {
	case name == "design":
		rounds = presets["unshaped"].rounds
		o.scenarios = slices.Concat(presets["unshaped"].scenarios, presets["shaped"].scenarios)
	case ok:
		rounds, o.scenarios, o.parts, o.only = p.rounds, p.scenarios, p.parts, p.only
	case name != "":
		return fmt.Errorf("--preset %s: want design, %s", name, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	return nil
}

// cross makes a scenario of each number of nodes with each size and sink.
func (o *options) cross(like scenario, nodes, sizes, rate, sinks string) (err error) {
	if like.Rate, err = number(rate, 1000); err != nil {
		return fmt.Errorf("--rate %s: want bits per second", rate)
	}
	for _, size := range strings.Split(sizes, ",") {
		if like.Size, err = number(size, 1024); err != nil || like.Size == 0 {
			return fmt.Errorf("--size %s: want numbers of bytes", sizes)
		}
		for _, like.Sink = range strings.Split(sinks, ",") {
			if like.Sink != "null" && like.Sink != "tmpfs" {
				return fmt.Errorf("--sinks %s: want null or tmpfs", sinks)
			}
			for _, n := range strings.Split(nodes, ",") {
				if like.Nodes, err = strconv.Atoi(n); err != nil || like.Nodes < 1 || like.Nodes > 1000 {
					return fmt.Errorf("--nodes %s: want numbers from 1 to 1000", nodes)
				}
				o.scenarios = append(o.scenarios, like)
			}
		}
	}
	return nil
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
	if o.parts != nil {
		if err := b.runParts(ctx, table); err != nil {
			return err
		}
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	return nil
}
