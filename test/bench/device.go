package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// device measures the sink of a node that writes to a block device, beside dd with the same bytes in the same run, by the
// benchmark that its package has, because only a node has such a sink; and the same through the ring.
func (i *images) device(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkBesideDD$", "-benchtime", "3x",
		"github.com/dolly-img/dolly-img/ring/raw/device").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	names := map[string]string{
		"dd-MB/s":   "1 GiB to a loop device over a tmpfs: MB/s of dd oflag=direct bs=4M",
		"sink-MB/s": "1 GiB to a loop device over a tmpfs: MB/s of the sink",
		"ratio":     "1 GiB to a loop device over a tmpfs: sink to dd",
	}
	found := 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		for k := 1; k < len(fields); k++ {
			name := names[fields[k]]
			if name == "" {
				continue
			}
			v, err := strconv.ParseFloat(fields[k-1], 64)
			if err != nil {
				return err
			}
			i.add(name, v)
			found++
		}
	}
	if found != len(names) {
		return fmt.Errorf("the benchmark gave %d values of %d:\n%s", found, len(names), out)
	}
	for _, nodes := range []int{1, imageNodes} {
		if err := i.deviceRing(ctx, nodes); err != nil {
			return err
		}
	}
	return nil
}

// ringSize is how many bytes deviceRing sends: each node has as many in memory.
const ringSize = 512 << 20

// deviceRing measures a transfer to a loop device of each node, over a file in memory, beside dd with the same bytes to one of them.
func (i *images) deviceRing(ctx context.Context, nodes int) error {
	return i.withNodes(ctx, nodes, func(net *netns.Net, dir string) error {
		input := filepath.Join(dir, "input")
		if err := random(input, ringSize); err != nil {
			return err
		}
		var disks loops
		defer disks.close()
		var policies []string
		for k := range nodes {
			file := filepath.Join(dir, fmt.Sprint("disk", k))
			if err := hollow(file, ringSize+8<<20); err != nil {
				return err
			}
			device, err := disks.attach(ctx, file, place{memory: true})
			if err != nil {
				return err
			}
			policies = append(policies, fmt.Sprintf("[[device]]\nname = \"system\"\npath = %q\n[data]\nplain = true\n", device))
		}
		list, all, err := daemons{binary: i.binary, own: policies, env: []string{"DOLLY_IMG_TEST_LOOPS_BELOW=" + dir}}.start(ctx, net, dir)
		defer func() {
			for _, p := range all {
				p.Kill()
				p.Wait(context.Background())
			}
		}()
		if err != nil {
			return err
		}
		rate := func(program string, args ...string) (float64, error) {
			seconds, _, err := timed(ctx, net.Server, program, args...)
			return ringSize / 1e6 / seconds, err
		}
		push := []string{"raw", "--input", input, "--nodes", list, "--keys", filepath.Join(dir, "keys"), "--data", "plain", "--quiet",
			"--output", "device:system", "--yes-overwrite", fmt.Sprint(nodes)}
		if _, err := rate(i.binary, push...); err != nil { // so that the files have their blocks
			return err
		}
		dd, err := rate("dd", "if="+input, "of="+disks.devices[0], "oflag=direct", "bs=4M", "conv=fsync,notrunc", "status=none")
		if err != nil {
			return err
		}
		ring, err := rate(i.binary, push...)
		if err != nil {
			return err
		}
		unread, err := rate(i.binary, append(push, "--verify", "none")...)
		if err != nil {
			return err
		}
		to := fmt.Sprintf("512 MiB through the ring to the loop devices of %d nodes: ", nodes)
		for _, v := range []value{{"MB/s of dd to one of them", dd}, {"MB/s", ring}, {"to dd", ring / dd}, {"MB/s with --verify none", unread}} {
			i.add(to+v.name, v.v)
		}
		return nil
	})
}
