package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
)

// The bare chain shows what a chain that verifies costs at least, in this language and on this machine. Each process
// copies blocks of 1 MiB, computes a CRC32C of what it passes on, and at the same time a SHA-256, and writes the
// file. It has no frames, no control connection and no keys, and any error ends it. With TLS it shows what encrypting
// costs at least. The program is this one, called with bareWord.
const bareWord = "bare-chain"

// bare is the chain whose connections are "plain" or "tls".
func bare(links string) commands {
	return commands{
		network: "tcp", port: 9800,
		node: func(b *bed, i int) []string {
			next := "-"
			if i+1 < b.Nodes {
				next = b.net.Nodes[i+1].Addr.String() + ":9800"
			}
			return []string{itself(), bareWord, links, "node", ":9800", next, b.file()}
		},
		server: func(b *bed) []string {
			return []string{itself(), bareWord, links, "server", b.input, b.net.Nodes[0].Addr.String() + ":9800", os.DevNull}
		},
	}
}

func itself() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// runBare runs one process of the chain. Its arguments are plain or tls, a role, where it reads, where it passes on
// ("-" is nowhere), and a file.
func runBare(args []string) error {
	if len(args) != 5 {
		return errors.New("want plain|tls ROLE FROM TO FILE")
	}
	encrypted, role, from, to, into := args[0] == "tls", args[1], args[2], args[3], args[4]
	var in io.ReadCloser
	var err error
	if role == "server" {
		in, err = os.Open(from)
	} else {
		in, err = acceptOne(from, encrypted)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	var out io.WriteCloser
	if to != "-" {
		if out, err = dialOne(to, encrypted); err != nil {
			return err
		}
		defer out.Close()
	}
	file, err := os.Create(into)
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

func acceptOne(addr string, encrypted bool) (io.ReadCloser, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	conn, err := l.Accept()
	if err != nil || !encrypted {
		return conn, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return tls.Server(gather(conn), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}), nil
}

func dialOne(addr string, encrypted bool) (io.WriteCloser, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil || !encrypted {
		return conn, err
	}
	batch := gather(conn)
	// The chain shows what encrypting costs, and knows nobody. It sends what the benchmark made.
	t := tls.Client(batch, &tls.Config{InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	batch.writes = bufio.NewWriterSize(conn, gathered)
	return sealed{t, batch.writes}, nil
}

// gathered is how many bytes are read and written at once below TLS, whose records have 16 KiB.
const gathered = 256 << 10

// gatherConn reads large pieces below TLS, and writes them once writes is set.
type gatherConn struct {
	net.Conn
	reads  *bufio.Reader
	writes *bufio.Writer
}

func gather(conn net.Conn) *gatherConn {
	return &gatherConn{Conn: conn, reads: bufio.NewReaderSize(conn, gathered)}
}

func (g *gatherConn) Read(b []byte) (int, error) { return g.reads.Read(b) }

func (g *gatherConn) Write(b []byte) (int, error) {
	if g.writes == nil {
		return g.Conn.Write(b)
	}
	return g.writes.Write(b)
}

// sealed writes what it is given at once to the connection below TLS.
type sealed struct {
	*tls.Conn
	below *bufio.Writer
}

func (s sealed) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	return n, errors.Join(err, s.below.Flush())
}

func (s sealed) Close() error {
	return errors.Join(s.Conn.CloseWrite(), s.below.Flush(), s.NetConn().Close())
}

func passOn(in io.Reader, out io.Writer, file io.Writer) (sum []byte, err error) {
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
