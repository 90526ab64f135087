package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/dolly-img/dolly-img/sif"
)

// demoImageSize is the length of the data in the SIF that the demo makes.
const demoImageSize = 256 << 20

// makeDemoImage makes a SIF, with the same bytes on every machine.
func makeDemoImage(ctx context.Context, path string) error {
	data := &demoData{ctx: ctx, left: demoImageSize, rand: rand.NewChaCha8([32]byte([]byte("dolly-img demo, 256 MiB of data.")))}
	err := sif.Create(path, data, sif.CreateOptions{FS: sif.FSRaw, Arch: "amd64", Name: "demo", Deterministic: true})
	if err != nil {
		return fmt.Errorf("demo: make an image: %w", err)
	}
	return nil
}

// demoData looks like the inside of an image: runs of noise, which look like compressed files, between runs of numbered
// records and of zeros.
type demoData struct {
	ctx   context.Context
	left  int64
	rand  *rand.ChaCha8
	run   int // number of the run that block belongs to
	block []byte
	rest  []byte // of block
}

func (d *demoData) Read(b []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	if d.left == 0 {
		return 0, io.EOF
	}
	if len(d.rest) == 0 {
		d.next()
	}
	n := copy(b[:min(int64(len(b)), d.left)], d.rest)
	d.rest = d.rest[n:]
	d.left -= int64(n)
	return n, nil
}

// next fills the block, 64 KiB of one kind.
func (d *demoData) next() {
	if d.block == nil {
		d.block = make([]byte, 64<<10)
	}
	d.run++
	d.rest = d.block
	switch d.run % 8 {
	case 0:
		clear(d.block)
	case 1, 2:
		for i := 0; i < len(d.block); i += 16 {
			copy(d.block[i:], "record ")
			binary.BigEndian.PutUint64(d.block[i+8:], uint64(d.run)<<16|uint64(i))
		}
	default:
		d.rand.Read(d.block)
	}
}
