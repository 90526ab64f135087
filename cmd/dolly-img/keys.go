package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, renew, revoke and show the keys of a cluster",
		Long: `The server and the nodes know each other by certificates of a private authority. What a
certificate permits depends on its role, which a node checks before its policy:

  sender   starts transfers to the cache, to files and to devices of nodes
  node     takes part in them
  warmer   fills the caches of nodes, and says which images they should keep; for a program that
           runs all the time: whoever steals its key writes no file and no device
  viewer   asks nodes which images they have, and nothing else

Commands look for keys in --keys DIR, or in $DOLLY_IMG_KEYS, or in /etc/dolly-img/keys and the user's
configuration directory.

Init, add and renew need ca.key, so run them on the server, where the keys were made. A
daemon reads new keys, and a new list of revoked keys, when it is told to reload: run
systemctl reload dolly-img on the node, or send SIGHUP to its process.`,
	}
	group(cmd)
	cmd.AddCommand(newKeysInit(), newKeysAdd(), newKeysRenew(), newKeysRevoke(), newKeysShow())
	return cmd
}

// defaultKeys returns the directory in which keys are made: that of --keys, or the first one in which they are looked for.
func defaultKeys(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if dir := os.Getenv("DOLLY_IMG_KEYS"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/etc/dolly-img/keys", nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", hintf("name a directory with --keys DIR", "keys: %w", err)
	}
	return filepath.Join(config, "dolly-img", "keys"), nil
}

func newKeysInit() *cobra.Command {
	var dir, cluster string
	var lists []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys of a cluster",
		Long: `Init makes an authority (ca.pem, ca.key), and the keys of the server (sender.pem), of the
nodes (node.pem), of a program that keeps caches warm (warmer.pem) and of whoever only looks
(viewer.pem). It replaces nothing. Where an earlier version made the keys, init adds those that
are missing.

Put ca.pem and node.pem on every node. All nodes may share node.pem: root on a node cannot
send with it. With --nodes each node gets a certificate of its own, which is good for its
name only: install node-NAME.pem there as node.pem. Keep ca.key off the nodes. Put ca.pem and
warmer.pem in /etc/dolly-img/warmer on the machine where dolly-img warm runs, and give ca.pem and
viewer.pem to who only runs dolly-img status. Dolly-img keys add makes more keys of each role later.`,
		Example: `  dolly-img keys init --keys ./keys
  dolly-img keys init --keys ./keys --nodes 'node[001-128]'`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			nodes, err := nodeNames(lists)
			if err != nil {
				return err
			}
			dir, err := defaultKeys(dir)
			if err != nil {
				return err
			}
			if err := identity.Init(dir, identity.InitOptions{Cluster: cluster, Nodes: nodes}); err != nil {
				return err
			}
			printInstall(cmd.OutOrStdout(), quote(dir), len(nodes) > 0)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "keys", "", "make the keys in `DIR` (default $DOLLY_IMG_KEYS, for root /etc/dolly-img/keys, else the user's)")
	cmd.Flags().StringVar(&cluster, "cluster", "", "`NAME` of the cluster (default a random one)")
	cmd.Flags().StringArrayVar(&lists, "nodes", nil, "`LIST` of nodes that get a certificate of their own (repeatable)")
	return cmd
}

// printInstall says on which machines the keys in dir belong. Named says that each node has a key of its own.
func printInstall(w io.Writer, dir string, named bool) {
	fmt.Fprintf(w, "keys are in %s\n", dir)
	if named {
		fmt.Fprintf(w, `each of these nodes needs ca.pem and its own key as node.pem, owned by root, node.pem with mode 0600:
  scp %[1]s/ca.pem NODE:/etc/dolly-img/keys/
  scp %[1]s/node-NODE.pem NODE:/etc/dolly-img/keys/node.pem
`, dir)
	} else {
		fmt.Fprintf(w, `each node needs ca.pem and node.pem, owned by root, node.pem with mode 0600:
  scp %[1]s/ca.pem %[1]s/node.pem NODE:/etc/dolly-img/keys/
`, dir)
	}
	fmt.Fprintln(w, "this host sends with ca.pem and sender.pem; keep ca.key off the nodes")
	fmt.Fprintf(w, `the machine of dolly-img warm, which keeps caches warm, needs ca.pem and warmer.pem, with mode 0600, in %[2]s:
  scp %[1]s/ca.pem %[1]s/warmer.pem MACHINE:%[2]s/
who only runs dolly-img status needs ca.pem and viewer.pem, with mode 0600, owned by that user
`, dir, warmKeys)
}

// nodeNames returns the hosts in lists of nodes.
func nodeNames(lists []string) ([]string, error) {
	if len(lists) == 0 {
		return nil, nil
	}
	parsed, err := hostlist.Parse(lists, hostlist.Options{})
	if err != nil {
		return nil, &usageError{err: err}
	}
	return hosts(parsed)
}

// hosts returns the names without ports and without repetitions: a certificate is for a host.
func hosts(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		host, _, err := hostlist.SplitPort(name, 0)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	return out, nil
}

func newKeysShow() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the keys, whom they are for, when they end and what is wrong with them",
		Long: `Show prints every certificate with its serial number, and names those that end within 30
days. Beside ca.key it also lists certificates that were issued and are in no file there: keys
that were replaced, or whose file was moved. They are good until they end or are revoked.

Show exits 1 if a key cannot be used: if ca.pem, sender.pem, node.pem, warmer.pem or viewer.pem is
revoked or has ended, or if any file is damaged or open to others. Keys with other names only wait there to be
copied, so show prints a note if one of them is revoked or has ended.`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := identity.Find(dir)
			if err != nil {
				return err
			}
			entries, err := identity.Show(dir)
			if err != nil {
				return err
			}
			return showKeys(cmd.OutOrStdout(), dir, entries)
		},
	}
	addKeysFlag(cmd, &dir)
	return cmd
}

func addKeysFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "keys", "", "`DIR` of the keys (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
}

func showKeys(w io.Writer, dir string, entries []identity.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tROLE\tNAME\tCLUSTER\tFROM\tUNTIL\tSERIAL\tSHA-256")
	bad := 0
	for _, e := range entries {
		file := printable.Line(filepath.Base(e.File))
		if e.File == "" {
			file = "(" + e.State + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", file, orDash(e.Role), orDash(e.Name),
			orDash(e.Cluster), date(e.NotBefore), date(e.NotAfter), orDash(e.Serial), orDash(short(e.Fingerprint)))
		if len(e.Problems) > 0 {
			bad++
		}
	}
	t.Flush()
	for _, e := range entries {
		for _, problem := range e.Problems {
			fmt.Fprintf(w, "bad  %s\n", printable.Line(problem))
		}
		for _, warning := range e.Warnings {
			text := warning.Error()
			if hint := hintOf(warning); hint != "" {
				text += "; " + hint
			}
			fmt.Fprintf(w, "soon %s\n", printable.Line(text))
		}
		for _, note := range e.Notes {
			fmt.Fprintf(w, "note %s (nothing uses it here)\n", printable.Line(note))
		}
	}
	if bad > 0 {
		return fmt.Errorf("keys in %s: %d cannot be used", dir, bad)
	}
	return nil
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02")
}

// short returns the first 16 digits of a fingerprint, in groups, which is enough to compare two by eye.
func short(fingerprint string) string {
	var groups []string
	for len(fingerprint) >= 4 && len(groups) < 4 {
		groups = append(groups, fingerprint[:4])
		fingerprint = fingerprint[4:]
	}
	return strings.Join(groups, " ")
}
