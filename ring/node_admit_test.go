package ring

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// A transfer whose server is gone waits for it, whoever offers what is not permitted meanwhile, and whatever a warmer offers that is.
// Another sender ends it at once, and nobody else resumes it.
func TestOrphanKept(t *testing.T) {
	for what, is := range map[string]struct {
		role   Role
		permit error // what Permit says of the second offer
		places int
		code   wire.Code // of the answer to the second offer
		ends   bool
	}{
		"a sender":                                {role: RoleSender, ends: true},
		"a sender that may not":                   {role: RoleSender, permit: errors.New("no such output"), code: wire.CodePolicy},
		"a warmer that may not, by its role":      {role: RoleWarmer, permit: &RefusedError{Why: RefusesRole, Err: errors.New("no")}, code: wire.CodeAuth},
		"a warmer that may":                       {role: RoleWarmer},
		"a viewer":                                {role: RoleViewer, code: wire.CodeAuth},
		"a warmer that may not, of another place": {role: RoleWarmer, permit: errors.New("no"), places: 1, code: wire.CodePolicy},
		"a sender that needs its place":           {role: RoleSender, places: 1, ends: true},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newMemSource(true, random(1, 1000))
				c := rivals(t, src)
				n, _ := c.node("a:1")
				n.outcomes = make(chan Outcome, 2)
				cfg := *n.node.config()
				cfg.Transfers = is.places
				if err := n.node.Reconfigure(cfg); err != nil {
					t.Fatal(err)
				}
				greet := func(conn *tls.Conn, id byte, resume bool) string {
					m := say(t, conn, &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{id}, Node: "a:1", Resume: resume})
					return m.(*wire.Welcome).State
				}
				offer := &wire.Offer{Blobs: src.descs, Meta: []byte(`"x"`)}
				dial := func() *tls.Conn {
					raw, err := c.net.Host("server").Dial(t.Context(), "a:1")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { raw.Close() })
					return tls.Client(raw, c.cfg.TLS("a:1"))
				}
				first := dial()
				greet(first, 1, false)
				if a := say(t, first, offer).(*wire.Answer); a.Code != wire.CodeNone {
					t.Fatalf("%+v", a)
				}
				first.NetConn().Close()
				synctest.Wait()

				n.as("other", is.role)
				n.node.config().Permit = func(Request) error { return is.permit }
				second := c.asSender("a:1")
				if greet(second, 1, true) == wire.StateRunning {
					t.Error("another one has resumed it")
				}
				second = c.asSender("a:1")
				greet(second, 2, false)
				begun := time.Now()
				m := say(t, second, offer)
				for _, waits := m.(*wire.Report); waits; _, waits = m.(*wire.Report) {
					m = say(t, second, &wire.Ping{})
				}
				if a := m.(*wire.Answer); a.Code != is.code || time.Since(begun) > time.Second {
					t.Errorf("answered %+v after %v", a, time.Since(begun))
				}
				synctest.Wait()
				n.as("first", RoleSender)
				if resumes := greet(dial(), 1, true) == wire.StateRunning; resumes == is.ends {
					t.Errorf("resumed: %v", resumes)
				}
			})
		})
	}
}
