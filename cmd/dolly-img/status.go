package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// fleetFlags holds the flags of commands that ask nodes.
type fleetFlags struct {
	nodes, exclude []string
	port           int
	keys           string
}

func (f *fleetFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	// This is not a StringSlice, which would split at the commas inside brackets.
	fl.StringArrayVarP(&f.nodes, "nodes", "w", nil, "`LIST` of nodes: a,node[001-128],10.0.0.[1-9]:9998,@FILE,!node7 (repeatable; the lists are joined)")
	fl.StringArrayVarP(&f.exclude, "exclude", "x", nil, "`LIST` of nodes to leave out of --nodes (repeatable)")
	fl.IntVar(&f.port, "port", ring.DefaultPort, "`PORT` of nodes that are named without one")
	addKeysFlag(cmd, &f.keys)
}

// config checks the flags.
func (f *fleetFlags) config(cmd *cobra.Command) (fleet.Config, error) {
	if len(f.nodes) == 0 {
		return fleet.Config{}, &usageError{fmt.Errorf("no nodes"), "name them with --nodes node[01-16] or --nodes @FILE"}
	}
	c, err := f.base()
	if err == nil {
		c.Nodes, err = f.parse(cmd, f.nodes)
	}
	return c, err
}

// base checks the flags but for the nodes.
func (f *fleetFlags) base() (fleet.Config, error) {
	if f.port < 1 || f.port > 65535 {
		return fleet.Config{}, usagef("--port %d: want a number from 1 to 65535", f.port)
	}
	return fleet.Config{Port: f.port, Keys: f.keys, Software: software()}, nil
}

// parse reads a list of nodes, without those to leave out.
func (f *fleetFlags) parse(cmd *cobra.Command, exprs []string) ([]string, error) {
	nodes, err := hostlist.Parse(exprs, hostlist.Options{
		Port: f.port, Exclude: f.exclude,
		Open: func(name string) (io.ReadCloser, error) {
			if name == "-" {
				return io.NopCloser(cmd.InOrStdin()), nil
			}
			return os.Open(name)
		},
		Note: func(text string) {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: node list: %s\n", printable.Line(text))
		},
	})
	if err != nil {
		return nil, &usageError{err: err}
	}
	return nodes, nil
}

// statusFlags holds the flags of status.
type statusFlags struct {
	fleet   fleetFlags
	socket  string
	node    string
	json    bool
	wait    bool
	timeout time.Duration
}

