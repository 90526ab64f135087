package main

import (
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/dolly-img/dolly-img/ring"
)

// advice is what to do about nodes with one of some faults. %s stands for the nodes, %[2]s for their ports.
var advice = []struct {
	faults []ring.Fault
	text   string
}{
	{[]ring.Fault{ring.FaultSilent, ring.FaultPort, ring.FaultRoute, ring.FaultClosed},
		"look on %[1]s: is the machine up, does the daemon run there (systemctl status dolly-img), and does its firewall let TCP port %[2]s in from this server and from the other nodes?"},
	{[]ring.Fault{ring.FaultHangs},
		"look on %[1]s: the daemon there, the whole machine or its network hangs or is overloaded; the log may say why (journalctl -u dolly-img)"},
	{[]ring.Fault{ring.FaultStranger},
		"look on %[1]s for what listens on TCP port %[2]s; --port, or NODE:PORT, names another port of the daemon"},
	{[]ring.Fault{ring.FaultName},
		"names are resolved here, on the server: getent hosts NAME shows what %[1]s resolves to"},
	{[]ring.Fault{ring.FaultForeign},
		"the keys of %[1]s are of another cluster than those used here: name the right ones with --keys, or copy ca.pem and node.pem from here to /etc/dolly-img/keys there; dolly-img keys show, on both, tells them apart"},
	{[]ring.Fault{ring.FaultAuthority},
		"the keys of %[1]s and those used here are of clusters of the same name, but the authority differs, as after dolly-img keys renew --ca: copy ca.pem from the server where that was run to /etc/dolly-img/keys there, and to the keys used here, and reload the daemons (systemctl reload dolly-img); where dolly-img keys init made all keys anew, copy node.pem, too"},
	{[]ring.Fault{ring.FaultCertificate},
		"the log of %[1]s says what is wrong with our certificate (journalctl -u dolly-img); it may be revoked in /etc/dolly-img/keys/revoked there, by the name or the serial number that dolly-img keys show prints here"},
	{[]ring.Fault{ring.FaultRevoked},
		"the list \"revoked\" beside the keys used here gives up the key of %[1]s by its serial number; a new one is made on the server where ca.key is: dolly-img keys renew; then copy it there"},
	{[]ring.Fault{ring.FaultRevokedName},
		"the list \"revoked\" beside the keys used here gives up the names of %[1]s, so that a new key under the same name does not help: to use the names again, take their lines out of the list on all machines, and on the server where ca.key is run dolly-img keys revoke SERIAL with the number of each old key, then dolly-img keys renew"},
}

// printHints prints what to do about nodes that cannot be talked to, each advice once.
func printHints(w io.Writer, bad []*alike) {
	for _, a := range advice {
		var nodes, ports []string
		for _, g := range bad {
			if !slices.Contains(a.faults, g.cause.Fault) {
				continue
			}
			nodes = append(nodes, g.nodes...)
			for _, addr := range g.addrs {
				if _, port, err := net.SplitHostPort(addr); err == nil && !slices.Contains(ports, port) {
					ports = append(ports, port)
				}
			}
		}
		if len(nodes) > 0 {
			fmt.Fprintf(w, "hint: "+a.text+"\n", fold(nodes), fold(ports))
		}
	}
}
