package e2e

import "time"

const (
	gone   = "lost during the transfer"
	silent = "silent"

	damagedFrame = "frame was damaged on the link"
)

// failed are the states of nodes that cannot be served.
func failed(at ...int) map[int]string {
	m := map[int]string{}
	for _, i := range at {
		m[i] = "failed"
	}
	return m
}

// slowCosts is what one slow node may cost the others: 6 s is what the ring is made for, and
// two rows at once, on processors that may have other work, take a little more.
const slowCosts = 8 * time.Second

// traceCosts is for rows in which strace joins a running daemon: it holds up its every call.
const traceCosts = 10 * time.Second

// Behind a slow link move 50 MB, at a tenth of the others' 25 MB/s. A node whose disk or
// processor is slow first fills its window of 32 MiB: it gets more, and is a little faster.
const (
	slowRate  = 25e6
	tenth     = slowRate / 10
	linkSize  = 50e6
	nodeSize  = 100e6
	diskDelay = 40 * time.Millisecond // for each write, of 250 KB, 10 ms of the rate, at the most: 6 MB/s
	share     = 0.02                  // of a processor
)

// From 64 MiB on a file travels in leaves, which is how a changed byte is found before the file's end.
const (
	leavesSize = 68e6
	leavesRate = 2 * matrixRate
)

// A node goes away when it has backAt of backSize bytes. What it has not stored by then comes
// again: at most the mark it is in, and what its window holds, as for any loss.
const (
	backAt      = 40e6
	backSize    = 80e6
	returnCosts = 36 << 20
)

