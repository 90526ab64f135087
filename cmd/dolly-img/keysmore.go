package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// This file has the commands that make more keys, replace them and revoke them.

func newKeysAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make keys of more senders, nodes, warmers or viewers",
		Long: `Add makes keys with the authority that is there already, so run it on the server, which has
ca.key. It replaces nothing: it leaves keys that are there and good, and makes those that are
missing, so the command can be repeated with a longer list. If a name is revoked, or its file is
there and not good, add makes the others first and then reports the error.`,
	}
	group(cmd)
	cmd.AddCommand(newKeysAddSender(), newKeysAddNode(), newKeysAddWarmer(), newKeysAddViewer())
	return cmd
}

func newKeysAddSender() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "sender NAME...",
		Short: "Make keys of more machines or people that may send",
		Long: `Sender makes sender-NAME.pem for each NAME. Install it as sender.pem, with ca.pem, on the
machine that is to send. Nodes log the NAME with every transfer, and it can be revoked.`,
		Example: `  dolly-img keys add sender login2`,
		Args:    atLeastOne("NAME"),
		RunE: func(cmd *cobra.Command, names []string) error {
			return addKeys(cmd.OutOrStdout(), dir, identity.Sender, names)
		},
	}
	addKeysFlag(cmd, &dir)
	return cmd
}

func newKeysAddNode() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "node LIST...",
		Short: "Make keys of nodes, each for one name",
		Long: `Node makes node-NAME.pem for each node in the lists. Install it as node.pem, with ca.pem, on
that node. A node that uses the key that all nodes share needs no key of its own.`,
		Example: `  dolly-img keys add node 'node[129-256]'`,
		Args:    atLeastOne("LIST"),
		RunE: func(cmd *cobra.Command, lists []string) error {
			names, err := nodeNames(lists)
			if err != nil {
				return err
			}
			return addKeys(cmd.OutOrStdout(), dir, identity.Node, names)
		},
	}
	addKeysFlag(cmd, &dir)
	return cmd
}

func newKeysAddWarmer() *cobra.Command {
	return newKeysAddClient(identity.Warmer, "Make keys of more programs that keep caches warm",
		`Warmer makes warmer-NAME.pem for each NAME. Install it as warmer.pem, with ca.pem, in
/etc/dolly-img/warmer on the machine where the program runs. Nodes log the NAME with every transfer, and keep what it wants
under this name. A warmer may fill the caches of nodes, and write no file and no device.`, "warm2")
}

func newKeysAddViewer() *cobra.Command {
	return newKeysAddClient(identity.Viewer, "Make keys of more people or machines that may ask what nodes have",
		`Viewer makes viewer-NAME.pem for each NAME. Install it as viewer.pem, with ca.pem, for who
runs dolly-img status. A viewer may ask nodes what they have, and nothing else.`, "alice")
}

// newKeysAddClient is the command that makes keys of a role whose holders have names.
func newKeysAddClient(role identity.Role, short, long, example string) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     string(role) + " NAME...",
		Short:   short,
		Long:    long,
		Example: "  dolly-img keys add " + string(role) + " " + example,
		Args:    atLeastOne("NAME"),
		RunE: func(cmd *cobra.Command, names []string) error {
			return addKeys(cmd.OutOrStdout(), dir, role, names)
		},
	}
	addKeysFlag(cmd, &dir)
	return cmd
}

func addKeys(w io.Writer, dir string, role identity.Role, names []string) error {
	dir, err := identity.Find(dir)
	if err != nil {
		return err
	}
	made, there, err := identity.Add(dir, role, names, identity.InitOptions{})
	if len(there) > 0 {
		fmt.Fprintf(w, "there already, and left as they are: %s\n", printable.Line(strings.Join(there, ", ")))
	}
	if len(made) == 0 {
		return err
	}
	fmt.Fprintf(w, "made in %s: %s\n", dir, printable.Line(strings.Join(made, ", ")))
	switch role {
	case identity.Sender:
		fmt.Fprintln(w, "the machine that is to send needs ca.pem and its own key as sender.pem, with mode 0600, owned by who runs dolly-img there:")
	case identity.Node:
		fmt.Fprintln(w, "each of these nodes needs ca.pem and its own key as node.pem, with mode 0600, owned by root:")
	default:
		fmt.Fprintf(w, "the machine of a %[1]s needs ca.pem and its own key as %[1]s.pem, with mode 0600, owned by who runs dolly-img there:\n", role)
	}
	if role == identity.Warmer {
		fmt.Fprintf(w, "  scp %s MACHINE:%s/\n", quote(filepath.Join(dir, "ca.pem")), warmKeys)
	} else {
		printCopies(w, dir, []string{"ca.pem"})
	}
	printCopies(w, dir, made)
	return err
}

