package main

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// pinFlags holds the flags of pin and unpin.
type pinFlags struct {
	on          bool
	dir, warmer string
	fleet       fleetFlags
}

func newCachePin(on bool) *cobra.Command {
	f := &pinFlags{on: on}
	cmd := &cobra.Command{
		Use:   "pin REF...",
		Short: "Keep images from being evicted",
		Long: `Pin keeps the images that these references name in the cache, until unpin or rm. If a
reference moves to another image, that one is pinned.

With --nodes it does so in the caches of these nodes, with the key of a sender. A node that lacks
one of the images changes nothing. The exit status is that of push.`,
		Example: `  dolly-img cache pin torch:25.10 --nodes 'gpu[001-128]'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.warmer != "" {
				return exactly(0, "")(cmd, args)
			}
			return atLeast(1, "the reference of an image, see dolly-img cache ls")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(f.fleet.nodes) > 0 {
				return f.fleetPin(cmd, args)
			}
			return f.pin(cmd.Context(), args)
		},
	}
	if !on {
		cmd.Use, cmd.Short = "unpin REF... | --warmer NAME", "Let images be evicted again"
		cmd.Long = `Unpin undoes pin. With --warmer it lets go all that this warmer wants, as when the warmer is gone for
good; one that lives says again what it wants.`
		cmd.Example = `  dolly-img cache unpin torch:25.09 --nodes 'gpu[001-128]'`
		cmd.Flags().StringVar(&f.warmer, "warmer", "", "let go all that the warmer `NAME` wants")
	}
	addCacheFlag(cmd, &f.dir)
	f.fleet.add(cmd)
	return cmd
}

// pin pins or unpins images in the cache of this machine.
func (f *pinFlags) pin(ctx context.Context, args []string) error {
	c, err := cachedir.Open(f.dir)
	if err != nil {
		return err
	}
	if f.warmer != "" {
		return forget(ctx, c, f.warmer)
	}
	for _, ref := range args {
		ref, err := image.Cached(c, ref)
		if err != nil {
			return err
		}
		if err := c.Pin(ctx, ref, f.on); err != nil {
			return writing(err)
		}
	}
	return nil
}

// fleetPin pins or unpins images on nodes.
func (f *pinFlags) fleetPin(cmd *cobra.Command, args []string) error {
	if f.dir != "" || f.warmer != "" {
		return usagef("--nodes: not with --cache or --warmer, which are for the cache of this machine")
	}
	c, err := f.fleet.config(cmd)
	if err != nil {
		return err
	}
	rows, err := fleet.Pin(cmd.Context(), c, args, f.on)
	if err != nil {
		return err
	}
	r := &ring.Report{Nodes: rows}
	what := "pinned"
	if !f.on {
		what = "not pinned"
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s on %d of %d nodes\n", what, r.Count(), len(rows))
	bad := grouped(slices.DeleteFunc(slices.Clone(rows), func(row ring.Row) bool { return row.State == ring.Held || row.State == ring.Committed }))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	printBad(t, bad)
	if err := t.Flush(); err != nil {
		return err
	}
	printHints(out, bad)
	if code := r.Status(nil, 0); code != ring.ExitAll {
		return &statusError{code: code}
	}
	return nil
}

// forget lets go what a warmer wants.
func forget(ctx context.Context, c *cache.Cache, warmer string) error {
	wishes, err := c.Wishes()
	if err != nil {
		return err
	}
	if warmer == cache.Local || len(wishes[warmer]) == 0 {
		return hintf("dolly-img cache ls, where the cache is, names the warmers that want an image", "cache %s: no warmer %q wants anything there", c.Dir(), warmer)
	}
	return writing(c.SetWishes(ctx, warmer, nil))
}
