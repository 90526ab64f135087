package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
)

// coresForSHA256 is how many cores a server has that can spare one for a sum that no node needs: with two, a push to
// nodes on fast links takes up to a sixth longer.
const coresForSHA256 = 4

const rawLong = `Raw sends a regular file, a block device, a directory, or standard input if FILE is -, to the same path on every
node. The policy.toml of each node has to permit the path. The file there is replaced in
one step, when the node has verified everything and made it durable. It gets the
modification time and the permission bits of FILE (0400 if FILE has none), or the bits
that --mode sets. FILE can also be given as --input FILE.

Some files, as in /proc and /sys, are longer or shorter than their size says: raw reads
them to their end, as a stream. If a file becomes longer while it is sent, such as a log,
the nodes get what it was when it was opened, and raw says so. If it changes in another
way, nothing is committed.

If a node has a file at PATH already, and its policy does not let it be replaced, the node
compares the two if they are equally long. If the bytes are the same, the node holds the file
and writes nothing; if not, it refuses. So the same command can be repeated after some nodes
failed. A file that the node holds gets the mode and the owner that the command asks for; if that
changes it, the node says committed. Its modification time stays.

A directory whose name ends with / is sent with all that is in it: owners (by their numbers), modes, times,
links, hard links, extended attributes and ACLs; holes of sparse files stay holes. --output names the directory that becomes
the same on every node; it takes the place of one that is there as a whole, in one step, so that what only that one had is
gone. The policy.toml of each node has to permit it with directories = true, and replacing one with overwrite = true.
If anything in the directory changes while it is sent, nothing is committed. Devices and named pipes are sent with --special only, and
sockets never. With --in-place files are replaced one by one in the directory that is there, and nothing is removed: for file systems
that cannot exchange directories, and to add to what is there. If that is interrupted, the directory is partly the new one. --exclude-path PATTERN leaves out what fits it, with all that is in it, as rsync --exclude does: a pattern that
begins with / fits from the top on, another one the last names of a path, and with / at its end directories only; * and ? stand for
no slash, and ** is not supported. --owner gives all of the directory to one owner. Other file systems that are mounted in the
directory are sent, too.

A disk, a partition or another block device is sent as it is, and becomes a file of mode 0600. Nobody may
use it meanwhile, so that its bytes belong together: what is mounted is refused, unless the file system is
mounted read-only. If something is written to the device all the same, nothing is committed.

With --output device:NAME, or a path below /dev that the policy lists, the nodes overwrite a disk or a
partition. Before that raw shows what FILE holds, and what would be overwritten on each node: the device, its size, and what it
holds. A FILE below 1 MiB in which nothing is known is refused, unless --force-kind is given. Nothing is written until you type the number of nodes that you named, or where there is no terminal
the command has --yes-overwrite with that number. A node that answers later takes no part. While a device is
written it cannot be used, and says that it is half-written; it is neither the old one nor the new one. If the transfer
breaks off, give the same command again: it goes on from what each device has. With --update the nodes first compare the whole device
with FILE, which is read once for this. They are sent, and write, only what differs, and the device is half-written meanwhile. Where
nothing differs, nothing is written, and the node holds the device. An image below 64 MiB is sent whole, and a compressed one has to
be expanded first. What lies behind the image on a larger device is kept, but for its last MiB. The
backup of a GPT moves to the end (--gpt keep leaves it). Each node reads back what it wrote before it says that it has it;
--verify none leaves that out, which takes less time, and does not notice what a disk loses or changes.

With --format auto, which need not be said where the output is a device, FILE is the image of a disk, and its
first bytes say how it is stored: as it is, or compressed with gzip, zstd, xz or bzip2. The nodes get the image expanded. If there is a
block map (bmap) beside it, as IMAGE.bmap or under the name of the image without .xz and the like,
or --bmap names one, blocks that it leaves out are sent as zeros, and the others are compared with its
checksums. Images that another program has to convert (qcow2, VMDK, VHD, a tar archive and so on)
are refused, with the command that does it. --format gzip, zstd, xz or bzip2 expands what FILE
has, whatever that is. What gzip and bzip2 made is expanded once before to be measured, and so is
a zstd file that does not say its length. If FILE is damaged or cut off, nothing is committed.

With --update a node that has a file at PATH already, which its policy lets be replaced, is sent only
what differs: that file is compared with FILE in pieces of 4 MiB. If nothing differs, it stays as it is, and the node holds it. Else a copy,
which shares its blocks where the file system can (XFS, Btrfs), gets the pieces that differ, and then replaces it. FILE is read
once to compare it, and what some node lacks is read again. If the transfer breaks off, the same command goes on from what it had. A FILE below 64 MiB is sent whole.

A stream is kept in a temporary file (in $TMPDIR) while it is sent, so that a node
can be fed again if its predecessor died. --no-spool does without that file.

Raw does not know the exit status of a command in front of a pipe. Use "set -o pipefail",
and note that raw sends what a failed command has written. If nothing at all comes, that is
an error, unless --allow-empty is given.

--output - writes to the standard output of nodes that run dolly-img receive.

The exit status means the same as that of push; dolly-img push --help lists all.`