func newKeysRenew() *cobra.Command {
	var dir string
	var authority bool
	cmd := &cobra.Command{
		Use:   "renew [NAME...]",
		Short: "Replace keys before they end",
		Long: `Renew replaces certificates in the directory by new ones with new private keys: all of
them, or those that are named. NAME is "sender", "node" (the key that all nodes share), "warmer",
"viewer", or the name of one of these. Run renew on the server, which has ca.key. The old certificates stay
good until they end, so machines can get the new ones in any order, and nothing has to stop.
Each file is replaced in one step.

When the authority itself nears its end, renew --ca makes another one beside it, and replaces
nothing else. Copy ca.pem to every machine and reload the daemons first; only then let renew make
certificates of the new authority, because machines without it would refuse them. The next renew
after the old authority has ended removes it from ca.pem.`,
		Example: `  dolly-img keys renew
  dolly-img keys renew sender node07
  dolly-img keys renew --ca`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if authority && len(names) > 0 {
				return usagef("--ca and a name: only one of them")
			}
			dir, err := identity.Find(dir)
			if err != nil {
				return err
			}
			if authority {
				return renewAuthority(cmd.OutOrStdout(), dir)
			}
			return renewKeys(cmd.OutOrStdout(), dir, names)
		},
	}
	addKeysFlag(cmd, &dir)
	cmd.Flags().BoolVar(&authority, "ca", false, "make a new authority beside the one that nears its end")
	return cmd
}

func renewAuthority(w io.Writer, dir string) error {
	if err := identity.RenewCA(dir, identity.InitOptions{}); err != nil {
		return err
	}
	fmt.Fprintf(w, `ca.pem in %s now holds two authorities, and ca.key belongs to the new one; all certificates stay as they are
1. copy ca.pem to every node and every machine that sends, and reload the daemons:
`, dir)
	printCopies(w, dir, []string{"ca.pem"})
	printReload(w)
	fmt.Fprintf(w, "2. only then, here: dolly-img keys renew --keys %s\n", quote(dir))
	return nil
}

func renewKeys(w io.Writer, dir string, names []string) error {
	renewals, left, err := identity.Renew(dir, names, identity.InitOptions{})
	if err != nil {
		return err
	}
	for _, l := range left {
		fmt.Fprintf(w, "left as it is, since its name is revoked: %s\nhint: %s\n", printable.Line(l.File), adviceOn("name-use-again", l.Was.Serial))
	}
	if len(renewals) == 0 {
		return nil
	}
	entries, err := identity.Show(dir)
	if err != nil {
		return err
	}
	renewed := make([]string, len(renewals))
	for i, r := range renewals {
		renewed[i] = r.File
	}
	until := slices.IndexFunc(entries, func(e identity.Entry) bool { return filepath.Base(e.File) == renewed[0] })
	fmt.Fprintf(w, "renewed in %s, until %s: %s\n", dir, date(entries[until].NotAfter), printable.Line(strings.Join(renewed, ", ")))
	for _, r := range renewals {
		fmt.Fprintf(w, "  %s replaces serial %s, which is good until %s\n", printable.Line(r.File), r.Was.Serial, date(r.Was.Until))
	}
	fmt.Fprintf(w, "to give up one that was replaced, once its machine has the new one: dolly-img keys revoke --keys %s SERIAL\n", quote(dir))
	printRenewed(w, dir, renewed)
	return nil
}

// printRenewed says where the files that were renewed belong.
func printRenewed(w io.Writer, dir string, renewed []string) {
	fmt.Fprintln(w, "copy each to its machine, and reload the daemons:")
	for _, role := range []string{"node", "sender", "warmer", "viewer"} {
		var named []string
		for _, file := range renewed {
			if strings.HasPrefix(file, role+"-") {
				named = append(named, file)
			}
		}
		switch shared := slices.Contains(renewed, role+".pem"); {
		case shared && role == "node":
			printCopies(w, dir, []string{"node.pem"})
		case shared && role == "sender":
			fmt.Fprintf(w, "  %s is this machine's own: the next push uses it\n", quote(filepath.Join(dir, "sender.pem")))
		case shared:
			printCopies(w, dir, []string{role + ".pem"})
		}
		printCopies(w, dir, named)
	}
	if slices.ContainsFunc(renewed, func(file string) bool { return strings.HasPrefix(file, "node") }) {
		printReload(w)
	}
}

