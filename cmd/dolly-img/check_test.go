package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// device makes an interface below sys with what its speed says, and with files that say what it is.
func device(t *testing.T, sys, name, speed string, files ...string) {
	t.Helper()
	err := os.MkdirAll(filepath.Join(sys, name), 0o700)
	for _, file := range files {
		err = errors.Join(err, os.MkdirAll(filepath.Join(sys, name, file), 0o700))
	}
	if err := errors.Join(err, os.WriteFile(filepath.Join(sys, name, "speed"), []byte(speed), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestLinkSpeed(t *testing.T) {
	sys := t.TempDir()
	for said, want := range map[string]int64{"1000\n": 125e6, "-1\n": 0, "0\n": 0, "": 0, "x\n": 0, "4294967295\n": 0} {
		device(t, sys, "eth0", said, "device")
		if got, ok := linkSpeed(sys, "eth0"); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v", said, got, ok)
		}
	}
	if _, ok := linkSpeed(sys, "eth9"); ok {
		t.Error("an interface that is not there has a speed")
	}
	// What a virtual interface says of itself is made up.
	device(t, sys, "eth0", "1000", "device")
	device(t, sys, "eth1", "1000", "device")
	device(t, sys, "veth0", "10000")
	device(t, sys, "br0", "10000", "bridge", "lower_veth0", "lower_bond0.7")
	device(t, sys, "br1", "10000", "bridge", "lower_veth0")
	device(t, sys, "bond0", "2000", "bonding", "lower_eth0", "lower_eth1")
	device(t, sys, "bond0.7", "2000", "lower_bond0")
	device(t, sys, "bond1", "10000", "bonding", "lower_veth0")
	for name, want := range map[string]int64{"veth0": 0, "br0": 250e6, "br1": 0, "bond0": 250e6, "bond0.7": 250e6, "bond1": 0} {
		if got, ok := linkSpeed(sys, name); got != want || ok != (want > 0) {
			t.Errorf("%s: %d, %v, want %d", name, got, ok, want)
		}
	}
}
