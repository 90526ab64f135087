package netns

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// AnonMemory returns how much memory a process holds that no file backs, in bytes.
func AnonMemory(pid int) (bytes int64, err error) { return status(pid, "RssAnon") }

// PeakMemory returns the most memory that a process has held, of files as well, in bytes.
func PeakMemory(pid int) (bytes int64, err error) { return status(pid, "VmHWM") }

// status is an amount of memory that the kernel tells of a process.
func status(pid int, name string) (bytes int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no %s", pid, name)
}

// Switches returns how often the present threads of a process gave up a processor or lost it.
func Switches(pid int) (n int64, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	if len(tasks) == 0 {
		return 0, fmt.Errorf("process %d: no threads", pid)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // The thread has ended meanwhile.
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			if name != "voluntary_ctxt_switches" && name != "nonvoluntary_ctxt_switches" {
				continue
			}
			count, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", task, err)
			}
			n += count
		}
	}
	return n, nil
}

// Processor returns the model of the machine's processors as the kernel names it, and how many there are.
func Processor() (model string, n int, err error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			n++
		case "model name", "Model", "cpu model": // of x86; others say it elsewhere or not at all
			model = strings.TrimSpace(value)
		}
	}
	return model, n, nil
}

// OpenFiles counts a process's descriptors.
func OpenFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// CPU returns the processor time, user and system, that a running process has used. The kernel counts
// it here in ticks of 10 ms.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, which may hold anything.
	s := string(b)
	fields := strings.Fields(s[strings.LastIndex(s, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: %d fields in stat", pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil
}

// Listening waits until a socket of the process's host is bound to the port. Network is
// "tcp" or "udp". It asks again and again, because some programs print nothing when they are
// ready.
func Listening(ctx context.Context, p *Process, network string, port int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	local := fmt.Sprintf(":%04X", port)
	for {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.Pid(), network))
		b6, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s6", p.Pid(), network))
		for line := range strings.Lines(string(b) + string(b6)) {
			f := strings.Fields(line)
			// sl local_address rem_address st; 0A is LISTEN.
			if len(f) > 3 && strings.HasSuffix(f[1], local) && (network == "udp" || f[3] == "0A") {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("%s ended: %s", p.name(), p.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on %s port %d: %w", p.name(), network, port, context.Cause(ctx))
		}
	}
}
