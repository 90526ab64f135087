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
	"github.com/dolly-img/dolly-img/ring/identity"
)

// pushFlags holds the flags of push.
type pushFlags struct {
	send   sendFlags
	out    outputFlags
	from   imageFlags
	name   string
	noKeep bool
	pin    bool
}

const pushLong = `Push sends an image down a chain of nodes. Each node verifies it and keeps it in its
cache. A node that holds the image already receives nothing, and a node that holds some
of its layers receives only the others. IMAGE is one of

  FILE                       a SIF, or an OCI or Docker archive; push looks at its content
  DIR, oci:DIR[:REF]         an OCI image layout
  oci-archive:FILE[:REF]     an OCI image layout in a tar, also in gzip or zstd; it is read in place
  docker-archive:FILE[:REF]  what docker save or podman save wrote
  docker://NAME              an image in a registry, with registries.conf and auth.json
  oras://NAME                a SIF, or another artifact, in a registry

REF is a tag, a full or short name, or a digest. If several images have it, push refuses it and
lists their names. Nodes keep an image under the name that container runtimes ask for: app becomes
docker.io/library/app:latest, index.docker.io becomes docker.io, a host is written in lower case,
and a tag beside a digest is left out.

Only this server talks to a registry, and it looks the image up once; nodes never do. If
registries.conf names the mirror of a node, the server does not ask it. The server sends on what
it pulls while it arrives, and keeps it in its own cache, so that no later push pulls it again.

With --output a SIF is also put at a path, in one step and only when it is complete. Any image
can be put there with --output oci-archive:PATH, which makes a tar, or --output oci:PATH, which
makes a directory. Both are an OCI image layout that is the same on every node. A directory is
replaced as a whole, if the node's policy allows it and nothing but such a layout is in it. If
PATH ends with /, the image is put below it: docker://registry/app:v2 becomes app_v2.sif,
app_v2.tar or app_v2, and a file or directory keeps its own name.

The cache of a node keeps the image, too. That is a second copy if the file system cannot share
blocks. With --no-keep a SIF is put at its output only, which suits nodes whose file systems
are in memory. With --pin the image is never evicted from the cache.

With --check push only asks every node and prints the plan: which nodes would be served,
what there is to move, and how long it should take. A node that would be served is
"pending" in the report, and the exit status is that of a push that serves all of these.

The exit status is
  0  every node confirmed the right digest itself (or as many as --min-success says)
  1  an error on this server, before anything was committed
  2  a wrong command line; or, of raw, nobody agreed to overwrite devices, or what would
     come to them is half-written, or smaller than 1 MiB and holds nothing known
  3  some nodes committed
  4  no node committed
  5  all nodes refused before any data moved: their keys, their policy, or what is at the output
  6  push was interrupted before the first commit`

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
	f.out.add(cmd, "also put the image at `PATH` on every node, or below PATH if it ends with /; oci-archive:PATH makes an archive, oci:PATH a directory")
	cmd.Flags().StringVar(&f.name, "name", "", "keep the image in the cache as `REF`, which is completed as container tools do: app becomes docker.io/library/app:latest (default the full name that the image has; if it has none, localhost/FILE:REF with the file name without suffix, and the REF behind the path or latest)")
	cmd.Flags().BoolVar(&f.noKeep, "no-keep", false, "put a SIF at --output only, without a second copy in the cache of the node")
	cmd.Flags().BoolVar(&f.pin, "pin", false, "never evict the image from the cache of a node, until dolly-img cache unpin or rm is run there")
	f.from.add(cmd)
	f.send.add(cmd)
	return cmd
}

// job checks the flags of a push of arg, and returns the push.
func (f *pushFlags) job(cmd *cobra.Command, arg string) (*job, error) {
	if err := image.CheckName(arg); err != nil {
		return nil, &usageError{err: err}
	}
	// A copy is changed: the command that serves the rest of the nodes repeats the flags as they were given.
	out := f.out
	var format string
	out.output, format = cutFormat(out.output)
	if identity.IsDevice(out.output) || likeDevice.MatchString(out.output) {
		return nil, toDevice(out.output)
	}
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
		return nil, usagef("--verify-only and --name: only one of them")
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
	j.What = push.Image{Name: arg, Options: image.Options{
		OCI: o, NoCache: f.from.noCache, CheckLayers: f.from.checkLayers, Cache: f.from.cache, Log: j.Log, Note: j.note, Warn: j.warn,
	}}
	return j, nil
}

// keeping checks --no-keep and --pin, and notes them in m.
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
		return usagef("--verify-only and --pin: only one of them")
	}
	return nil
}

// cutFormat splits the value of --output into its path and its format, which is "" if the value names none.
func cutFormat(s string) (path, format string) {
	for _, format := range []string{meta.FormatArchive, meta.FormatLayout} {
		if path, ok := strings.CutPrefix(s, format+":"); ok {
			return path, format
		}
	}
	return s, ""
}
