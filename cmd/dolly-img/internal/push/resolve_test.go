package push

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Names about which the name server is silent hold up the others for a moment only, and all of them together not much longer than one.
func TestResolveSilent(t *testing.T) {
	was := net.DefaultResolver
	defer func() { net.DefaultResolver = was }()
	synctest.Test(t, func(t *testing.T) {
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { // takes what is asked, and says nothing
				for b := make([]byte, 512); ; {
					if _, err := there.Read(b); err != nil {
						return
					}
				}
			}()
			return here, nil
		}}
		names := []string{}
		for i := range 520 {
			names = append(names, fmt.Sprintf("n%d.silent.example", i))
		}
		names = append(names, "192.0.2.1")
		begun := time.Now()
		peers, err := Resolve(t.Context(), names, 9998)
		if took := time.Since(begun); err != nil || took > lookupTimeout+time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		for i, p := range peers {
			if last := i == len(names)-1; p.Name != names[i] || (p.Err == nil) != last || !last && !strings.HasPrefix(p.Err.Error(), "name not resolved: ") {
				t.Fatalf("%+v", p)
			}
		}
		if addrs := peers[len(peers)-1].Addrs; len(addrs) != 1 || addrs[0] != "192.0.2.1:9998" {
			t.Errorf("%q", addrs)
		}
	})
}
