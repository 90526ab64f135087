package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"runtime"
)

// The bare chain shows what a chain that verifies costs at least, in this language and on this machine. Each process
// copies blocks of 1 MiB, computes a CRC32C of what it passes on, and at the same time a SHA-256, and writes the
// file. It has no frames, no control connection and no TLS, and any error ends it. The program is this one, called
// with bareWord.
const bareWord = "bare-chain"

var bare = commands{
	network: "tcp", port: 9800,
	node: func(b *bed, i int) []string {
		next := "-"
		if i+1 < b.Nodes {
			next = b.net.Nodes[i+1].Addr.String() + ":9800"
		}
		return []string{itself(), bareWord, "node", ":9800", next, b.file()}
	},
	server: func(b *bed) []string {
		return []string{itself(), bareWord, "server", b.input, b.net.Nodes[0].Addr.String() + ":9800", os.DevNull}
	},
}

func itself() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// runBare runs one process of the chain. Its arguments are a role, where it reads, where it passes on ("-" is
// nowhere), and a file.
func runBare(args []string) error {
	if len(args) != 4 {
		return errors.New("want ROLE FROM TO FILE")
	}
	var in io.ReadCloser
	var err error
	if args[0] == "server" {
		in, err = os.Open(args[1])
	} else {
		in, err = acceptOne(args[1])
	}
	if err != nil {
		return err
	}
	defer in.Close()
	var out net.Conn
	if args[2] != "-" {
		if out, err = net.Dial("tcp", args[2]); err != nil {
			return err
		}
		defer out.Close()
	}
	file, err := os.Create(args[3])
	if err != nil {
		return err
	}
	defer file.Close()
	sum, err := passOn(in, out, file)
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", sum)
	return file.Close()
}

func acceptOne(addr string) (net.Conn, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Accept()
}

func passOn(in io.Reader, out net.Conn, file io.Writer) (sum []byte, err error) {
	const blocks = 8
	free, work, stored := make(chan []byte, blocks), make(chan []byte, blocks), make(chan error, 1)
	for range blocks {
		free <- make([]byte, 1<<20)
	}
	hash := sha256.New()
	go func() {
		var err error
		for b := range work {
			for rest := b; len(rest) > 0; { // loaded first, as package ring does: that is faster
				n := min(len(rest), 32<<10)
				runtime.KeepAlive(load(rest[:n]))
				hash.Write(rest[:n])
				rest = rest[n:]
			}
			if err == nil {
				_, err = file.Write(b)
			}
			free <- b[:cap(b)]
		}
		stored <- err
	}()
	table := crc32.MakeTable(crc32.Castagnoli)
	for err == nil {
		b := <-free
		var n int
		n, err = io.ReadFull(in, b)
		crc32.Update(0, table, b[:n])
		if out != nil && n > 0 {
			if _, werr := out.Write(b[:n]); werr != nil {
				err = werr
			}
		}
		work <- b[:n]
	}
	close(work)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return hash.Sum(nil), errors.Join(err, <-stored)
}

func load(b []byte) (sum byte) {
	for i := 0; i < len(b); i += 64 {
		sum ^= b[i]
	}
	return sum
}
