package main

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// sparseSize is the size in bytes of the images that sparse measures. Every tenth run of sparseRun bytes has data in the
// sparse one, on the average: which of ten it is differs from one ten to the next.
const (
	sparseSize = 4 << 30
	sparseRun  = 1 << 20
)

// sparse measures the transfer of an image of which a tenth is data, in scattered runs, to four nodes, beside that of an image
// without zeros, and what the sparse one takes on a node.
func (i *images) sparse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return i.paired(func(binary string) (got []value, err error) {
		err = i.withNodes(ctx, imageNodes, func(net *netns.Net, dir string) error {
			list, all, err := daemons{binary: binary, policy: overwrites(dir)}.start(ctx, net, dir)
			defer func() {
				for _, p := range all {
					p.Kill()
				}
			}()
			if err != nil {
				return err
			}
			push := func(input, to string, sink ...string) (seconds float64, sent int64, err error) {
				before, err := net.Server.Traffic(ctx)
				if err != nil {
					return 0, 0, err
				}
				args := []string{"raw", "--input", input, "--nodes", to, "--keys", filepath.Join(dir, "keys"), "--data", "plain", "--quiet"}
				if seconds, _, err = timed(ctx, net.Server, binary, append(args, sink...)...); err != nil {
					return 0, 0, err
				}
				after, err := net.Server.Traffic(ctx)
				return seconds, after.Sent - before.Sent, err
			}
			input := filepath.Join(dir, "input")
			if err := random(input, sparseSize); err != nil {
				return err
			}
			full, _, err := push(input, list, "--discard")
			if err != nil {
				return err
			}
			if err := scattered(input); err != nil {
				return err
			}
			quick, sent, err := push(input, list, "--discard")
			if err != nil {
				return err
			}
			// One node, because all of them see the same directory.
			kept, _, err := push(input, net.Nodes[0].Addr.String(), "--output", filepath.Join(dir, "kept"))
			if err != nil {
				return err
			}
			info, err := os.Stat(filepath.Join(dir, "kept"))
			if err != nil {
				return err
			}
			got = []value{
				{"4 GiB without zeros to four nodes that discard it: seconds", full},
				{"4 GiB, a tenth of it data: seconds", quick},
				{"4 GiB, a tenth of it data: time to that without zeros", quick / full},
				{"4 GiB, a tenth of it data: bytes that the server sent to the size", float64(sent) / sparseSize},
				{"4 GiB, a tenth of it data, to one node that keeps it: seconds", kept},
				{"4 GiB, a tenth of it data: blocks on a node to the size", float64(info.Sys().(*syscall.Stat_t).Blocks) * 512 / sparseSize},
			}
			return nil
		})
		return got, err
	})
}

// scattered makes a file anew as one of sparseSize of which a tenth is data.
func scattered(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, sparseRun)
	for k := int64(0); k+10 <= sparseSize/sparseRun; k += 10 {
		rand.Read(buf)
		if _, err := f.WriteAt(buf, (k+k*k/10%10)*sparseRun); err != nil {
			return err
		}
	}
	if err := f.Truncate(sparseSize); err != nil {
		return err
	}
	return f.Close()
}
