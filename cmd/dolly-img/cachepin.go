package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// pinFlags holds the flags of pin and unpin.
type pinFlags struct {
	where
	on     bool
	warmer string
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
			on, err := f.onNodes()
			switch {
			case err != nil:
				return err
			case on && f.warmer == cache.Local:
				return usagef("--warmer %s: no warmer, but the pins; dolly-img cache unpin REF... --nodes LIST lets them go", f.warmer)
			case on && f.warmer != "":
				return f.forgetOnNodes(cmd, f.warmer)
			case on:
				return f.tendNodes(cmd, f.work(args))
			}
			return f.pin(cmd.Context(), args)
		},
	}
	if !on {
		cmd.Use, cmd.Short = "unpin REF... | --warmer NAME", "Let images be evicted again"
		cmd.Long = `Unpin undoes pin. With --warmer it lets go all that this warmer wants, as when the warmer is gone for
good; one that lives says again what it wants. With --nodes it does so in the caches of these nodes, as pin does.`
		cmd.Example = `  dolly-img cache unpin torch:25.09 --nodes 'gpu[001-128]'
  dolly-img cache unpin --warmer head1 --nodes 'gpu[001-128]'`
		cmd.Flags().StringVar(&f.warmer, "warmer", "", "let go all that the warmer `NAME` wants")
	}
	f.add(cmd)
	return cmd
}

// work is what nodes are told.
func (f *pinFlags) work(args []string) ring.Work {
	if f.on {
		return ring.Work{Do: ring.Pins, Names: args}
	}
	return ring.Work{Do: ring.Unpins, Names: args}
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