func newStatus() *cobra.Command {
	f := &statusFlags{}
	cmd := &cobra.Command{
		Use:   "status [IMAGE...]",
		Short: "Show which nodes have which images",
		Long: `Status asks the nodes of --nodes what their caches have. It disturbs no transfer, so it can be
run at any time, by everybody who has a key: sender.pem or, if there is none, viewer.pem. The
daemons of the nodes have to be of this version or a later one.

If a controller keeps caches warm on this machine (dolly-img warm), status asks it, too, at --socket.
Without --nodes the nodes and the images are those of the controller's list, and the digest that a
name should lead to is that of the list. If there is no key, or none that the user may read, the
nodes are not asked: then status, and its exit status, are the controller's word of what the nodes
told it last, and each line says so.

IMAGE is a name as it stands in a cache, a ref of the controller's list, or what push takes:
docker://nginx, a short name such as nginx or app:v2, or the name of an image file. Status shows the
name in the caches, and so do the metrics and the page of the controller, and warm --check. NAME@DIGEST says which digest the name shall lead to,
and a DIGEST alone means the image whatever its name is. Without a digest, and without a controller
that has the name in its list, it is the one to which the name leads on most nodes. Without IMAGE,
status shows all images that nodes have a name for, or that are listed.

Each image has a line: how many nodes are warm, and which are not. A node is

  warm     if it says that it has every blob of the digest, and that the name leads to it
  behind   if the name leads to another digest there
  conflict if it does so, and is the name of a warmer that does not want this digest, while another
           one does; that one must not move it
  partly   if the name leads to the digest, and blobs of it are missing
  unnamed  if it has every blob of the digest, but the name leads to nothing
  missing  if the name leads to nothing
  unsaid   if it has more images than it can list at once, and this is none of those that it lists
  away     if it does not answer
  refused  if it refuses to tell, and failed if it cannot
  unknown  if nobody knows yet what the name should lead to there

What a node has is always what it says itself. Why it lacks an image, the controller says:

  warming  it gets the image now
  full     its cache has no room
  failed   with the reason, and when it is tried again

and of an image that it is warming, degraded (nothing can be done for some nodes), blocked (nothing
can be done at all), or stale: the registry has not answered since.

--node NAME lists all images that have a name on one node. Its name in the controller's list counts,
also without port and domain. Of an image that is not in the list it says whether the node has every
blob (held), some (partly) or none (missing). Images without a name, as those that keep in the list
keeps, are not in it; their bytes are in what wanted images hold. dolly-img cache ls, on the node,
lists them.

The exit status is 0 if every node is warm for each IMAGE, or for each image of the list, 3 if some
node is warm for some of them, and 4 if none is. It is 5 if all refuse. A listed image without nodes,
and a list of nodes that was never read, are as a node that is not warm, as nobody knows which
nodes there should be. With --node or --nodes and
without IMAGE, an image that is not in the list counts on the nodes that have a name for it, as warm
if all of its blobs are there. --wait asks again until the exit status would be 0, or until
--timeout, and says what it waits for on standard error, once and whenever that changes.

The objects of --json, one a line. Numbers are bytes where nothing else is said, and -1 is not known.

  controller  its socket, and reason, why it says nothing. at is the time of what it knows, refused
              and trouble are why its list or its state does not count, groups are its lists of nodes
  node        state is answered, or as in a report of push, or unasked; fault and reason say why.
              free is the room for more, max and reserve are the cache's limits (how much it may have,
              and what has to stay free), wanted is what pinned and wanted images hold, and more is
              how many images it has that are not told
  image       digest is the one that nodes should have, and warm the number of nodes that say that
              they are. nodes has the state on each; named, the digest to which the name leads there,
              and name_owner, the warmer whose name it is; bytes, the size; lacks, what is missing;
              owners, who wants it
  listed      inside of these, what the controller says: of an image, with rate in bytes a second
              and left in seconds, and of a node. warm is its number of nodes
  exit        the exit status`,
		Example: `  dolly-img status --nodes 'gpu[001-128]' torch:25.10
  dolly-img status --nodes 'gpu[001-128]' --wait --timeout 30m torch:25.10 && sbatch job.sh
  dolly-img status --node gpu017
  dolly-img status`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.fleet.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.node, "node", "", "list all images of the node `NAME`")
	fl.StringVar(&f.socket, "socket", warmer.DefaultSocket, "`PATH` of the controller's socket")
	fl.BoolVar(&f.json, "json", false, "print one JSON object a line: the controller's, one for each node, then one for each image")
	fl.BoolVar(&f.wait, "wait", false, "ask again until all are warm")
	timeVar(fl, &f.timeout, "timeout", 0, "wait for `TIME` at most (default 0, which is no limit)")
	return cmd
}

func (f *statusFlags) run(cmd *cobra.Command, args []string) error {
	switch {
	case f.node != "" && len(args)+len(f.fleet.nodes) > 0:
		return usagef("--node shows all images of one node: without IMAGE and --nodes")
	case f.timeout != 0 && !f.wait:
		return usagef("--timeout: only with --wait")
	case f.timeout < 0:
		return usagef("--timeout %v: negative", f.timeout)
	}
	asks, err := f.asks(cmd, args)
	if err != nil {
		return err
	}
	s, err := f.await(cmd.Context(), asks, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	show := s.print
	switch {
	case f.json:
		show = s.printJSON
	case f.node != "":
		show = s.printNode
	}
	if err := show(cmd.OutOrStdout()); err != nil {
		return err
	}
	if s.exit == ring.ExitAll {
		return nil
	}
	return &statusError{code: s.exit}
}

// The time between two rounds of --wait is restsFor times as long as the round took, within these bounds.
const (
	restsFor  = 9
	restLeast = time.Second
	restMost  = 10 * time.Second
)

// errInterrupted says that somebody ended the command before it knew anything.
var errInterrupted = &statusError{ring.ExitInterrupted, errors.New("interrupted")}

// await asks once or, with --wait, until everything is as it should be. It says on w what it waits for, whenever that changes.
func (f *statusFlags) await(ctx context.Context, asks *statusAsks, w io.Writer) (*status, error) {
	begun, said := time.Now(), ""
	for first := true; ; first = false {
		asked := time.Now()
		s, err := asks.once(ctx)
		if ctx.Err() != nil { // the replies say only that nobody waited for them
			return nil, errInterrupted
		}
		if silent := new(controllerError); err != nil && (first || !errors.As(err, &silent)) {
			return nil, err
		}
		pause := min(max(restLeast, restsFor*time.Since(asked)), restMost)
		if left := f.timeout - time.Since(begun); f.timeout > 0 {
			pause = min(pause, left)
		}
		if !f.wait || err == nil && s.exit == ring.ExitAll || pause <= 0 {
			return s, err
		}
		if what, text := asks.pending(s, err); what != said {
			said = what
			fmt.Fprintln(w, printable.Line("waiting for "+text))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errInterrupted
		}
	}
}
