package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// oneCore binds this process, and all that it starts from now on, to one of the cores that it may use now,
// until restore is called.
func oneCore() (restore func(), err error) {
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return nil, fmt.Errorf("which cores: %w", err)
	}
	for core := 0; one.Count() == 0 && core < 1024; core++ {
		if was.IsSet(core) {
			one.Set(core)
		}
	}
	return func() { _ = setAffinity(&was) }, setAffinity(&one)
}

// setAffinity is for each thread there is: a new one has what the one that makes it has.
func setAffinity(set *unix.CPUSet) error {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("bind to cores: %w", err)
		}
	}
	return nil
}

// loopWord makes this program a busy loop for so long as its argument says and standard input is open. The
// second ends it when the program that started it does, however that ends.
const loopWord = "busy-loop"

func runLoop(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want DURATION")
	}
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for end := time.Now().Add(limit); time.Now().Before(end); {
	}
	return nil
}

// startLoad starts n busy loops, which end at the latest after limit, and returns how to end them.
func startLoad(ctx context.Context, n int, limit time.Duration) (end func(), err error) {
	var loops []*exec.Cmd
	end = func() {
		for _, l := range loops {
			_ = l.Process.Kill()
			_ = l.Wait()
		}
	}
	for range n {
		l := exec.CommandContext(ctx, itself(), loopWord, limit.String())
		l.Stderr = os.Stderr
		if _, err = l.StdinPipe(); err == nil {
			err = l.Start()
		}
		if err != nil {
			end()
			return nil, err
		}
		loops = append(loops, l)
	}
	return end, nil
}
