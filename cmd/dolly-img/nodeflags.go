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

// nodeFlags holds the flags that daemon and receive share.
type nodeFlags struct {
	listen  string
	cache   string
	keys    string
	verbose bool
	// more is what -v adds to the log, in words.
	more string
}

// add defines the flags. Verbose is what -v adds to the log, in words.
func (f *nodeFlags) add(cmd *cobra.Command, verbose string) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", ":"+strconv.Itoa(ring.DefaultPort), "`ADDRESS` to listen on; port 0 takes a free one, and the log says which")
	addCacheFlag(cmd, &f.cache)
	fl.StringVar(&f.keys, "keys", "", "`DIR` of the keys and of policy.toml (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
	f.more = verbose
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log also "+verbose)
}

func addCacheFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "cache", "", "`DIR` of the cache (default /var/lib/dolly-img/cache for root, else the user's cache directory)")
}

// nodeLog logs lines of key=value to w. They have no time if they go to the journal, which has a clock of its own.
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

// limitMemory keeps a node small, because it runs beside the jobs of its machine. Half of the limit is the ring's
// window; without a limit the garbage collector would wait until the heap is twice as large. It does nothing
// if GOMEMLIMIT is set.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(56 << 20)
	}
}

// config returns what the flags say about a node. Stdout is where a transfer may write, or nil.
func (f *nodeFlags) config(stderr, stdout io.Writer) node.Config {
	return node.Config{Keys: f.keys, Cache: f.cache, Listen: f.listen, Software: software(), Stdout: stdout, Log: nodeLog(stderr, f.verbose), Hint: hintOf}
}

// setup returns a node that listens already.
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

// check prints the configuration that a daemon with these flags would have, with its mirror at mirrorAt and its metrics at metricsAt. If anything
// keeps that daemon from its start, check prints all of it and returns the last error.
func (f *nodeFlags) check(cmd *cobra.Command, mirrorAt, metricsAt string) error {
	facts, warnings := node.Check(f.config(cmd.ErrOrStderr(), nil), mirrorAt, metricsAt)
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
