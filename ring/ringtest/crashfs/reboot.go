package crashfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Choice picks one of n possible states of a file or entry after a power loss.
// 0 is the durable one, n-1 the newest.
type Choice func(n int) int

// Oldest keeps what was durable, Newest keeps everything.
var (
	Oldest Choice = func(int) int { return 0 }
	Newest Choice = func(n int) int { return n - 1 }
)

// Random chooses by chance, in the same way for the same seed.
func Random(seed uint64) Choice {
	r := rand.New(rand.NewPCG(seed, seed))
	return func(n int) int { return r.IntN(n) }
}

// Reboot returns the file system after a power loss now. For each directory entry
// that is not durable, names picks among the durable one and those that came
// later. For each file that is not durable, bytes picks among its durable
// content, zeros in its newest length, a part of the newest content, and all of
// it. Handles of f go on in f.
func (f *FS) Reboot(names, bytes Choice) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &FS{disk: &disk{inode: f.inode, clock: f.clock}}
	r := reboot{names, bytes, map[*node]*node{}}
	g.root = r.node(f.root)
	return g
}

type reboot struct {
	names, bytes Choice
	done         map[*node]*node
}

func (r reboot) node(old *node) *node {
	if n := r.done[old]; n != nil {
		n.nlink++
		return n
	}
	n := &node{ino: old.ino, mode: old.mode, nlink: 1, mtime: old.mtime, ctime: old.ctime}
	r.done[old] = n
	if !old.mode.IsDir() {
		n.data = r.content(old)
		n.durable = n.data
		return n
	}
	n.entries, n.entriesLog = map[string]*node{}, map[string][]*node{}
	survive := maps.Clone(old.entries)
	for _, name := range slices.Sorted(maps.Keys(old.entriesLog)) {
		states := old.entriesLog[name]
		survive[name] = states[r.names(len(states))]
	}
	for _, pair := range slices.Backward(old.exchanged) {
		if r.names(2) == 0 {
			a, b := pair[0], pair[1]
			survive[a], survive[b] = survive[b], survive[a]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(survive)) {
		if child := survive[name]; child != nil {
			n.entries[name] = r.node(child)
		}
	}
	return n
}

func (r reboot) content(old *node) []byte {
	if slices.Equal(old.data, old.durable) {
		return old.data
	}
	const states = 4
	switch r.bytes(states) {
	case 0:
		return old.durable
	case 1:
		return make([]byte, len(old.data))
	case 2:
		return old.data[:len(old.data)/2]
	}
	return old.data
}

// Sweep proves that work survives. It runs work once to count its operations. Then,
// for every n, it runs work once with a failure of the n-th operation, and once with
// a power loss before it. After each it judges what is left in several ways of
// losing the power.
//
// setup makes the file system on which work begins. work cleans up after itself as a
// living process does. check gets what is left, and what work returned.
func Sweep(setup func() (*FS, error), work func(*FS) error, check func(*FS, error) error) error {
	fs, err := setup()
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	before := fs.Ops()
	if err := work(fs); err != nil {
		return fmt.Errorf("undisturbed: %w", err)
	}
	total := fs.Ops() - before
	if total == 0 {
		return fmt.Errorf("no operations")
	}
	for n := 1; n <= total+1; n++ {
		for _, crash := range []bool{false, true} {
			if err := sweepAt(n, crash, setup, work, check); err != nil {
				return fmt.Errorf("of %d operations: %w", total, err)
			}
		}
	}
	return nil
}

func sweepAt(n int, crash bool, setup func() (*FS, error), work func(*FS) error, check func(*FS, error) error) error {
	fs, err := setup()
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	what := fmt.Sprintf("the %d. fails", n)
	if crash {
		what = fmt.Sprintf("power lost before the %d.", n)
		fs.CrashAt(n)
	} else {
		fs.FailAt(n)
	}
	worked := work(fs)
	fs.FailAt(0) // it was used, or is never to be
	for _, c := range choices(uint64(n)) {
		if err := check(fs.Reboot(c.names, c.bytes), worked); err != nil {
			return fmt.Errorf("%s (work returned %v), after a power loss (%s): %w", what, worked, c.name, err)
		}
	}
	if crash {
		return nil
	}
	if err := check(fs, worked); err != nil {
		return fmt.Errorf("%s (work returned %v): %w", what, worked, err)
	}
	return nil
}

type choice struct {
	name         string
	names, bytes Choice
}

func choices(seed uint64) []choice {
	zeros := func(int) int { return 1 }
	list := []choice{
		{"all that was not durable", Oldest, Oldest},
		{"bytes but not names", Newest, Oldest},
		{"bytes became zeros", Newest, zeros},
		{"names but not bytes", Oldest, Newest},
		{"nothing", Newest, Newest},
	}
	for i := range uint64(6) {
		r := Random(seed<<8 + i)
		list = append(list, choice{fmt.Sprintf("some, seed %d", seed<<8+i), r, r})
	}
	return list
}
