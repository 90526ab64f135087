package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
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
	c := fleet.Config{Port: f.port, Keys: f.keys, Software: software()}
	if len(f.nodes) == 0 {
		return c, &usageError{fmt.Errorf("no nodes"), "name them with --nodes node[01-16] or --nodes @FILE"}
	}
	if f.port < 1 || f.port > 65535 {
		return c, usagef("--port %d: want a number from 1 to 65535", f.port)
	}
	var err error
	c.Nodes, err = hostlist.Parse(f.nodes, hostlist.Options{
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
		return c, &usageError{err: err}
	}
	return c, nil
}

// statusFlags holds the flags of status.
type statusFlags struct {
	fleet   fleetFlags
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

IMAGE is a name as it stands in a cache, or what push takes: docker://nginx, a short name such as
nginx or app:v2, or the name of an image file. NAME@DIGEST says which digest the name shall lead to,
and a DIGEST alone means the image whatever its name is. Without a digest, it is the one to which
the name leads on most nodes. Without IMAGE, status shows all images that nodes have a name for.

Each image has a line: how many nodes are warm, and which are not. A node is

  warm     if it says that it has every blob of the digest, and that the name leads to it
  behind   if the name leads to another digest there
  partly   if the name leads to the digest, and blobs of it are missing
  unnamed  if it has every blob of the digest, but the name leads to nothing
  missing  if the name leads to nothing
  away     if it does not answer
  refused  if it refuses to tell, and failed if it cannot

--node NAME lists all images of one node. The exit status is 0 if every node is warm for each
IMAGE, 3 if some nodes are, and 4 if none is. It is 5 if all refuse. Without IMAGE, a node counts
if it answers and has all blobs of each image that it has a name for. --wait asks again until
the exit status would be 0, or until --timeout.`,
		Example: `  dolly-img status --nodes 'gpu[001-128]' torch:25.10
  dolly-img status --nodes 'gpu[001-128]' --wait --timeout 30m torch:25.10 && sbatch job.sh
  dolly-img status --node gpu017`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.fleet.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.node, "node", "", "list all images of the node `NAME`")
	fl.BoolVar(&f.json, "json", false, "print one JSON object a line: one for each node, then one for each image")
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
	flags := f.fleet
	if f.node != "" {
		flags.nodes = []string{f.node}
	}
	c, err := flags.config(cmd)
	if err != nil {
		return err
	}
	if f.node != "" && len(c.Nodes) != 1 {
		return usagef("--node %s: want one node", f.node)
	}
	w, err := wants(args)
	if err != nil {
		return err
	}
	s, err := f.await(cmd.Context(), c, w)
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

// await asks once or, with --wait, until everything is as it should be.
func (f *statusFlags) await(ctx context.Context, c fleet.Config, w []wanted) (*status, error) {
	begun := time.Now()
	for {
		asked := time.Now()
		replies, err := fleet.Ask(ctx, c, question(w))
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil { // the replies say only that nobody waited for them
			return nil, errInterrupted
		}
		s := sum(replies, w)
		pause := min(max(restLeast, restsFor*time.Since(asked)), restMost)
		if left := f.timeout - time.Since(begun); f.timeout > 0 {
			pause = min(pause, left)
		}
		if !f.wait || s.exit == ring.ExitAll || pause <= 0 {
			return s, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errInterrupted
		}
	}
}

// wanted is an IMAGE of the command line.
type wanted struct {
	arg string
	// ref is arg without the digest, which is "" if it has none.
	ref    string
	digest digest.Digest
	// names are the full names that arg may have in a cache. It is empty for a short name, which only the nodes can complete.
	names []string
}

func wants(args []string) ([]wanted, error) {
	var list []wanted
	for _, arg := range args {
		if err := image.CheckName(arg); err != nil {
			return nil, &usageError{err: err}
		}
		w := wanted{arg: arg, ref: arg}
		if d := digest.Digest(arg); d.Validate() == nil {
			w.ref, w.digest = "", d
			list = append(list, w)
			continue
		}
		if ref, d, ok := strings.Cut(arg, "@"); ok {
			if w.ref, w.digest = ref, digest.Digest(d); w.digest.Validate() != nil {
				return nil, usagef("%s: %q is no digest", arg, d)
			}
		}
		// An image that was pushed by its digest alone has that in its name.
		for _, ref := range []string{w.ref, arg} {
			if full, ok := image.Full(ref); ok && (len(w.names) == 0 || w.names[0] != full) {
				w.names = append(w.names, full)
			}
		}
		for _, name := range w.names {
			if len(name) > ring.MaxImageName {
				return nil, usagef("%.40s…: the name has more than %d bytes", arg, ring.MaxImageName)
			}
		}
		list = append(list, w)
	}
	if len(list) > ring.MaxImages/2 {
		return nil, usagef("%d images: at most %d can be asked about at once", len(list), ring.MaxImages/2)
	}
	return list, nil
}

// question returns what nodes have to be asked to know about all of these.
func question(list []wanted) ring.Question {
	q := ring.Question{All: len(list) == 0}
	for _, w := range list {
		switch {
		case w.ref == "":
			q.Images = append(q.Images, ring.Image{Digest: w.digest})
		case len(w.names) == 0:
			q.All = true
		}
		for _, name := range w.names {
			q.Images = append(q.Images, ring.Image{Name: name, Digest: w.digest})
		}
	}
	return q
}

// find returns the images that w means, by the names that nodes have. It returns one at least.
func (w wanted) find(replies []ring.Reply, names []string) []fleet.Image {
	if w.ref == "" {
		return []fleet.Image{fleet.Of(replies, "", w.digest)}
	}
	found := image.Meant(names, w.ref)
	if w.digest != "" {
		if by := image.Meant(names, w.arg); len(by) > 0 {
			found = by
		}
	}
	if len(found) == 0 {
		found = append(slices.Clone(w.names), w.ref)[:1]
	}
	var images []fleet.Image
	for _, name := range found {
		images = append(images, fleet.Of(replies, name, w.digest))
	}
	return images
}
