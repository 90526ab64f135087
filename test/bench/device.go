package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// device measures the sink of a node that writes to a block device, beside dd with the same bytes in the same run: the
// benchmark that its package has, because only a node has such a sink.
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
	return nil
}
