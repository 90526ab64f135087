package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/sif"
)

func newPush() *cobra.Command {
	var send sendFlags
	var out outputFlags
	var name string
	cmd := &cobra.Command{
		Use:   "push IMAGE --nodes LIST",
		Short: "Clone a container image to nodes",
		Long: `Push sends a SIF file down a chain of nodes, each of which verifies it and keeps it in
its cache, and with --output also puts it at a path, in one step and only when it is
complete. A node that holds the image already receives nothing.

With --check every node is only asked, and the plan is printed: who would be served,
what there is to move and how long it should take. Rows of the report are then
"pending" where a node would be served, and the exit status is that of a push in which
each of them is.

The exit status is 0 when every node confirmed the right digest itself (or as many as
--min-success says), 1 for an error here before anything was committed, 2 for usage, 3
when some nodes committed, 4 when none did, 5 when all refused before any data (their
keys, their policy, or what is at the output), 6 when it was interrupted before the
first commit.`,
		Example: `  dolly-img push sle15.sif --nodes 'node[001-128]' --output /data/
  dolly-img push sle15.sif --nodes @hostfile --min-success 98% --report report.json`,
		Args: exactly(1, "IMAGE, the path of a SIF file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			image := args[0]
			m, err := out.meta(kindImage, filepath.Base(image))
			switch {
			case err != nil:
				return err
			case out.output == "-":
				return usagef("--output -: an image goes to files; use dolly-img raw")
			case out.discard && name != "":
				return usagef("--discard and --name: only one of them")
			case name != "":
				m.Ref = name
			case !out.discard:
				m.Ref = cache.LocalRef(filepath.Base(image))
			}
			j, err := send.job(cmd, image, "manifest")
			if err != nil {
				return err
			}
			j.open = func(context.Context) (ring.Source, *meta, error) {
				source, err := openSIF(image, m)
				return source, m, err
			}
			return j.run(cmd.Context())
		},
	}
	out.add(cmd, "also put the image at `PATH` on every node, or with / at the end below it")
	cmd.Flags().StringVar(&name, "name", "", "`REF` of the image in the cache (default localhost/<file name without suffix>:latest)")
	send.add(cmd)
	return cmd
}

// openSIF opens an image after its kind was told by its content, and notes in m what
// only the file knows.
func openSIF(image string, m *meta) (ring.Source, error) {
	if err := checkImage(image); err != nil {
		return nil, err
	}
	f, err := sif.Open(image)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.Info().ModTime()
	return f, nil
}
