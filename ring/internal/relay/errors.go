package relay

import (
	"errors"
	"net"
	"os"
)

// Bare strips addresses and calls from a network error. It ends up in a row that names the link already.
func Bare(err error) error {
	var op *net.OpError
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err
	}
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
