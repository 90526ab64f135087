package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// acceptor answers requests for a node. If the policy permits a request, the answer is a Sink made of the cache, of a
// target, or of nothing; if not, the acceptor refuses and names the rule. It writes nothing before.
type acceptor struct {
	policy *identity.Policy
	cache  *cache.Cache
	stdout io.Writer // nil if no transfer may write to standard output
	disks  disk.Roots
	users  *deviceUsers
	hint   func(error) string
	log    *slog.Logger
}

// permit returns the refusal of a request that the role of its sender, or the policy, does not permit.
func (a *acceptor) permit(r ring.Request) error {
	_, err := a.permitted(r)
	return err
}

// permitted returns what a request asks for, if the role of its sender and the policy permit that.
func (a *acceptor) permitted(r ring.Request) (*meta.Transfer, error) {
	m, err := meta.Decode(r.Meta)
	if err == nil {
		err = permits(r.Role, m)
	}
	if err == nil {
		err = a.outputPermitted(m, len(r.Blobs))
	}
	if err != nil {
		return nil, a.refusal(err)
	}
	return m, nil
}

// outputPermitted returns an error if the policy does not permit what a transfer of so many blobs writes.
func (a *acceptor) outputPermitted(m *meta.Transfer, blobs int) (err error) {
	switch {
	case m.Device != nil:
		_, err = a.policy.Device(m.Output)
	case m.Discard || m.Output == "" || m.Output == "-" && a.stdout != nil:
	case m.Output == "-":
		err = errkind.Errorf("output-stdout", "standard output: this node is a daemon and has none for a transfer")
	default:
		_, err = a.target(m)
		if m.Split {
			for _, file := range written(m, blobs) { // the policy may permit the path of the whole, and not that of a part
				if err == nil {
					_, _, _, err = a.policy.Output(file)
				}
			}
		}
	}
	return err
}

func (a *acceptor) accept(ctx context.Context, r ring.Request) (ring.Sink, error) {
	m, err := a.permitted(r)
	if err != nil {
		return nil, err
	}
	var sink ring.Sink
	if m.Device != nil {
		sink, err = a.device(ctx, r, m)
	} else {
		sink, err = a.compose(ctx, r, m)
	}
	if err != nil {
		return nil, a.refusal(err)
	}
	// The ring logs refusals and how transfers end. Only this package knows what a transfer writes to.
	a.log.Info("accepted", "transfer", r.Transfer, "sender", printable.Line(r.Sender), "role", string(r.Role), "kind", m.Kind,
		"reference", printable.Line(m.Ref), "output", printable.Line(m.Output), "verify-only", m.Discard)
	return sink, nil
}

// permits returns an error if the role of who sends does not permit the transfer, whatever the policy says. The ring has
// refused those that permit none.
func permits(role ring.Role, m *meta.Transfer) error {
	if role == ring.RoleWarmer && (m.Kind != meta.KindImage || m.Output != "" || m.Device != nil || m.Discard) {
		return errkind.Errorf("role-warmer", "a certificate of the role warmer permits images for the cache only")
	}
	if role == ring.RoleWarmer && m.Pin { // pins are the wishes of the node itself, which only its own commands and senders change
		return errkind.Errorf("role-warmer-pin", "a certificate of the role warmer permits no pins")
	}
	return nil
}

// afterEdit says what to do on this node after its policy was edited to permit dir.
func (a *acceptor) afterEdit(dir string) string {
	switch {
	case a.stdout != nil:
		return "then start dolly-img receive there again"
	case !underSystemd():
		// The process id is left out, so that many nodes with the same reason stay one row.
		return "then send SIGHUP to the daemon there"
	case unix.Access(dir, unix.W_OK) != nil:
		return fmt.Sprintf("there, with systemctl edit dolly-img, the lines [Service] and ReadWritePaths=%s, for a directory that exists; then systemctl restart dolly-img", dir)
	}
	return "then, there: systemctl reload dolly-img"
}

// lacks is a refusal for lack of something, or of storage that fails, or of what another transfer has. The ring has codes of its
// own for that, which it finds by the error.
type lacks struct {
	text string
	err  error
}

func (e *lacks) Error() string { return e.text }
func (e *lacks) Unwrap() error { return e.err }

// refusals says for which kinds of errors about a device the ring has a word of its own.
var refusals = map[errkind.Kind]ring.Refusal{
	"device-held": ring.RefusesInUse, "device-md": ring.RefusesInUse, "device-mounted": ring.RefusesInUse, "device-swap": ring.RefusesInUse,
	"device-kind": ring.RefusesKind, "device-none": ring.RefusesNotFound, "device-path": ring.RefusesNotFound, "device-other": ring.RefusesUnfit,
	"device-permission": ring.RefusesPermission, "device-readonly": ring.RefusesReadOnly, "device-sectors": ring.RefusesSectorSize,
	"role-warmer": ring.RefusesRole, "role-warmer-pin": ring.RefusesRole, "cache-conflict": ring.RefusesInUse,

	"device-several": ring.RefusesAmbiguous, "device-small": ring.RefusesTooSmall,
}

// refusal returns err as the sender reads it: with a hint about what to do on the node, and as the ring's ErrBusy if
// waiting helps.
func (a *acceptor) refusal(err error) error {
	text := err.Error()
	if hint := a.hint(err); hint != "" {
		if denied := new(identity.DeniedError); errors.As(err, &denied) && denied.Add() != "" {
			hint += "; " + a.afterEdit(denied.Add())
		}
		text += " (" + hint + ")"
	}
	if errors.Is(err, raw.ErrBusy) {
		return &lacks{text, ring.ErrBusy}
	}
	for _, lack := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.EIO} {
		if errors.Is(err, lack) {
			return &lacks{text, lack}
		}
	}
	kind, _ := errkind.Of(err)
	if why := refusals[kind]; why != "" {
		return &ring.RefusedError{Why: why, Err: errors.New(text)}
	}
	return errors.New(text)
}

var (
	_ ring.Opener   = (*deviceSink)(nil)
	_ ring.Keeper   = (*deviceSink)(nil)
	_ ring.Preparer = (*deviceSink)(nil)
	_ ring.Targeter = (*deviceSink)(nil)

	_ ring.ReadBacker = (*deviceSink)(nil)

	_ ring.Opener   = (*placing)(nil)
	_ ring.Preparer = (*placing)(nil)
	_ ring.Switcher = (*placing)(nil)
	_ ring.Switcher = (*cache.Transfer)(nil)
)
