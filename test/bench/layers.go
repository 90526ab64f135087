package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/dolly-img/dolly-img/test/netns"
)

// What it costs that layers of a docker save archive are unpacked and compared with the
// diff_ids of the config: a push of an archive whose compressed layers have so many bytes,
// beside the same with a server's cache that remembers that they are right. Nodes throw the
// image away, so that their disks do not count.
const (
	archiveSize   = 1 << 30
	archiveLayers = 4
)

// layerRates are the bits per second of the links; 0 is as fast as it goes.
var layerRates = []int64{0, 1e9}

func (i *images) layers(ctx context.Context) error {
	dir, err := os.MkdirTemp(i.dir, "layers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(i.dir, "saved.tar")
	if _, err := os.Stat(archive); err != nil { // in the first round
		if err := saveArchive(dir, archive); err != nil {
			return err
		}
	}
	for _, rate := range layerRates {
		if err := i.layersAt(ctx, filepath.Join(dir, fmt.Sprint(rate)), archive, rate); err != nil {
			return err
		}
	}
	return nil
}

func (i *images) layersAt(ctx context.Context, dir, archive string, rate int64) error {
	n, err := netns.New(ctx, netns.Config{Nodes: imageNodes, Rate: rate})
	if err != nil {
		return err
	}
	defer n.Close()
	list, _, err := i.daemons(ctx, n, dir)
	if err != nil {
		return err
	}
	push := func(cache string) (float64, error) {
		begin := time.Now()
		err := succeed(ctx, n.Server, i.binary, "push", "docker-archive:"+archive, "--discard",
			"--keys", filepath.Join(dir, "keys"), "--nodes", list, "--cache", filepath.Join(dir, cache), "--quiet")
		return time.Since(begin).Seconds(), err
	}
	if _, err := push("known"); err != nil {
		return err
	}
	checked, err := push("new")
	if err != nil {
		return err
	}
	known, err := push("known")
	if err != nil {
		return err
	}
	at := "unlimited"
	if rate > 0 {
		at = fmt.Sprintf("%d Mbit/s", rate/1e6)
	}
	i.add(at+": push that checks the layers, seconds", checked)
	i.add(at+": push that knows them, seconds", known)
	i.add(at+": ratio", checked/known)
	return nil
}

// saveArchive writes what docker save writes, with layers of gzip that have archiveSize bytes
// together, of text that becomes about two and a half times as much.
func saveArchive(dir, name string) error {
	var diffs, files string
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewWriter(f)
	for n := range archiveLayers {
		layer := filepath.Join(dir, fmt.Sprintf("layer%d", n))
		sum, err := writeLayer(layer, n)
		if err != nil {
			return err
		}
		diffs += fmt.Sprintf(`,"sha256:%x"`, sum)
		files += fmt.Sprintf(`,"layer%d"`, n)
		if err := addFile(t, layer); err != nil {
			return err
		}
		os.Remove(layer)
	}
	for name, text := range map[string]string{
		"config":        fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%s]}}`, diffs[1:]),
		"manifest.json": fmt.Sprintf(`[{"Config":"config","RepoTags":["bench:1"],"Layers":[%s]}]`, files[1:]),
	} {
		if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return f.Close()
}

// writeLayer returns the SHA-256 of what the layer unpacks to.
func writeLayer(name string, seed int) (sum []byte, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	var words [4096][]byte
	for i := range words {
		for range 3 + r.IntN(8) {
			words[i] = append(words[i], byte('a'+r.IntN(26)))
		}
		words[i] = append(words[i], ' ')
	}
	hash := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(z, hash), 1<<20)
	for n := 0; ; n++ {
		if _, err := w.Write(words[r.IntN(len(words))]); err != nil {
			return nil, err
		}
		if n%100_000 == 0 {
			if at, err := f.Seek(0, io.SeekCurrent); err != nil || at >= archiveSize/archiveLayers {
				break
			}
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return hash.Sum(nil), f.Close()
}

func addFile(t *tar.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: filepath.Base(name), Typeflag: tar.TypeReg, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
