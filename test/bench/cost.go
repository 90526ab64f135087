package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
	"github.com/dolly-img/dolly-img/test/testimage"
)

// value is one line of the results of a part.
type value struct {
	name string
	v    float64
}

// paired measures the program of this tree, and in turn with it the older one if there is one.
func (i *images) paired(measure func(binary string) ([]value, error)) error {
	now, err := measure(i.binary)
	if err != nil {
		return err
	}
	var then []value
	if i.opts.before != "" {
		if then, err = measure(i.opts.before); err != nil {
			return fmt.Errorf("--before: %w", err)
		}
	}
	for k, x := range now {
		i.add(x.name, x.v)
		if then != nil {
			i.add(x.name+", before", then[k].v)
			i.add(x.name+", now to before", x.v/then[k].v)
		}
	}
	return nil
}

// withNodes calls do with a net of n nodes and an empty directory in memory.
func (i *images) withNodes(ctx context.Context, n int, do func(net *netns.Net, dir string) error) error {
	dir, err := os.MkdirTemp(i.dir, "cost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	net, err := netns.New(ctx, netns.Config{Nodes: n})
	if err != nil {
		return err
	}
	defer net.Close()
	return do(net, dir)
}

// used returns the processor time of a process that has ended.
func used(p *netns.Process) float64 {
	return (p.State().UserTime() + p.State().SystemTime()).Seconds()
}

// timed runs a program on a host to its end.
func timed(ctx context.Context, h *netns.Host, program string, args ...string) (seconds, cpu float64, err error) {
	begin := time.Now()
	p, err := netns.Start(h.Command(ctx, program, args...))
	if err != nil {
		return 0, 0, err
	}
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit %d: %s", code, p.Output())
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", program, err)
	}
	return time.Since(begin).Seconds(), used(p), nil
}

// startup measures what five processes cost that have almost nothing to do: four nodes, from their start to their
// end, and a server that sends them 1 kB. The cost of a process before it does anything is that of the command
// version, minus that of starting true in the same place.
func (i *images) startup(ctx context.Context) error {
	const nodes, versions = 4, 20
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return i.paired(func(binary string) (got []value, err error) {
		err = i.withNodes(ctx, nodes, func(net *netns.Net, dir string) error {
			input := filepath.Join(dir, "input")
			if err := os.WriteFile(input, make([]byte, 1000), 0o600); err != nil {
				return err
			}
			list, all, err := daemons{binary: binary, policy: overwrites(dir)}.start(ctx, net, dir)
			if err != nil {
				return err
			}
			seconds, server, err := timed(ctx, net.Server, binary, "raw", "--input", input, "--nodes", list,
				"--keys", filepath.Join(dir, "keys"), "--data", "plain", "--discard", "--quiet")
			if err != nil {
				return err
			}
			ours := 0.0
			for _, p := range all {
				p.Signal(syscall.SIGTERM)
				if _, err := p.Wait(ctx); err != nil {
					return err
				}
				ours += used(p)
			}
			var version, nothing float64
			for range versions {
				_, v, err := timed(ctx, net.Server, binary, "version")
				if err != nil {
					return err
				}
				_, n, err := timed(ctx, net.Server, "true")
				if err != nil {
					return err
				}
				version, nothing = version+v/versions, nothing+n/versions
			}
			got = []value{
				{"1 kB to 4 nodes: CPU-s of all five processes", ours + server},
				{"1 kB to 4 nodes: CPU-s of the server", server},
				{"1 kB to 4 nodes: CPU-s of a node, from start to end", ours / nodes},
				{"1 kB to 4 nodes: CPU-ms of each process before main", 1e3 * (version - nothing)},
				{"1 kB to 4 nodes: seconds", seconds},
			}
			return nil
		})
		return got, err
	})
}

// withoutSHA is the environment of a node whose processor has no SHA instructions.
var withoutSHA = []string{"GODEBUG=cpu.sha=off"}

// hashWord makes this program print the bytes per second that one core of it hashes.
const hashWord = "hash-rate"

func runHash([]string) error {
	b := make([]byte, 1<<20)
	rand.Read(b)
	h := sha256.New()
	begin := time.Now()
	for range 256 {
		h.Write(b)
	}
	_, err := fmt.Printf("%.0f\n", 256*float64(len(b))/time.Since(begin).Seconds())
	return err
}

func hashRate(ctx context.Context, env []string) (float64, error) {
	cmd := exec.CommandContext(ctx, itself(), hashWord)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", hashWord, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// nosha measures a push of an image with eight layers to the cache of one node that has no SHA instructions. The
// server has them.
func (i *images) nosha(ctx context.Context) error {
	const layers, size = 8, 8 * 32 << 20
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	hash, err := hashRate(ctx, withoutSHA)
	if err != nil {
		return err
	}
	return i.paired(func(binary string) (got []value, err error) {
		err = i.withNodes(ctx, 1, func(net *netns.Net, dir string) error {
			layout := filepath.Join(dir, "layout")
			if _, err := testimage.Layout(layout, "v1", testimage.Options{Layers: layers, Size: size}); err != nil {
				return err
			}
			list, _, err := daemons{binary: binary, policy: overwrites(dir), env: withoutSHA}.start(ctx, net, dir)
			if err != nil {
				return err
			}
			seconds, _, err := timed(ctx, net.Server, binary, "push", "oci:"+layout+":v1", "--name", "bench.example/eight:1", "--nodes", list,
				"--keys", filepath.Join(dir, "keys"), "--cache", filepath.Join(dir, "server"), "--data", "plain", "--quiet")
			got = []value{
				{"8 layers of 32 MiB to a node without SHA instructions: MB/s", size / 1e6 / seconds},
				{"8 layers of 32 MiB to a node without SHA instructions: to what one core hashes", size / seconds / hash},
			}
			return err
		})
		return got, err
	})
}

// leaves measures how much faster all cores hash a file in leaves than one of them does.
func (i *images) leaves(ctx context.Context) error {
	const size = 2 << 30
	return i.withNodes(ctx, 1, func(net *netns.Net, dir string) error {
		input := filepath.Join(dir, "input")
		if err := random(input, size); err != nil {
			return err
		}
		cores := runtime.NumCPU()
		var rates []float64
		for _, n := range []int{1, cores} {
			seconds, _, err := timed(ctx, net.Server, "env", fmt.Sprint("GOMAXPROCS=", n), i.binary, "digest", input)
			if err != nil {
				return err
			}
			i.add(fmt.Sprintf("2 GiB in leaves, in memory: MB/s of %d cores", n), size/1e6/seconds)
			rates = append(rates, size/seconds)
		}
		i.add(fmt.Sprintf("2 GiB in leaves, in memory: %d cores to one", cores), rates[1]/rates[0])
		return nil
	})
}

// random makes a file that cannot be compressed.
func random(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Close()
}
