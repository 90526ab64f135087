package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

func newCache() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look into the cache of this node, and clean it",
		Long: `The cache of a node is an OCI image layout, which skopeo and podman read as it lies on
disk. All of these commands work while the daemon runs. Every user of the node can use ls, path
and verify, unless the daemon's policy.toml restricts that. A user who has no cache of his own sees
the node's cache. A user who has one, as after a push from a registry, sees his own: ls says
which cache it lists, and path also looks into the node's cache.

All but path take --nodes, and are then about the caches of these nodes. Their daemons have to be of
this version or a later one.`,
	}
	group(cmd)
	cmd.AddCommand(newCacheLs(), newCachePath(), newCacheVerify(), newCacheRm(), newCachePin(true), newCachePin(false), newCacheGC())
	return cmd
}

func newCacheLs() *cobra.Command {
	var f where
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images in the cache",
		Long: `Ls lists every image with the size of all its blobs. UNIQUE is the size of those that no
other image needs, which is what the removal of the image would free. PINNED is yes for a pinned
image, and names the warmers that want one; these keep it from being evicted. An image without a
reference that a warmer wants is what its name led to before.

With --nodes it lists what these nodes have, with the key of a sender or of a viewer: each image in
each state once, with the nodes that have it so. WANTED BY names who keeps it from being evicted: local is
pin, and others are warmers. Images without a name, as those that keep in a warmer's list keeps, are not in it:
ls on the node lists them, and status --node says how much all wanted images hold. Status says which
nodes lack an image.`,
		Example: `  dolly-img cache ls --nodes 'gpu[001-128]'`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on, err := f.onNodes(); on || err != nil {
				return cmp.Or(err, f.lsNodes(cmd, asJSON))
			}
			c, err := cachedir.Open(f.dir)
			if err != nil {
				return err
			}
			list, err := c.List()
			if err != nil {
				return err
			}
			if other := cachedir.Other(f.dir, c.Dir()); other != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: this is your own cache, %s; --cache %s lists that of the node\n", printable.Line(c.Dir()), other)
			}
			if asJSON {
				return listJSON(cmd.OutOrStdout(), list)
			}
			if err := listTable(cmd.OutOrStdout(), list); err != nil {
				return err
			}
			// If an image cannot be read, its row says so, and nobody knows which blobs it needs.
			if unneeded, err := c.Unneeded(); err == nil && unneeded > 0 {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "and %s that no image needs now: the next push may use them, and gc removes them\n", bytesize.Text(unneeded))
				return err
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func listTable(w io.Writer, list []cache.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REFERENCE\tKIND\tSIZE\tUNIQUE\tLAST USED\tPINNED\tDIGEST")
	for _, e := range list {
		if e.Err != nil {
			fmt.Fprintf(t, "%s\tbroken\t-\t-\t-\t%s\t%s: %s\n", orDash(e.Ref), keptBy(e), e.Digest, printable.Line(e.Err.Error()))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(e.Ref), e.Kind, bytesize.Text(e.Size), bytesize.Text(e.Unique),
			e.LastUsed.Format("2006-01-02 15:04"), keptBy(e), e.Digest)
	}
	return t.Flush()
}

// keptBy says who keeps an image from being evicted.
func keptBy(e cache.Entry) string {
	owners := e.Wanted
	if e.Pinned {
		owners = append([]string{"yes"}, owners...)
	}
	return orDash(strings.Join(owners, ","))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable.Line(s)
}

func listJSON(w io.Writer, list []cache.Entry) error {
	enc := json.NewEncoder(w)
	for _, e := range list {
		line := struct {
			Ref      string    `json:"ref"`
			Digest   string    `json:"digest"`
			Kind     string    `json:"kind"`
			Size     int64     `json:"size"`
			Unique   int64     `json:"unique"`
			Pinned   bool      `json:"pinned"`
			Wanted   []string  `json:"wanted"`
			LastUsed time.Time `json:"lastUsed"`
			Error    string    `json:"error"`
		}{e.Ref, string(e.Digest), e.Kind, e.Size, e.Unique, e.Pinned, append([]string{}, e.Wanted...), e.LastUsed.UTC(), errorText(e.Err)}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func newCachePath() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "path REF",
		Short: "Print what a container runtime needs to start an image",
		Long: `Path prints one line. For a SIF it is the file in the cache, which must not be written to;
for other images it is oci:DIR:REF. REF may also be what was pushed, such as sle15.sif or
docker://nginx, or a short name that only one image has, such as sle15 or app:v2. Path counts as a
use of the image: when the cache needs room, the images that were not used for longest go first.`,
		Example: `  apptainer run $(dolly-img cache path sle15)`,
		Args:    exactly(1, "the reference of an image, see dolly-img cache ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, ref, note, err := image.FindCached(dir, args[0])
			if err != nil {
				return err
			}
			if note != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", printable.Line(note))
			}
			path, err := c.Path(ref)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	addCacheFlag(cmd, &dir)
	return cmd
}

func newCacheVerify() *cobra.Command {
	var f where
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read everything in the cache again and compare it with its digest",
		Long: `Verify hashes every blob, and checks that every image has all of its blobs. It exits 1
if something is wrong. It moves a blob with wrong bytes to the directory quarantine of the cache,
and the next push of an image that needs the blob brings it again. If the user may only read the
cache, verify changes nothing.

With --nodes it does so in the caches of these nodes, all at the same time, with the key of a sender.
A node reads as fast as its disk allows, for one command at a time, and stops when the command is
interrupted. A node with something wrong has failed, and the exit status is that of push.`,
		Example: `  dolly-img cache verify --nodes 'gpu[001-128]'`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on, err := f.onNodes(); on || err != nil {
				return cmp.Or(err, f.verifyNodes(cmd, asJSON))
			}
			c, err := cachedir.Open(f.dir)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			show := func(r cache.Result) {
				if r.Err != nil {
					fmt.Fprintf(out, "bad  %s\n", printable.Line(r.Err.Error()))
				}
			}
			if asJSON {
				enc := json.NewEncoder(out)
				show = func(r cache.Result) {
					_ = enc.Encode(struct {
						Ref    string `json:"ref"`
						Digest string `json:"digest"`
						Size   int64  `json:"size"`
						Error  string `json:"error"`
					}{r.Ref, string(r.Digest), r.Size, errorText(r.Err)})
				}
			}
			blobs, bytes := 0, int64(0)
			bad, err := c.Verify(cmd.Context(), func(r cache.Result) {
				if r.Ref == "" {
					blobs, bytes = blobs+1, bytes+r.Size
				}
				show(r)
			})
			switch {
			case err != nil:
				return err
			case bad > 0:
				return hintf("push the images that are bad again", "cache %s: %d bad", c.Dir(), bad)
			case !asJSON:
				fmt.Fprintf(out, "%d blobs with %s are right\n", blobs, bytesize.Text(bytes))
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, for everything that was read, or for each of --nodes")
	return cmd
}
