package cache

import (
	"os"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A transfer during which the cache is removed and made anew does not end well, however far it was, and gives no name.
func TestRemovedDuringTransfer(t *testing.T) {
	for _, when := range []string{"offered", "stored", "prepared"} {
		c := mustOpen(t)
		im := layered("a")
		tr := c.Transfer("x/a:1", TransferOptions{})
		defer tr.Close()
		remove := func(now string) {
			if now != when {
				return
			}
			if err := os.RemoveAll(c.Dir()); err != nil {
				t.Fatal(err)
			}
			if h := askOne(t, c, "x/a:1", at(im)); h.State != HeldNone {
				t.Errorf("%s: %+v", when, h)
			}
		}
		held, _, err := tr.Offer(t.Context(), im.blobs)
		if err != nil {
			t.Fatal(err)
		}
		remove("offered")
		for i, d := range im.blobs {
			if err == nil && held[i] < d.Size {
				err = storeBlob(t, tr, d, im.bytes[d.Digest])
			}
		}
		remove("stored")
		if err == nil {
			_, err = tr.Prepare(t.Context(), im.blobs)
		}
		remove("prepared")
		if err == nil {
			err = tr.Publish(t.Context())
		}
		if err == nil || when != "stored" && !strings.Contains(err.Error(), "removed during the transfer") {
			t.Errorf("%s: %v", when, err)
		}
		if h := askOne(t, c, "x/a:1", at(im)); h.Named != "" {
			t.Errorf("%s: %+v", when, h)
		}
		mustPush(t, c, "x/a:1", im)
		if h := askOne(t, c, "x/a:1", at(im)); h.State != HeldAll || h.Named != at(im) {
			t.Errorf("%s, again: %+v", when, h)
		}
	}
}

func storeBlob(t *testing.T, tr *Transfer, d v1.Descriptor, b []byte) error {
	w, err := tr.Begin(t.Context(), d, 0)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Commit(t.Context(), d)
}

// A cache is made in a directory that somebody emptied while a program was at work there: that leaves a lock.
func TestEmptiedButForLock(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}