func newKeysRevoke() *cobra.Command {
	var dir string
	var force bool
	cmd := &cobra.Command{
		Use:   "revoke NAME|SERIAL...",
		Short: "Revoke keys, as of a machine that was lost or of somebody who left",
		Long: `Revoke adds to the list of revoked certificates, which is the file "revoked" in the directory
of the keys. A serial number, as keys show prints it, revokes one certificate. NAME, or sender/NAME,
node/NAME, warmer/NAME or viewer/NAME, revokes all certificates with that name, also those that are
made later. So to give a node a new key under its old name, revoke the serial number, not the name,
and then renew.

If no key in the directory, and none that was issued there, has the serial number or the name,
revoke takes it for a mistake and changes nothing, unless --force is given. The same goes for a
NAME that keys of several roles have: say which role, as in node/NAME.

The list only works on machines that have it. Copy it to every node, which reads it when its
daemon starts or is told to reload, and to every machine that sends, which reads it with each
push. Running transfers go on. The list has one serial number or name a line, and # begins a
comment; lines may also be written and removed by hand.`,
		Example: `  dolly-img keys revoke node/node07
  dolly-img keys revoke 5f0c31a2b4c6d8e0f1a3b5c7d9ebfd0f`,
		Args: atLeastOne("NAME or SERIAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []identity.Revocation
			for _, arg := range args {
				r, err := identity.ParseRevocation(arg)
				if err != nil {
					return &usageError{err: err}
				}
				list = append(list, r)
			}
			dir, err := identity.Find(dir)
			if err != nil {
				return err
			}
			meant, err := identity.Revoke(dir, list, force, time.Now())
			var unknown *identity.UnknownKeyError
			var ambiguous *identity.AmbiguousNameError
			if errors.As(err, &unknown) || errors.As(err, &ambiguous) {
				return &usageError{err: err}
			}
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			for _, m := range meant {
				fmt.Fprintf(w, "revoked %s: %s\n", m.Revocation, printable.Line(meaning(m)))
			}
			fmt.Fprintln(w, "copy the list to every node and every machine that sends, and reload the daemons:")
			printCopies(w, dir, []string{"revoked"})
			printReload(w)
			return nil
		},
	}
	addKeysFlag(cmd, &dir)
	cmd.Flags().BoolVar(&force, "force", false, "revoke also a serial number or a name that no key known here has, or a name that keys of several roles have")
	return cmd
}

// meaning says which keys an entry in the list revokes.
func meaning(m identity.Meant) string {
	what := m.Files
	for _, i := range m.Issued {
		what = append(what, fmt.Sprintf("serial %s, which no file here has any more", i.Serial))
	}
	if len(what) == 0 {
		return "no key that is known here has it"
	}
	return strings.Join(what, ", ")
}

// atLeastOne is cobra.MinimumNArgs(1) with our own messages.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exactly(1, what)(cmd, args)
		}
		return nil
	}
}

// printCopies prints the commands that copy files to the machines that need them. The file with the key of one
// machine has the machine in its name here, and a common name there. If there are many such files, one command with a
// placeholder is printed.
func printCopies(w io.Writer, dir string, files []string) {
	const few = 3
	if len(files) > few {
		role, _, _ := strings.Cut(files[0], "-")
		files = []string{role + "-NAME.pem"}
	}
	for _, file := range files {
		machine, as, to := "MACHINE", "", "/etc/dolly-img/keys"
		role, name, ok := strings.Cut(strings.TrimSuffix(file, ".pem"), "-")
		switch r := identity.Role(role); {
		case ok && (r == identity.Warmer || r == identity.Viewer): // these names are of programs and people
			as = role + ".pem"
		case ok:
			machine, as = name, role+".pem"
		}
		if identity.Role(role) == identity.Warmer {
			to = warmKeys
		}
		if strings.Contains(machine, ":") { // scp wants an IPv6 address in brackets
			machine = "[" + machine + "]"
		}
		fmt.Fprintf(w, "  scp %s %s:%s/%s\n", quote(filepath.Join(dir, file)), machine, to, as)
	}
}

func printReload(w io.Writer) {
	fmt.Fprintln(w, "  ssh NODE systemctl reload dolly-img")
}
