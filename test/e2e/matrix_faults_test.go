package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// scene is a row of the matrix that is being played.
type scene struct {
	*rig
	victims []*node
	push    *push         // nil before it began
	stopped time.Duration // for how long victims were to be stopped
	stood   time.Duration // and for how long one of them read nothing then
}

// act does something to a scene.
type act func(ctx context.Context, s *scene) error

func each(do func(ctx context.Context, n *node) error) act {
	return eachOf(func(ctx context.Context, _ *scene, n *node) error { return do(ctx, n) })
}

func eachOf(do func(ctx context.Context, s *scene, n *node) error) act {
	return func(ctx context.Context, s *scene) error {
		for _, n := range s.victims {
			if err := do(ctx, s, n); err != nil {
				return err
			}
		}
		return nil
	}
}

// then does one thing after the other.
func then(acts ...act) act {
	return func(ctx context.Context, s *scene) error {
		for _, a := range acts {
			if err := a(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// told waits until the server has said so of every victim.
func told(state string) act {
	return func(ctx context.Context, s *scene) error {
		for _, n := range s.victims {
			if _, err := s.push.process.Line(ctx, fmt.Sprintf(`"node":%q,"state":%q`, n.name(), state)); err != nil {
				return err
			}
		}
		return nil
	}
}

// has waits until so many bytes have come in at every victim.
func has(bytes int64) act {
	return eachOf(func(ctx context.Context, s *scene, n *node) error { return s.until(ctx, n, received, bytes) })
}

// until waits until a count of a node's has come so far.
func (s *scene) until(ctx context.Context, n *node, count func(*node) (int64, error), far int64) error {
	tick := time.NewTicker(10 * time.Millisecond) // nothing tells us
	defer tick.Stop()
	for {
		if got, err := count(n); err != nil || got >= far {
			return err
		}
		select {
		case <-tick.C:
		case <-s.push.process.Done():
			return errors.New("the push was over before: " + s.push.process.Output())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stoppedFor stops the victims for so long, once each of them reads what comes, and notes how long one really read
// nothing: on a starved machine that is longer.
func stoppedFor(d time.Duration) act {
	const moves = 500_000 // more than what is not of the transfer
	return eachOf(func(ctx context.Context, s *scene, n *node) error {
		before, err := hasRead(n)
		if err == nil {
			err = s.until(ctx, n, hasRead, before+moves)
		}
		if err != nil {
			return err
		}
		s.stopped = d
		begin := time.Now()
		n.daemon.Signal(syscall.SIGSTOP)
		select {
		case <-time.After(d): // the fault itself
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if before, err = hasRead(n); err != nil {
			return err
		}
		n.daemon.Signal(syscall.SIGCONT)
		err = s.until(ctx, n, hasRead, before+moves)
		s.stood = max(s.stood, time.Since(begin))
		return err
	})
}

// hasRead is how many bytes the daemon has read, from wherever.
func hasRead(n *node) (read int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", n.daemon.Pid()))
	if err == nil {
		_, err = fmt.Sscanf(string(text), "rchar: %d", &read)
	}
	return read, err
}

func signal(sig os.Signal) act {
	return each(func(_ context.Context, n *node) error { n.daemon.Signal(sig); return nil })
}

var (
	killed   = each(func(_ context.Context, n *node) error { n.kill(); return nil })
	started  = each(func(_ context.Context, n *node) error { n.start(); return nil })
	stopped  = signal(syscall.SIGSTOP)
	thawed   = signal(syscall.SIGCONT)
	cut      = each(func(ctx context.Context, n *node) error { return n.Unplug(ctx) })
	replaced = each(func(ctx context.Context, n *node) error { return n.Plug(ctx) })
)

// between is whom a fault is between: the one that sends to the victim, or the server.
type between func(s *scene, victim *node) *netns.Host

func before(s *scene, victim *node) *netns.Host {
	if i := slices.Index(s.nodes, victim); i > 0 {
		return s.nodes[i-1].Host
	}
	return s.net.Server
}

func server(s *scene, _ *node) *netns.Host { return s.net.Server }

// deaf has the victims hear nothing from the other, mute the other nothing from the victims.
func deaf(other between) act {
	return eachOf(func(ctx context.Context, s *scene, n *node) error { return n.Block(ctx, other(s, n)) })
}

func mute(other between) act {
	return eachOf(func(ctx context.Context, s *scene, n *node) error { return other(s, n).Block(ctx, n.Host) })
}

// reset ends the victims' connections with the other, as a firewall that forgot them does:
// both ends are told.
func reset(other between) act {
	return eachOf(func(ctx context.Context, s *scene, n *node) error {
		out, err := n.Command(ctx, "ss", "-K", "-t", "-n", "-H", "dst", other(s, n).Addr.String()).CombinedOutput()
		if err == nil && len(strings.TrimSpace(string(out))) == 0 {
			err = errors.New("no connection was reset (kernel without CONFIG_INET_DIAG_DESTROY?)")
		}
		if err != nil {
			return fmt.Errorf("ss -K: %w: %s", err, out)
		}
		return nil
	})
}

// slowLink makes the victims' cables so many bytes per second slow.
func slowLink(rate int64) act {
	return each(func(ctx context.Context, n *node) error { return n.Shape(ctx, 8*rate) })
}

// damage puts somebody before the victims that changes bytes, so many times.
func damage(kind string, times int64) act {
	return each(func(_ context.Context, n *node) error { n.damaged(kind, 30_000_000, times); return nil })
}

const always = 1 << 40

// traced has the daemons start under strace, which interferes with the system calls it
// is told of and, by a filter in the kernel, is not even called for others. -D makes the
// daemon our child and strace its own.
func traced(calls, inject string) act {
	return each(func(_ context.Context, n *node) error { n.traced(calls, inject); return nil })
}

func (n *node) traced(calls, inject string) {
	n.wrap = []string{"strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null",
		"-e", "trace=" + calls, "-e", "inject=" + calls + ":" + inject}
}

// slowDisk makes every write take so much longer; a write is of one frame.
func slowDisk(d time.Duration) act {
	return each(func(_ context.Context, n *node) error { n.slowWrites(d); return nil })
}

func (n *node) slowWrites(d time.Duration) {
	n.traced("pwrite64", fmt.Sprintf("delay_exit=%d", d.Microseconds()))
}

// failing makes system calls of the running daemons fail from now on.
func failing(calls, errno string) act {
	return func(ctx context.Context, s *scene) error {
		for _, n := range s.victims {
			p, err := netns.Start(n.Command(ctx, "strace", "-f", "-o", "/dev/null", "-p", fmt.Sprint(n.daemon.Pid()),
				"-e", "trace="+calls, "-e", "inject="+calls+":error="+errno))
			if err != nil {
				return err
			}
			s.t.Cleanup(p.Kill)
			if _, err := p.Line(ctx, "attached"); err != nil {
				return err
			}
		}
		return nil
	}
}

// smallDisk gives the victims an output directory of so many bytes, on which nothing can be
// reserved: as on file systems that do not know how.
func smallDisk(size int64) act {
	return then(traced("fallocate", "error=EOPNOTSUPP"), func(_ context.Context, s *scene) error {
		for _, n := range s.victims {
			n.Mounts = []netns.Mount{netns.Tmpfs(s.data, size)}
		}
		return nil
	})
}

// filled is somebody else who needs all the room there is.
func filled(_ context.Context, s *scene) error {
	for _, n := range s.victims {
		f, err := os.Create(filepath.Join(fmt.Sprintf("/proc/%d/root", n.daemon.Pid()), s.data, "other"))
		if err != nil {
			return err
		}
		for b := make([]byte, 1<<20); err == nil; {
			_, err = f.Write(b)
		}
		f.Close()
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

// slowProcessor leaves the victims so much of one processor. Where control groups cannot
// be made, they are stopped for the rest of each tenth of a second.
func slowProcessor(share float64) act {
	return func(ctx context.Context, s *scene) error {
		for _, n := range s.victims {
			if err := n.confine(share); err == nil {
				continue
			}
			s.t.Log("no control groups: stopping and continuing instead")
			go func() {
				const period = 100 * time.Millisecond
				for tick := time.NewTicker(period); ; {
					n.daemon.Signal(syscall.SIGCONT)
					select {
					case <-time.After(time.Duration(share * float64(period))):
					case <-n.daemon.Done():
						return
					}
					n.daemon.Signal(syscall.SIGSTOP)
					<-tick.C
				}
			}()
		}
		return nil
	}
}

// confine puts the daemon into a control group of its own, of version 1 or 2.
func (n *node) confine(share float64) error {
	const root, period = "/sys/fs/cgroup", 100_000
	parent := filepath.Join(root, "cpu")
	if _, err := os.Stat(parent); err != nil {
		parent = root
	}
	dir, err := os.MkdirTemp(parent, "dimg-")
	if err != nil {
		return err
	}
	n.rig.t.Cleanup(func() {
		n.kill() // a group with somebody in it cannot be removed
		if err := syscall.Rmdir(dir); err != nil {
			n.rig.t.Errorf("control group: %v", err)
		}
	})
	file, text := "cpu.cfs_quota_us", fmt.Sprint(int(share*period))
	if parent == root {
		file, text = "cpu.max", fmt.Sprint(text, " ", period)
	}
	if err := write(filepath.Join(dir, file), text); err != nil {
		return err
	}
	return write(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(n.daemon.Pid()))
}

// write is for files that the kernel makes.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = strings.NewReader(text).WriteTo(f)
	return errors.Join(err, f.Close())
}
