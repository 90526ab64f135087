package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinkSpeed(t *testing.T) {
	sys := t.TempDir()
	for said, want := range map[string]int64{"1000\n": 125e6, "-1\n": 0, "0\n": 0, "": 0, "x\n": 0, "4294967295\n": 0} {
		if err := os.MkdirAll(filepath.Join(sys, "eth0"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, "eth0", "speed"), []byte(said), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := linkSpeed(sys, "eth0"); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v", said, got, ok)
		}
	}
	if _, ok := linkSpeed(sys, "eth1"); ok {
		t.Error("an interface that is not there has a speed")
	}
}
