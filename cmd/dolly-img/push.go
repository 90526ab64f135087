package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/oci"
)

// pushFlags are those of push.
type pushFlags struct {
	send   sendFlags
	out    outputFlags
	from   imageFlags
	name   string
	noKeep bool
	pin    bool
}

const pushLong = `Push sends an image down a chain of nodes, each of which verifies it and keeps it in
its cache. A node that holds the image already receives nothing, one that holds some of
its layers only the others. IMAGE is one of

  FILE                       a SIF, or an OCI or Docker archive, told by its content
  DIR, oci:DIR[:REF]         an OCI image layout
  oci-archive:FILE[:REF]     one in a tar, also in gzip or zstd; it is read in place
  docker-archive:FILE[:REF]  what docker save or podman save wrote
  docker://NAME              an image in a registry, with registries.conf and auth.json
  oras://NAME                a SIF, or another artifact, in a registry

REF is a tag, a name, in full or short, or a digest; one that several images have is refused, with
their names. Nodes keep an image under the name that container runtimes ask for: app is
docker.io/library/app:latest, index.docker.io is docker.io, a host is in lower case, and beside a
digest there is no tag.

The image of a registry is found once, here; nodes never talk to it. The mirror of a node that
registries.conf names is never asked. What is pulled is sent on
while it arrives and kept in this server's own cache, so that no later push pulls it again.

With --output a SIF is also put at a path, in one step and only when it is complete. Any image
goes there as --output oci-archive:PATH, a tar, or --output oci:PATH, a directory: an OCI image
layout that is the same on every node. A directory is replaced as a whole, where the node's
policy allows it, and only where nothing but such a layout is in it. With / at the end of PATH the
image is put below it, docker://registry/app:v2 as app_v2.sif, app_v2.tar or app_v2, a file or
directory under its own name.

The cache of a node keeps the image, too: a second copy, where the file system cannot share
blocks. With --no-keep a SIF goes straight to its output, for nodes whose file systems are
in memory. With --pin the image is never evicted from the cache.

With --check every node is only asked, and the plan is printed: who would be served,
what there is to move and how long it should take. Rows of the report are then
"pending" where a node would be served, and the exit status is that of a push in which
each of them is.

The exit status is 0 when every node confirmed the right digest itself (or as many as
--min-success says), 1 for an error here before anything was committed, 2 for usage, 3
when some nodes committed, 4 when none did, 5 when all refused before any data (their
keys, their policy, or what is at the output), 6 when it was interrupted before the
first commit.`

func newPush() *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use:   "push IMAGE --nodes LIST",
		Short: "Clone a container image to nodes",
		Long:  pushLong,
		Example: `  dolly-img push sle15.sif --nodes 'node[001-128]' --output /data/
  dolly-img push docker://registry/app:v2 --nodes @hostfile
  dolly-img push sle15.sif --nodes @hostfile --min-success 98% --report report.json`,
		Args: exactly(1, "IMAGE, see its help"),
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := f.job(cmd, args[0])
			if err != nil {
				return err
			}
			return j.run(cmd.Context())
		},
	}
	f.out.add(cmd, "also put the image at `PATH` on every node, or with / at the end below it; oci-archive:PATH as an archive, oci:PATH as a directory")
	cmd.Flags().StringVar(&f.name, "name", "", "`REF` of the image in the cache: app is docker.io/library/app:latest, as container tools complete it (default the image's own name in full; where it has none localhost/<file name without suffix>: and the REF behind the path, or latest)")
	cmd.Flags().BoolVar(&f.noKeep, "no-keep", false, "put a SIF at --output only, without a second copy in the cache of the node")
	cmd.Flags().BoolVar(&f.pin, "pin", false, "never evict the image from the cache of a node, until dolly-img cache unpin or rm")
	f.from.add(cmd)
	f.send.add(cmd)
	return cmd
}

// job checks the flags of a push of arg.
func (f *pushFlags) job(cmd *cobra.Command, arg string) (*job, error) {
	if err := image.CheckName(arg); err != nil {
		return nil, &usageError{err: err}
	}
	out := f.out // what was asked for is printed again where nodes were not served
	var format string
	out.output, format = cutFormat(out.output)
	if format == "" && strings.ContainsRune(out.output, ':') && !filepath.IsAbs(out.output) {
		return nil, usagef("--output %s: only oci-archive:PATH and oci:PATH are known", out.output)
	}
	m, err := out.meta(meta.KindImage, image.OutputName(arg, format))
	switch {
	case err != nil:
		return nil, err
	case out.output == "-":
		return nil, usagef("--output -: an image goes to files; use dolly-img raw")
	case out.discard && f.name != "":
		return nil, usagef("--discard and --name: only one of them")
	}
	if err := keeping(m, f.noKeep, f.pin, f.name, format); err != nil {
		return nil, err
	}
	kept := f.name
	if f.name != "" {
		if kept, err = oci.FullName(f.name); err != nil {
			return nil, &usageError{fmt.Errorf("--name %q: %w", f.name, err), "give a name as registries have it, [HOST[:PORT]/]PATH[:TAG], with no capitals in PATH"}
		}
	}
	if m.Format = format; format != "" && m.Output == "" {
		return nil, usagef("--output %s: want an absolute path behind it", format)
	}
	j, err := f.send.job(cmd, arg, m)
	if err != nil {
		return nil, err
	}
	if f.send.stdin && f.from.creds == "-" {
		return nil, usagef("--creds - and --nodes @-: standard input can be only one of them")
	}
	o, err := f.from.options(cmd, arg)
	if err != nil {
		return nil, err
	}
	o.Name = kept
	open := image.Options{OCI: o, NoCache: f.from.noCache, CheckLayers: f.from.checkLayers, Cache: f.from.cache, Log: j.Log, Note: j.note}
	if !f.send.quiet {
		open.Warn = func(format string, args ...any) { j.screen.printf("warning: "+format, args...) }
	}
	j.What = push.Image{Name: arg, Options: open}
	return j, nil
}

// keeping notes what --no-keep and --pin say of the copy in the nodes' caches.
func keeping(m *meta.Transfer, noKeep, pin bool, name, format string) error {
	m.NoKeep, m.Pin = noKeep, pin
	switch {
	case noKeep && m.Output == "":
		return &usageError{errors.New("--no-keep: nothing would be left of the image"), "say with --output PATH where it goes"}
	case noKeep && format != "":
		return &usageError{fmt.Errorf("--no-keep and --output %s:%s: an archive or a directory is made of the copy in the cache", format, m.Output),
			"only a SIF goes to its output without one"}
	case noKeep && (pin || name != ""):
		return usagef("--no-keep: what is not kept has no --name in the cache, and no --pin")
	case pin && m.Discard:
		return usagef("--discard and --pin: only one of them")
	}
	return nil
}

// cutFormat takes the format off the front of what --output says.
func cutFormat(s string) (path, format string) {
	for _, format := range []string{meta.FormatArchive, meta.FormatLayout} {
		if path, ok := strings.CutPrefix(s, format+":"); ok {
			return path, format
		}
	}
	return s, ""
}
