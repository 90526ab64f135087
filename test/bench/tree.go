package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// treeFrom is a directory of many files on most machines, of which tree copies directories until it has treeNames names.
const (
	treeFrom  = "/usr/share"
	treeNames = 20_000
)

// tree measures the transfer of a directory of 20,000 files and more to four nodes, beside tar on each of them behind a chain
// of mbuffer, in memory. The chain compares nothing, and replaces nothing.
func (i *images) tree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	return i.paired(func(binary string) (got []value, err error) {
		err = i.withNodes(ctx, imageNodes, func(net *netns.Net, dir string) error {
			input, out := filepath.Join(dir, "input"), filepath.Join(dir, "out")
			names, bytes, err := copyTree(ctx, net.Server, input)
			if err != nil {
				return err
			}
			if err := os.Mkdir(out, 0o755); err != nil {
				return err
			}
			for _, h := range net.Nodes {
				own := filepath.Join(dir, "own-"+h.Name)
				if err := os.Mkdir(own, 0o755); err != nil {
					return err
				}
				h.Mounts = []netns.Mount{netns.Bind(own, out)}
			}
			chain, err := tarChain(ctx, net, input, out)
			if err != nil {
				return err
			}
			policy := fmt.Sprintf("[[output]]\ndir = %q\noverwrite = true\ndirectories = true\n[data]\nplain = true\n", out)
			list, all, err := daemons{binary: binary, policy: policy}.start(ctx, net, dir)
			defer func() {
				for _, p := range all {
					p.Kill()
				}
			}()
			if err != nil {
				return err
			}
			before, err := cpu(all)
			if err != nil {
				return err
			}
			args := []string{"XDG_CACHE_HOME=" + dir, binary, "raw", input + "/", "--output", filepath.Join(out, "tree"),
				"--nodes", list, "--keys", filepath.Join(dir, "keys"), "--data", "plain", "--quiet"}
			first, _, err := timed(ctx, net.Server, "env", args...)
			if err != nil {
				return err
			}
			after, err := cpu(all)
			if err != nil {
				return err
			}
			again, _, err := timed(ctx, net.Server, "env", args...)
			got = []value{
				{"directory: names", float64(names)},
				{"directory: MB of its files", float64(bytes) / 1e6},
				{"directory to four nodes: seconds", first},
				{"directory to four nodes: CPU seconds of all nodes", (after - before).Seconds()},
				{"tar | mbuffer chain | tar: seconds", chain},
				{"directory: time to that of the chain", first / chain},
				{"the same directory again (held): seconds", again},
			}
			return err
		})
		return got, err
	})
}

// copyTree copies directories until there are enough names, and returns how many those are, and the bytes of the files.
func copyTree(ctx context.Context, host *netns.Host, to string) (names, bytes int64, err error) {
	if err := os.Mkdir(to, 0o755); err != nil {
		return 0, 0, err
	}
	dirs, err := os.ReadDir(treeFrom)
	if err != nil {
		return 0, 0, err
	}
	for _, d := range dirs {
		if names >= treeNames {
			return names, bytes, nil
		}
		if err := succeed(ctx, host, "cp", "-a", filepath.Join(treeFrom, d.Name()), to); err != nil {
			return 0, 0, err
		}
		err := filepath.WalkDir(filepath.Join(to, d.Name()), func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			names++
			info, err := e.Info()
			if err == nil && info.Mode().IsRegular() {
				bytes += info.Size()
			}
			return err
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, fmt.Errorf("%s has %d names only, %d are wanted", treeFrom, names, treeNames)
}

// tarChain sends a directory through a chain of mbuffer to tar on every node, and returns the seconds until all have ended.
func tarChain(ctx context.Context, net *netns.Net, input, out string) (seconds float64, err error) {
	var all []*netns.Process
	defer func() {
		for _, p := range all {
			p.Kill()
		}
	}()
	for i := len(net.Nodes) - 1; i >= 0; i-- {
		pass := ""
		if i+1 < len(net.Nodes) {
			pass = "-O " + net.Nodes[i+1].Addr.String() + ":9600"
		}
		script := fmt.Sprintf("mkdir %[1]s/tar && mbuffer -q -s 1M -m 64M -I 9600 %[2]s -o - | tar -C %[1]s/tar -xpf - --xattrs --acls", out, pass)
		p, err := netns.Start(net.Nodes[i].Command(ctx, "sh", "-c", script))
		if err != nil {
			return 0, err
		}
		all = append(all, p)
		if err := netns.Listening(ctx, p, "tcp", 9600); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	server, err := netns.Start(net.Server.Command(ctx, "sh", "-c",
		fmt.Sprintf("tar -C %s -cf - --xattrs --acls . | mbuffer -q -s 1M -m 64M -O %s:9600", input, net.Nodes[0].Addr)))
	if err != nil {
		return 0, err
	}
	all = append(all, server)
	for _, p := range all {
		if code, err := p.Wait(ctx); err != nil || code != 0 {
			return 0, fmt.Errorf("tar and mbuffer: %d, %v: %s", code, err, p.Output())
		}
	}
	return time.Since(begin).Seconds(), nil
}
