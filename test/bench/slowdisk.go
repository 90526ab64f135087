package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/dolly-img/dolly-img/test/netns"
)

// slowSize is the size of the file that goes to the slow disk, in bytes.
const slowSize = 256 << 20

// slowDisk measures a transfer of a file to one node, whose disk writes as fast as one of its cores hashes. A node that
// hashes and writes at the same time carries that rate, and a node that does the one after the other carries half of
// it. Hashing is without SHA instructions, so that the links and the server do not count.
func (i *images) slowDisk(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	hash, err := hashRate(ctx, withoutSHA)
	if err != nil {
		return err
	}
	return i.paired(func(binary string) (got []value, err error) {
		err = i.withNodes(ctx, 1, func(net *netns.Net, dir string) error {
			input := filepath.Join(dir, "input")
			if err := random(input, slowSize); err != nil {
				return err
			}
			disk, err := mountDisk(filepath.Join(dir, "disk"), filepath.Join(dir, "below"), hash)
			if err != nil {
				return err
			}
			defer disk.unmount()
			list, all, err := daemons{binary: binary, policy: overwrites(dir), env: withoutSHA}.start(ctx, net, dir)
			if err != nil {
				return err
			}
			defer all[0].Kill() // The disk stays mounted in its mount namespace until then.
			push := func(output string) (float64, error) {
				seconds, _, err := timed(ctx, net.Server, binary, "raw", "--input", input, "--output", output,
					"--nodes", list, "--keys", filepath.Join(dir, "keys"), "--data", "plain", "--quiet")
				return seconds, err
			}
			quick, err := push(filepath.Join(dir, "output"))
			if err != nil {
				return err
			}
			slow, err := push(filepath.Join(dir, "disk", "output"))
			busy := disk.busy()
			if err != nil {
				return err
			}
			got = []value{
				{"256 MiB to a disk as slow as the hash: MB/s of the hash", hash / 1e6},
				{"256 MiB to a disk as slow as the hash: MB/s of the disk", slowSize / 1e6 / busy},
				{"256 MiB to a disk as slow as the hash: seconds in the disk", busy},
				{"256 MiB to a disk as slow as the hash: seconds with a disk in memory", quick},
				{"256 MiB to a disk as slow as the hash: seconds", slow},
				{"256 MiB to a disk as slow as the hash: MB/s", slowSize / 1e6 / slow},
			}
			return nil
		})
		return got, err
	})
}

// disk is a file system for which each write takes its bytes ÷ rate, whatever their number: it has no cache, and does
// one thing at a time. What is written is dropped, so that the disk takes little of the processor's time; only
// the sizes of files are kept.
type disk struct {
	rate   float64 // bytes per second
	server *fuse.Server

	mu     sync.Mutex
	late   time.Duration // by which the newest write took too long
	inside time.Duration // sum over the writes
}

// mountDisk mounts a disk at dir, whose files lie in the directory below.
func mountDisk(dir, below string, rate float64) (*disk, error) {
	for _, d := range []string{dir, below} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	d := &disk{rate: rate}
	root := &fs.LoopbackRoot{Path: below}
	root.RootNode = &diskNode{&fs.LoopbackNode{RootData: root}, d}
	var err error
	d.server, err = fs.Mount(dir, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "slow", DirectMountStrict: true, MaxWrite: 1 << 20,
		// Otherwise the kernel would write to the files below without asking.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}})
	return d, err
}

func (d *disk) unmount() error { return d.server.Unmount() }

// busy returns the seconds that writes have taken.
func (d *disk) busy() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inside.Seconds()
}

// take returns when the disk has written so many bytes. By how much the timer was late, the next write is shorter.
func (d *disk) take(bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := time.Now()
	end := begin.Add(time.Duration(float64(bytes)/d.rate*float64(time.Second)) - d.late)
	time.Sleep(time.Until(end))
	d.late = time.Since(end)
	d.inside += time.Since(begin)
}

// diskNode is a file or directory on a disk.
type diskNode struct {
	*fs.LoopbackNode
	disk *disk
}

// WrapChild makes what is found or created in a directory a node of the same disk.
func (n *diskNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &diskNode{child.(*fs.LoopbackNode), n.disk}
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, file, how, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.slow(file), how | fuse.FOPEN_DIRECT_IO, errno
}

func (n *diskNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	file, how, errno := n.LoopbackNode.Open(ctx, flags)
	return n.slow(file), how | fuse.FOPEN_DIRECT_IO, errno
}

// slow makes writes to an open file take the disk's time.
func (n *diskNode) slow(file fs.FileHandle) fs.FileHandle {
	if f, ok := file.(*fs.LoopbackFile); ok {
		return &diskFile{LoopbackFile: f, disk: n.disk}
	}
	return file
}

type diskFile struct {
	*fs.LoopbackFile
	disk *disk
}

// Write keeps the last byte only, which gives the file its size.
func (f *diskFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	f.disk.take(len(data))
	if last := len(data) - 1; last >= 0 {
		if _, errno := f.LoopbackFile.Write(ctx, data[last:], off+int64(last)); errno != 0 {
			return 0, errno
		}
	}
	return uint32(len(data)), 0
}
