package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

func newCacheRm() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rm REF...",
		Short: "Remove images from the cache",
		Long: `Rm takes references out of the cache, and the blobs that no other image needs. What a
transfer needs that runs now stays until it ends.`,
		Args: atLeast(1, "the reference of an image, see dolly-img cache ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cachedir.Open(dir)
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
	addCacheFlag(cmd, &dir)
	return cmd
}

func newCachePin(on bool) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "pin REF...",
		Short: "Keep images from being evicted",
		Long: `Pin has the cache keep what these references name, also when they move to another image,
until unpin or rm.`,
		Args: atLeast(1, "the reference of an image, see dolly-img cache ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cachedir.Open(dir)
			if err != nil {
				return err
			}
			for _, ref := range args {
				ref, err := image.Cached(c, ref)
				if err != nil {
					return err
				}
				if err := c.Pin(cmd.Context(), ref, on); err != nil {
					return writing(err)
				}
			}
			return nil
		},
	}
	if !on {
		cmd.Use, cmd.Short, cmd.Long = "unpin REF...", "Let images be evicted again", "Unpin undoes pin."
	}
	addCacheFlag(cmd, &dir)
	return cmd
}

func newCacheGC() *cobra.Command {
	var dir, most, free string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no image needs, and with limits the images not used for longest",
		Long: `Gc removes blobs that no image needs, once they are older than the grace time: another
tool may be about to name them, or a push that was cut off is repeated. With --max or
--free those that pushes left go at once where a limit is not kept, then images, the one that
was not used for longest first, until it is; none where so much cannot be free whatever goes.
Pinned images stay, and so does what a running transfer needs or was served lately. What verify put into quarantine goes after a week. The limits of the daemon are in policy.toml:

  [cache]
  max = "200G"    # bytes of all blobs
  free = "20G"    # bytes that stay free in the file system`,
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
			c, err := cachedir.Open(dir)
			if err != nil {
				return err
			}
			r, err := c.GC(cmd.Context(), o)
			printRemoved(cmd.OutOrStdout(), r)
			return writing(err)
		},
	}
	addCacheFlag(cmd, &dir)
	cmd.Flags().StringVar(&most, "max", "", "most `BYTES` of all blobs, as in 200G")
	cmd.Flags().StringVar(&free, "free", "", "least free `BYTES` of the file system")
	cmd.Flags().DurationVar(&grace, "grace", cache.DefaultGrace, "`TIME` for which a blob without an image is kept")
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
		fmt.Fprintf(w, "removed  %s\n", printable.Line(name))
	}
	fmt.Fprintf(w, "%d blobs with %s are gone\n", r.Blobs, bytesize.Text(r.Bytes))
	if r.Waits > 0 {
		fmt.Fprintf(w, "%s that no image needs came within the grace time, and stay for now\n", bytesize.Text(r.Waits))
	}
	if r.Over {
		fmt.Fprintln(w, "the limits are not kept: the rest is pinned, in use, within the grace time, or not of this cache")
	}
}

// atLeast is exactly for one argument or more.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return &usageError{fmt.Errorf("%s: missing argument: %s", strings.Fields(cmd.Use)[0], what), "see " + cmd.CommandPath() + " --help"}
		}
		return nil
	}
}

// atMost is exactly for so many arguments or fewer.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s: unexpected argument %q", cmd.Name(), args[n])
		}
		return nil
	}
}

// writing says who may do what err says that this user may not.
func writing(err error) error {
	if errors.Is(err, fs.ErrPermission) && hintOf(err) == "" {
		return hintf("run it as root, or as the user whom the cache belongs to", "%w", err)
	}
	return err
}
