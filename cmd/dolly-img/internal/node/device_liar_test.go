package node

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// A disk that drops a write, damages one or cannot do it fails its node before the node says that it has everything, and no
// other node. When the disk is well again, the next transfer brings what it lacks. A sender that has nothing read back is told of none
// of what its disk has lost.
func TestCloneLiar(t *testing.T) {
	const size, where = 16 << 20, 7 << 20
	image := make([]byte, 13<<20)
	rand.Read(image)
	for name, lie := range map[string]func(b []byte) ([]byte, syscall.Errno){
		"believed": func([]byte) ([]byte, syscall.Errno) { return nil, 0 },
		"drops":    func([]byte) ([]byte, syscall.Errno) { return nil, 0 },
		"damages":  func(b []byte) ([]byte, syscall.Errno) { b = bytes.Clone(b); b[100] ^= 1; return b, 0 },
		"fails":    func([]byte) ([]byte, syscall.Errno) { return nil, syscall.EIO },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, mount := filepath.Join(dir, "image"), filepath.Join(dir, "liar")
			if err := os.WriteFile(file, image, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(mount, 0o700); err != nil {
				t.Fatal(err)
			}
			var well atomic.Bool
			liar := loopdev.NewLiar(t, mount, size, func(b []byte, off int64) ([]byte, syscall.Errno) {
				if !well.Load() && off <= where && where < off+int64(len(b)) {
					return lie(b)
				}
				return b, 0
			})
			nodes := []map[string]*loopdev.Device{
				{"a": loopdev.New(t, dir, size, loopdev.Options{})}, {"a": liar}, {"a": loopdev.New(t, dir, size, loopdev.Options{})},
			}
			cfg := ringOfNodes(t, dir, nodes)
			r := clone(t, cfg, file, "a", meta.Device{Unread: name == "believed"})
			for i, row := range r.Nodes {
				bad := i == 1 && name != "believed"
				// The loop driver of Linux calls a request done of which only the first part could be written: where that is
				// what failed, reading back finds it.
				told := row.Code == "readback" || name == "fails" && row.Code == "store"
				if bad != (row.State == ring.Failed) || bad != (row.Target == ring.TargetOverwritten) || bad != told {
					t.Errorf("%+v", row)
				}
			}
			if (name == "drops" || name == "damages") && !strings.Contains(r.Nodes[1].Reason, "reads back") {
				t.Errorf("%+v", r.Nodes[1])
			}
			well.Store(true)
			cfg.Nodes = cfg.Nodes[1:2]
			if r = clone(t, cfg, file, "a", meta.Device{}); r.Count() != 1 || r.Nodes[0].Target != ring.TargetComplete {
				t.Errorf("again: %+v", r.Nodes)
			}
			f := liar.Open(t, os.O_RDONLY)
			got := make([]byte, len(image))
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, image) {
				t.Errorf("again: other bytes than were sent, %v", err)
			}
			f.Close()
		})
	}
}
