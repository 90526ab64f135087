package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

func newCacheRm() *cobra.Command {
	var f where
	cmd := &cobra.Command{
		Use:   "rm REF...",
		Short: "Remove images from the cache",
		Long: `Rm removes references from the cache, and the blobs that no other image needs. Blobs that a
running transfer needs stay until it ends, and those of an image that a warmer wants until it does not.
Rm also removes a pinned image, and says that it was pinned.

With --nodes it does so in the caches of these nodes, with the key of a sender. A node that lacks an
image has nothing to do, but an image that none of them has is an error. The exit status is that of push. What the list of a controller
(dolly-img warm) names comes back within a minute: take it out of the list first.`,
		Example: `  dolly-img cache rm torch:25.09 --nodes 'gpu[001-128]'`,
		Args:    atLeast(1, "the reference of an image, see dolly-img cache ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if on, err := f.onNodes(); on || err != nil {
				return cmp.Or(err, f.tendNodes(cmd, ring.Work{Do: ring.Removes, Names: args}))
			}
			c, err := cachedir.Open(f.dir)
			if err != nil {
				return err
			}
			for _, ref := range args {
				ref, err := image.Cached(c, ref)
				if err != nil {
					return err
				}
				r, err := c.Remove(cmd.Context(), ref)
				if err != nil {
					return writing(err)
				}
				printRemoved(cmd.OutOrStdout(), r)
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newCacheGC() *cobra.Command {
	var f where
	var most, free string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no image needs, and with limits the images that were not used for longest",
		Long: `Gc removes blobs that no image needs, once they are older than the grace time: until then
another tool may be about to name them, or a push that was cut off may be repeated.

With --max or --free gc also keeps a limit. If the cache is over it, gc first removes the blobs that
pushes left, whatever their age, and then images, the one that was not used for longest first. It
removes no image if that could not keep the limit. Pinned images stay, and so do images that a
warmer wants, that a running transfer needs or that were served lately. What verify put into quarantine is removed after
a week. The limits of the daemon are in policy.toml:

  [cache]
  max = "200G"    # bytes of all blobs
  free = "20G"    # bytes that stay free in the file system

If the cache is still over a limit at the end, gc says what holds it, and exits 1. With --nodes it
does so in the caches of these nodes, with the key of a sender. The exit status is that of push,
where a node whose cache is still over a limit has failed.`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := cache.GCOptions{Grace: grace, Attainable: true}
			var err error
			if o.Limits.Max, err = parseBytes("--max", most); err != nil {
				return err
			}
			if o.Limits.Free, err = parseBytes("--free", free); err != nil {
				return err
			}
			if grace < 0 {
				return usagef("--grace %v: negative", grace)
			}
			if on, err := f.onNodes(); on || err != nil {
				if grace%time.Second != 0 {
					return usagef("--grace %v: want whole seconds for nodes", grace)
				}
				return cmp.Or(err, f.tendNodes(cmd, ring.Work{Do: ring.Collects, Max: o.Limits.Max, Free: o.Limits.Free, Grace: grace}))
			}
			c, err := cachedir.Open(f.dir)
			if err != nil {
				return err
			}
			r, err := c.GC(cmd.Context(), o)
			printRemoved(cmd.OutOrStdout(), r)
			if err == nil && r.Over {
				return &statusError{code: ring.ExitSource} // which limits are not kept, and why, is printed
			}
			return writing(err)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&most, "max", "", "most `BYTES` that all blobs may have, such as 200G")
	cmd.Flags().StringVar(&free, "free", "", "least `BYTES` that have to be free in the file system, such as 20G")
	timeVar(cmd.Flags(), &grace, "grace", cache.DefaultGrace, "`TIME` for which a blob without an image is kept")
	return cmd
}

func parseBytes(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := bytesize.Parse(s)
	if err != nil {
		return 0, usagef("%s: %w", flag, err)
	}
	return n, nil
}

func printRemoved(w io.Writer, r cache.GCResult) {
	for _, name := range r.Images {
		fmt.Fprintf(w, "removed  %s\n", removedText(name, slices.Contains(r.Pinned, name), r.Wanted[name]))
	}
	for _, line := range leftText(r.Blobs, r.Bytes, r.Waits, r.Over) {
		fmt.Fprintln(w, line)
	}
	if r.Pins != "" {
		text := printable.Line(r.Pins)
		if strings.Contains(r.Pins, " pinned") {
			text += "; dolly-img cache unpin REF lets gc remove one"
		}
		fmt.Fprintln(w, text)
	}
}

// removedText says which image was removed, and what of it stays.
func removedText(name string, pinned bool, owners []string) string {
	text := printable.Line(name)
	if pinned {
		text += ", which was pinned"
	}
	if len(owners) > 0 {
		text += "; its blobs stay, since they are wanted by " + printable.Line(strings.Join(owners, ", "))
	}
	return text
}

// leftText says in lines what is gone, and what is left.
func leftText(blobs int, bytes, waits int64, over bool) []string {
	lines := []string{fmt.Sprintf("%d blobs with %s are gone", blobs, bytesize.Text(bytes))}
	if waits > 0 {
		lines = append(lines, bytesize.Text(waits)+" that no image needs stay for now, as they came within the grace time")
	}
	if over {
		lines = append(lines, "the cache is still over its limits: the rest is pinned, wanted, in use, within the grace time, or not of this cache")
	}
	return lines
}

// atLeast is like exactly, for n arguments or more.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return &usageError{fmt.Errorf("%s: missing argument: %s", strings.Fields(cmd.Use)[0], what), "see " + cmd.CommandPath() + " --help"}
		}
		return nil
	}
}

// atMost is like exactly, for n arguments or fewer.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s: unexpected argument %q", cmd.Name(), args[n])
		}
		return nil
	}
}

// writing adds a hint to err if this user may not write to the cache: it says who may.
func writing(err error) error {
	if errors.Is(err, fs.ErrPermission) && hintOf(err) == "" {
		return hintf("run it as root, or as the user whom the cache belongs to", "%w", err)
	}
	return err
}
