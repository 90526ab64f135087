package ring

import (
	"net"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// UNDIAL counts as read when a PING that was sent behind it was answered, and neither by what a node says unasked nor by what it says of
// the PINGs before.
func TestUndialRead(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	ctrl := newControl(a, serverMemory())
	ctrl.version = wire.Version
	defer ctrl.finish()
	go func() {
		for buf := make([]byte, 512); ; {
			if _, err := b.Read(buf); err != nil {
				return
			}
		}
	}()
	ping := func() { ctrl.proof.pinged.Add(1) }
	read := func(want ...uint32) {
		t.Helper()
		got := ctrl.proof.pong()
		if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
			t.Fatalf("read are %v, want %v", got, want)
		}
	}
	ping()
	ctrl.undial(7)
	ping()
	for range 5 { // unasked, while the offer is not answered
		read()
	}
	ctrl.proof.report()
	read() // answers the first PING
	ctrl.undial(8)
	read(7)
	ping()
	read(8)
	read()
}