func newRaw() *cobra.Command {
	var send sendFlags
	var out outputFlags
	var input string
	var format, blocks string
	var noSpool, allowEmpty, sha, update, noSync bool
	var config string
	var dev deviceFlags
	var dir treeFlags
	cmd := &cobra.Command{
		Use:   "raw FILE --output PATH --nodes LIST",
		Short: "Clone a file or a stream to nodes",
		Long:  rawLong,
		Example: `  dolly-img raw vmlinuz --output /data/ --nodes 'node[01-16]'
  dolly-img raw /dev/nvme0n1p3 --output /data/scratch.img --nodes @hostfile
  dolly-img raw /dev/sda --output device:system --nodes 'node[01-16]'
  dolly-img raw /srv/tree/ --output /srv/tree --nodes 'node[01-16]'
  dolly-img raw system.raw.xz --format auto --output /data/system.raw --nodes @hostfile
  tar cz . | dolly-img raw - --output /data/home.tar.gz --nodes @hostfile`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if config != "" {
				if input != "" || len(args) > 0 {
					return usagef("-f %s: the file names the input", config)
				}
				return runConfig(cmd, config, send, out, dev, noSync)
			}
			// A copy is changed: the command that serves the rest of the nodes repeats the flags as they were given.
			input := input
			name := ""
			switch {
			case input != "" && len(args) > 0:
				return usagef("%s and --input %s: only one of them", args[0], input)
			case len(args) > 0:
				input = args[0]
			}
			switch {
			case input == "":
				return &usageError{fmt.Errorf("no input"), "name it: raw FILE, or raw - for standard input"}
			case input != "-":
				name = filepath.Base(input)
			}
			if (noSpool || allowEmpty) && input != "-" {
				return usagef("--no-spool and --allow-empty are for standard input only, which is named -")
			}
			expands := (format != string(expand.Raw) || blocks != "") && !identity.IsDevice(out.output)
			if update && (input == "-" || expands || out.discard || out.output == "-") {
				return usagef("--update is for a file that is sent as it is, to a file, and for what comes to a device")
			}
			if out.output == "" && !out.discard {
				return &usageError{fmt.Errorf("no output"), "name it with --output PATH, or use --verify-only"}
			}
			if isTree(input) {
				return dir.run(cmd, input, &send, out)
			}
			if dir.special || dir.inPlace || len(dir.exclude) > 0 {
				return usagef("--exclude-path, --in-place and --special are for a directory, whose name ends with /")
			}
			stored, err := storedAs(cmd, input, format, blocks, identity.IsDevice(out.output))
			if err != nil {
				return err
			}
			m, err := out.meta(meta.KindRaw, stored.Expanded(name))
			if err != nil {
				return err
			}
			if m.NoSync = noSync; noSync && (m.Device != nil || m.Discard || m.Output == "-") {
				return usagef("--no-sync is for files: a device is read back, and nothing else is made durable")
			}
			if err := dev.into(cmd, m, input, &send); err != nil {
				return err
			}
			j, err := send.job(cmd, input, m)
			if err != nil {
				return err
			}
			if err := dev.confirms(j); err != nil {
				return err
			}
			if send.stdin && input == "-" {
				return usagef("input - and --nodes @-: standard input can be only one of them")
			}
			if !cmd.Flags().Changed("sha256") {
				sha = runtime.NumCPU() >= coresForSHA256 && !raw.IsDevice(input)
			}
			j.Update = update
			j.What = push.File{
				Path: input, Format: stored, Map: blocks, Measuring: j.measuring(name), SHA256: sha,
				Stream: cmd.InOrStdin(), NoSpool: noSpool, AllowEmpty: allowEmpty, Note: j.note,
			}
			return j.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "`FILE` or device to send, or - for standard input")
	out.add(cmd, "`PATH` of the file on the nodes, or of its directory if it ends with /, or device:NAME")
	cmd.Flags().StringVar(&format, "format", string(expand.Raw), "how FILE is stored, `raw|auto|gzip|zstd|xz|bzip2`: nodes get it as it is, or what it has when it is expanded (to a device: auto)")
	cmd.Flags().StringVar(&blocks, "bmap", "", "`FILE` with a block map of the image: all that it leaves out is sent as zeros (implies --format auto)")
	cmd.Flags().BoolVar(&noSpool, "no-spool", false, "do not keep standard input in a temporary file")
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "send standard input even if it is empty")
	cmd.Flags().BoolVar(&sha, "sha256", false, "report the SHA-256 of a file from 64 MiB on, or of a device, too, which takes a core (without this flag: of files, where there are 4)")
	cmd.Flags().BoolVar(&noSync, "no-sync", false, "have nodes confirm the file before it is durable: a power loss may take it")
	cmd.Flags().StringVarP(&config, "config", "f", "", "take input, output and nodes from `FILE`, a configuration file of dolly")
	dev.add(cmd)
	dir.add(cmd)
	cmd.Flags().BoolVar(&update, "update", false, "send only what differs from the file, or from the device, that nodes have at PATH")
	send.add(cmd)
	wait := cmd.Flags().Lookup("wait")
	wait.Usage = fmt.Sprintf("%s; devices: %v)", strings.TrimSuffix(wait.Usage, ")"), spinUp)
	return cmd
}

// storedAs checks --format and --bmap, and returns how the input is stored. What comes to a device is an image of one,
// and never the bytes of an archive or a compressed file, unless the user says so.
func storedAs(cmd *cobra.Command, input, format, blocks string, toDevice bool) (expand.Format, error) {
	f := expand.Format(format)
	if !slices.Contains(expand.Formats, f) {
		return "", usagef("--format %s: want raw, auto, gzip, zstd, xz or bzip2", format)
	}
	if input == "-" && (f != expand.Raw || blocks != "") {
		return "", usagef("--format and --bmap are for files: what comes from standard input is sent as it is")
	}
	if (blocks != "" || toDevice) && input != "-" && !cmd.Flags().Changed("format") {
		f = expand.Auto
	}
	return f, nil
}
