package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// nodeFlags are those of daemon and receive.
type nodeFlags struct {
	listen  string
	cache   string
	keys    string
	verbose bool
	more    string // that the log has with it
}

// add defines them; verbose is what the log has more of with -v.
func (f *nodeFlags) add(cmd *cobra.Command, verbose string) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", ":"+strconv.Itoa(ring.DefaultPort), "`ADDRESS` to listen on; port 0 takes a free one, the log says which")
	addCacheFlag(cmd, &f.cache)
	fl.StringVar(&f.keys, "keys", "", "`DIR` of the keys and of policy.toml (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
	f.more = verbose
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log also "+verbose)
}

func addCacheFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "cache", "", "`DIR` of the cache (default /var/lib/dolly-img/cache for root, else the user's cache directory)")
}

// nodeLog is key=value lines. The journal has its own clock.
func nodeLog(w io.Writer, verbose bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// limitMemory keeps a node small: it lives beside the jobs it serves. Half of the limit
// is the ring's window, which by default the collector would let grow to twice its
// size before it looks. Whoever sets GOMEMLIMIT knows better.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(56 << 20)
	}
}

// config is what the flags say of a node; stdout is where a transfer may write, or nil.
func (f *nodeFlags) config(stderr, stdout io.Writer) node.Config {
	return node.Config{Keys: f.keys, Cache: f.cache, Listen: f.listen, Software: software(), Stdout: stdout, Log: nodeLog(stderr, f.verbose), Hint: hintOf}
}

// setup is a node that listens.
func (f *nodeFlags) setup(stderr, stdout io.Writer) (*node.Node, error) {
	limitMemory()
	outliveReaders()
	c := f.config(stderr, stdout)
	n, err := node.New(c)
	if err != nil {
		return nil, err
	}
	b := thisBuild()
	c.Log.Info("starting", "version", b.version, "commit", orDash(b.commit), "modified", b.modified, "go", b.goLang, "protocol", protocols())
	c.Log.Debug("-v: the log has also " + f.more)
	return n, nil
}

// check prints what a daemon with these flags, and the mirror at an address, would have in
// force, or everything that would keep it from its start.
func (f *nodeFlags) check(cmd *cobra.Command, mirrorAt string) error {
	facts, warnings := node.Check(f.config(cmd.ErrOrStderr(), nil), mirrorAt)
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	var wrong []error
	for _, fact := range facts {
		if fact.Err != nil {
			wrong = append(wrong, fact.Err)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\n", fact.What, printable.Line(fact.Text))
	}
	w.Flush()
	for _, warning := range warnings {
		fmt.Fprintf(cmd.OutOrStdout(), "warning  %s\n", printable.Line(warning))
	}
	if len(wrong) == 0 {
		return nil
	}
	for _, err := range wrong[:len(wrong)-1] {
		printError(cmd.ErrOrStderr(), err)
	}
	return wrong[len(wrong)-1]
}