var matrix = []*fault{
	{name: "kill", where: "first", do: killed, at: []int{0}, states: failed(0), reason: gone, exit: 3, within: 3 * time.Second},
	{name: "kill", where: "middle", elsewhere: true, do: killed, at: []int{3}, states: failed(3), reason: gone, exit: 3, within: 3 * time.Second},
	{name: "kill", where: "last", elsewhere: true, do: killed, at: []int{7}, states: failed(7), reason: gone, exit: 3, within: 3 * time.Second},
	{name: "kill", where: "three adjacent", do: killed, at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: gone, exit: 3, within: 3 * time.Second},
	{name: "kill", where: "half", elsewhere: true, do: killed, at: []int{0, 2, 4, 6}, states: failed(0, 2, 4, 6), reason: gone, exit: 3, within: 3 * time.Second},
	{name: "kill, start again", where: "middle", do: then(has(backAt), killed, started), back: backAt, size: backSize, at: []int{3}, reason: "came back", within: 8 * time.Second},
	{name: "up late", where: "middle", early: killed, do: started, at: []int{3}, late: true, within: 8 * time.Second},

	{name: "stop", where: "first", elsewhere: true, do: stopped, at: []int{0}, states: failed(0), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "stop", where: "middle", elsewhere: true, do: stopped, at: []int{3}, states: failed(3), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "stop", where: "last", elsewhere: true, do: stopped, at: []int{7}, states: failed(7), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "stop", where: "three adjacent", elsewhere: true, do: stopped, at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "stop", where: "half", do: stopped, at: []int{0, 2, 4, 6}, states: failed(0, 2, 4, 6), reason: silent, exit: 3, within: 8 * time.Second},
	{name: "stop for 2 s", where: "middle", do: stoppedFor(2 * time.Second), at: []int{3}, within: 4 * time.Second},
	{name: "stop until lost, thaw", where: "middle", do: then(has(backAt), stopped, told("lost"), thawed), back: backAt, size: backSize, at: []int{3}, reason: "came back", within: 12 * time.Second},

	{name: "cut", where: "first", elsewhere: true, do: cut, at: []int{0}, states: failed(0), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "cut", where: "middle", elsewhere: true, do: cut, at: []int{3}, states: failed(3), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "cut", where: "last", do: cut, at: []int{7}, states: failed(7), reason: silent, exit: 3, within: 7 * time.Second},
	{name: "cut", where: "three adjacent", elsewhere: true, do: cut, at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: silent, exit: 3, within: 8 * time.Second},
	{name: "cut", where: "half", elsewhere: true, do: cut, at: []int{1, 3, 5, 7}, states: failed(1, 3, 5, 7), reason: silent, exit: 3, within: 8 * time.Second},
	{name: "cut until lost, plug in", where: "middle", do: then(has(backAt), cut, told("lost"), replaced), back: backAt, size: backSize, at: []int{3}, reason: "came back", within: 12 * time.Second},

	{name: "link cut", where: "middle", do: then(deaf(before), mute(before)), at: []int{3}, link: "2>3", reason: "link", within: 8 * time.Second},
	{name: "link cut one way", where: "middle", elsewhere: true, do: deaf(before), at: []int{3}, link: "2>3", reason: "link", within: 8 * time.Second},
	{name: "link cut one way", where: "two adjacent", do: deaf(before), at: []int{3, 4}, link: "2>3 3>4", reason: "link", within: 12 * time.Second},
	{name: "link cut the other way", where: "last", do: mute(before), at: []int{7}, link: "6>7", reason: "link", within: 8 * time.Second},
	{name: "link reset", where: "middle", do: reset(before), at: []int{3}, link: "2>3", reason: "link", within: 2 * time.Second},
	{name: "link and control cut one way", where: "to the first", do: deaf(server), at: []int{0}, states: failed(0), reason: silent, exit: 3, within: 9 * time.Second},
	{name: "control cut one way", where: "to three adjacent", do: deaf(server), at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: silent, exit: 3, within: 8 * time.Second},
	{name: "control cut one way", where: "to the middle", elsewhere: true, do: deaf(server), at: []int{3}, states: failed(3), reason: silent, exit: 3, within: 8 * time.Second},
	{name: "control cut one way", where: "from the last", do: mute(server), at: []int{7}, states: failed(7), reason: silent, exit: 3, within: 8 * time.Second},

	{name: "slow link, --straggler drop", where: "first", early: slowLink(tenth / 2), at: []int{0}, states: failed(0), cause: "link", link: "S>0", exit: 3, within: slowCosts, size: 125e6, rate: slowRate, flags: []string{"--straggler", "drop"}},
	{name: "slow link, --straggler wait", where: "middle", early: slowLink(tenth), at: []int{3}, within: 10 * time.Second, size: 20e6, rate: slowRate, flags: []string{"--straggler", "wait"}},
	{name: "slow link", where: "middle", early: slowLink(tenth), at: []int{3}, cause: "link", link: "2>3", behind: true, within: slowCosts, size: linkSize, rate: slowRate},
	{name: "slow link", where: "last", elsewhere: true, early: slowLink(tenth), at: []int{7}, cause: "link", link: "6>7", behind: true, within: slowCosts, size: linkSize, rate: slowRate},
	{name: "slow disk", where: "first", elsewhere: true, prepare: slowDisk(diskDelay), at: []int{0}, cause: "disk", behind: true, within: slowCosts, size: nodeSize, rate: slowRate},
	{name: "slow disk", where: "middle", elsewhere: true, prepare: slowDisk(diskDelay), at: []int{3}, cause: "disk", behind: true, within: slowCosts, size: nodeSize, rate: slowRate},
	{name: "slow disk", where: "last", elsewhere: true, prepare: slowDisk(diskDelay), at: []int{7}, cause: "disk", behind: true, within: slowCosts, size: nodeSize, rate: slowRate},
	{name: "slow disk", where: "two nodes", prepare: slowDisk(diskDelay), at: []int{2, 5}, cause: "disk", behind: true, within: 2 * slowCosts, size: 1.25 * nodeSize, rate: slowRate},
	{name: "slow processor", where: "middle", elsewhere: true, early: slowProcessor(share), at: []int{3}, cause: "processor", behind: true, within: slowCosts, size: nodeSize, rate: slowRate},
	{name: "slow processor", where: "last", early: slowProcessor(share), at: []int{7}, cause: "processor", behind: true, within: slowCosts, size: nodeSize, rate: slowRate},

	{name: "disk full", where: "middle", elsewhere: true, prepare: smallDisk(matrixSize * 1.1), do: filled, at: []int{3}, states: failed(3), reason: "no space left", clean: true, exit: 3, within: 2 * time.Second},
	{name: "disk full", where: "first", elsewhere: true, prepare: smallDisk(matrixSize * 1.1), do: filled, at: []int{0}, states: failed(0), reason: "no space left", clean: true, exit: 3, within: 2 * time.Second},
	{name: "disk full", where: "last", elsewhere: true, prepare: smallDisk(matrixSize * 1.1), do: filled, at: []int{7}, states: failed(7), reason: "no space left", clean: true, exit: 3, within: 2 * time.Second},
	{name: "disk full", where: "two adjacent", prepare: smallDisk(matrixSize * 1.1), do: filled, at: []int{3, 4}, states: failed(3, 4), reason: "no space left", clean: true, exit: 3, within: 2 * time.Second},
	{name: "quota exceeded", where: "middle", do: failing("pwrite64", "EDQUOT"), at: []int{3}, states: failed(3), reason: "disk quota exceeded", clean: true, exit: 3, within: traceCosts},
	{name: "file too large", where: "middle", do: failing("pwrite64", "EFBIG"), at: []int{3}, states: failed(3), reason: "file too large", clean: true, exit: 3, within: traceCosts},
	{name: "write fails", where: "last", do: failing("pwrite64", "EIO"), at: []int{7}, states: failed(7), reason: "input/output error", clean: true, exit: 3, within: traceCosts},
	{name: "fsync fails", where: "middle", elsewhere: true, do: failing("fsync", "EIO"), at: []int{3}, states: failed(3), reason: "input/output error", clean: true, exit: 3, within: traceCosts},
	{name: "fsync fails", where: "half", do: failing("fsync", "EIO"), at: []int{1, 3, 5, 7}, states: failed(1, 3, 5, 7), reason: "input/output error", clean: true, exit: 3, within: traceCosts},

	{name: "damage on the link", where: "into the first", elsewhere: true, prepare: damage("crc", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{0}, link: "S>0", reason: damagedFrame, within: 2 * time.Second},
	{name: "damage on the link", where: "into the middle", elsewhere: true, prepare: damage("crc", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{3}, link: "2>3", reason: damagedFrame, within: 2 * time.Second},
	{name: "damage on the link", where: "into two adjacent", prepare: damage("crc", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{3, 4}, link: "2>3 3>4", reason: damagedFrame, within: 2 * time.Second},
	{name: "damage on the link", where: "into the middle, always", prepare: damage("crc", always), data: "plain", size: leavesSize, rate: leavesRate, at: []int{3}, link: "S>3", states: failed(3), reason: " at byte 30", exit: 3, within: 4 * time.Second},
	{name: "bytes changed, fresh checksum", where: "before the first", prepare: damage("lie", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{0}, link: "S>0", reason: "bytes were changed", within: 6 * time.Second},
	{name: "bytes changed, fresh checksum", where: "before the middle", elsewhere: true, prepare: damage("lie", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{3}, link: "2>3", beside: map[int]string{2: "2>3"}, reason: "bytes were changed", within: 6 * time.Second},
	{name: "bytes changed, fresh checksum", where: "before the last", elsewhere: true, prepare: damage("lie", 1), data: "plain", size: leavesSize, rate: leavesRate, at: []int{7}, link: "6>7", beside: map[int]string{6: "6>7"}, reason: "bytes were changed", within: 6 * time.Second},
	{name: "bytes changed, fresh checksum", where: "before the middle, always", prepare: damage("lie", always), data: "plain", size: leavesSize, rate: leavesRate, at: []int{3}, link: "1>3", beside: map[int]string{1: "1>3", 2: "2>3"}, states: failed(3), reason: "bytes were changed", exit: 3, within: 6 * time.Second},
}
