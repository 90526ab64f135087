package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// advice says what to do about nodes with one of some faults. In a text %[1]s stands for the nodes and %[2]s for their
// ports.
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
	{[]ring.Fault{ring.FaultMisnamed},
		"the certificate on %[1]s is of a node of another name: say that name in --nodes, if it is the right machine, or make one for this name on the server where ca.key is, with dolly-img keys add node NAME, and install it there as node.pem"},
}

// failing says what to do about nodes that failed with a code, for whom the same command would fail again.
var failing = []struct{ code, text string }{
	{"readback", "a disk of %[1]s loses or changes what is written to it: smartctl -a DEVICE and dmesg, there, may say how; replace it, and then repeat the command for that node. A device stays half-written until then"},
}

// printHints prints what to do about nodes that cannot be talked to, or whose disk fails. Each advice is printed once.
func printHints(w io.Writer, bad []*alike) {
	for _, a := range failing {
		var nodes []string
		for _, g := range bad {
			if g.code == a.code {
				nodes = append(nodes, g.nodes...)
			}
		}
		if len(nodes) > 0 {
			fmt.Fprintf(w, "hint: "+a.text+"\n", fold(nodes))
		}
	}
	for _, a := range advice {
		var nodes, ports []string
		for _, g := range bad {
			if !slices.Contains(a.faults, g.cause.Fault) {
				continue
			}
			nodes = append(nodes, g.nodes...)
			// A node that was tried at several addresses has them in one: "10.0.0.7:9998 or [fd00::7]:9998".
			for addr := range strings.SplitSeq(strings.Join(g.addrs, " or "), " or ") {
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

// hints says what to do about each kind of error that our packages return. In a text %[1]s, %[2]s and so on stand for
// what the error is about. Hints about a wrong command line are not here, but where the command line is read.
var hints = map[errkind.Kind]string{
	// The images that push takes, and what is in them.
	"archive-compression": "%[1]s, and push what that makes",
	"archive-layer":       "load it with docker or podman and save it again",
	"archive-tags":        "save it again with one tag for each image",
	"credentials-in-name": "write them into a file and name that with --creds FILE",
	"image-colon":         "rename or link it",
	"image-cut":           "copy it again",
	"image-damaged":       "make the image or its archive again, or copy it again: it is damaged, or was put together wrongly",
	"image-disagrees":     "make the image again: its manifest and its config do not belong together",
	"image-empty":         "copy or build it again",
	"image-unknown":       "push takes SIF files, OCI and Docker archives, oci:DIR, docker:// and oras://; any file can be sent as it is with: dolly-img raw",
	"image-which":         "if it is a file, is the path right? it is one of this machine, where the command runs; docker://%[1]s is an image in a registry",
	"manifest-schema1":    "have the registry serve it as schema 2, or push it there again with a current tool",
	"name-ambiguous":      "give the full name",
	"name-digest":         "--name REF, without a digest, says what it shall be kept as",
	"name-unusable":       "--name REF says what it shall be kept as",
	"platform-foreign":    "--platform %[1]s says that the nodes can",
	"platform-index":      "choose one with --platform",
	"platform-none":       "choose with --platform, or take all with --all-platforms",
	"platform-other":      "if that is what the nodes are, say --platform %[1]s",
	"platform-unsaid":     "--all-platforms takes the whole index",
	"policy-rejects":      "let it in there, or ask whoever wrote that file",
	"policy-signature":    "check it with skopeo copy into an oci-archive, and push that",
	"ref-ambiguous":       "name one of them in full, or by its digest, after a colon",
	"ref-missing":         "name one of them, after a colon",
	"ref-unknown":         "name one of those, after a colon",
	"sif-changed":         "wait until nothing writes to it, or push a copy",
	"sif-digest":          "give --name a tag in place of the digest",
	"sif-malformed":       "the file is damaged, cut short or no SIF: copy or build it again",
	"sif-ref":             "a SIF has no REF; --name says what it is kept as",
	"sif-wanted":          "name the path of a SIF file",
	"transport-apptainer": "apptainer pull it, and push the file",
	"transport-archive":   "say oci-archive:%[1]s or docker-archive:%[1]s",
	"transport-engine":    "podman save or docker save it into a file, and push that",
	"transport-layout":    "say %[1]s",
	"transport-registry":  "docker://%[1]s is an image in a registry",
	"variant-chosen":      "--platform takes another",

	// Registries.
	"registry-address":     "give the address a name, in DNS or /etc/hosts",
	"registry-cached":      "this server's own cache has it as it was: push %[1]s",
	"registry-certificate": "put the registry's ca.crt into a directory and give --cert-dir DIR",
	"registry-denied":      "is the password right, and may this user read the image?",
	"registry-limit":       "wait, or log in: registries let users who are logged in ask more often",
	"registry-login":       "log in with podman or skopeo login, or give --authfile FILE or --creds FILE",
	"registry-mirror":      "name the registry itself in registries.conf",
	"registry-name":        "is the name right? names are resolved here, on the server: does getent hosts %[1]s know it?",
	"registry-plain":       "--tls-verify=false also allows a registry without TLS",
	"registry-redirect":    "have the registry's storage not redirect, or redirect to https",
	"registry-unknown":     "is the name right? skopeo list-tags lists what there is",

	// Which device a node means, and what keeps it from being written.
	"device-busy":       "end what uses %[1]s, also in a container: fuser -v %[1]s and lsblk show it",
	"device-denied":     "a [[device]] in %[2]s on the node permits one; dolly-img devices, there, shows which disk a rule picks",
	"device-held":       "take down there what uses it, as with vgchange -an, cryptsetup close or kpartx -d; lsblk shows it",
	"device-kind":       "--force-kind writes it all the same; a disk and each of its partitions need a [[device]] of their own in policy.toml on the node",
	"device-length":     "put it into a file, and send that",
	"device-md":         "stop the array there: mdadm --stop %[1]s",
	"device-mounted":    "unmount it there: umount %[1]s",
	"device-none":       "dolly-img devices, on the node, shows each disk and in what it differs from the rule",
	"device-other":      "dolly-img devices, on the node, shows the disks that a rule may mean",
	"device-path":       "dolly-img devices, on the node, shows the devices and their paths",
	"device-permission": "the daemon needs the right to open block devices: dolly-img-devices.conf, beside the unit file in the source, gives it to the unit",
	"device-readonly":   "if it may be written, there: blockdev --setrw %[1]s",
	"device-sectors":    "make the image on a disk with such sectors: what is in it cannot be changed",
	"device-transfer":   "repeat the command when that transfer has ended; the log of the node says what it is",
	"device-several":    "say more in the rule, such as a size, a serial or a path; dolly-img devices, on the node, shows the disks",
	"device-small":      "name another device there, or send an image that fits",
	"device-swap":       "take it out of use there: swapoff %[1]s",

	// What raw reads.
	"input-changes":      "send it again when nothing writes to it",
	"input-bmap":         "make it again with bmaptool create, from the image as it is now; --format raw, or --format xz and so on for a compressed image, goes without it",
	"input-busy":         "end what uses it, also in containers; or send a snapshot",
	"input-held":         "take %[1]s down, or send what is made of it, or a snapshot of that",
	"input-medium":       "put one in",
	"input-mounted":      "unmount it, or mount it read-only: mount -o remount,ro %[1]s; or send a snapshot: what is in use differs from one moment to the next",
	"input-cut":          "copy it again: it is not all there",
	"input-damaged":      "copy it again, or make it again",
	"input-dictionary":   "compress it again without a dictionary",
	"input-filter":       "compress it again with another program or without special options: xz -dc FILE | xz -T0 > OTHER",
	"input-foreign":      "%[1]s; or say with --format how it is stored, then it is sent whatever it holds",
	"input-format":       "--format auto finds out how it is stored, and --format raw sends it as it is",
	"input-other-bmap":   "--format raw, or --format xz and so on for a compressed image, goes without the map; if %[1]s belongs to another image, move it away",
	"input-window":       "compress it again with a smaller window: zstd -dc FILE | zstd -T0 -19 > OTHER, or the same with xz",
	"input-device":       "a block device or a file can be sent",
	"input-device-raw":   "leave out --format and --bmap",
	"input-update":       "expand it to a file first, or leave out --update",
	"input-directory":    "end its name with / to send all that is in it, to a directory of the name that --output says",
	"input-entry":        "rename it, or leave it out with --exclude-path",
	"input-kernel":       "leave it out with --exclude-path",
	"input-special":      "--special sends devices and named pipes, too; --exclude-path leaves it out",
	"input-half-written": "send a disk that is complete; --force-kind sends it all the same",
	"input-no-image":     "is it the right file? --force-kind writes it all the same",
	"input-empty":        "did the command before the pipe fail? --allow-empty sends it all the same",
	"input-missing":      "is the path right? it is one of this machine, where the command runs",
	"input-stream":       "to read a stream use --input -",
	"input-unreadable":   "what cannot be read like a file may be read by another command, and piped into raw -",
	"spool-full":         "set TMPDIR to a larger directory, or use --no-spool",
	"spool-none":         "without --no-spool the input is kept until the end",
	"spool-unwritable":   "set TMPDIR to a writable directory, or use --no-spool",

	// Outputs on nodes.
	"output-attributes":   "change them there, or remove the file",
	"output-below":        "files below it are permitted: name one, or end the output with a slash, %[1]s/",
	"output-denied":       "to permit it, add to %[2]s on the node the lines [[output]] and dir = %[1]q",
	"output-directories":  "to permit them, add directories = true below dir = %[1]q in %[2]s on the node: whoever holds a sender's key can then replace whole directories there",
	"output-directory":    "to write below it end the path with /",
	"output-elsewhere":    "%[1]s should not be open to transfers; files are permitted below %[3]s",
	"output-exchange":     "remove the old one and push again, or have its files replaced one by one with --in-place",
	"output-exists":       "remove it, or set overwrite = true for its directory in the node's policy.toml",
	"output-foreign-part": "look at that file and remove it",
	"output-images":       "name another directory: with overwrite = true in the node's policy.toml this one would be replaced, and those images lost",
	"output-in-place":     "remove the one that is there, or leave the other out with --exclude-path",
	"output-link":         "name the directory that the link leads to in the node's policy.toml; only links of root in directories to which nobody else may write are followed",
	"output-long":         "at most 238 bytes leave room for the part file",
	"output-mounted":      "unmount it, or name another directory; --in-place is for what lies beside it",
	"output-no-sif":       "--output oci-archive:%[1]s puts an archive there, oci:%[1]s a directory; without --output nodes keep it in their cache, from which runtimes start it",
	"output-of-system":    "%[1]s should not be open to transfers: send to a directory of its own, such as %[3]s, and to permit it add to %[2]s on the node the lines [[output]] and dir = %[3]q",
	"output-own":          "name another path: what the node itself needs is not for transfers",
	"output-owner":        "give numbers, as in --owner 1000:1000: a static build knows the names in /etc/passwd and /etc/group of its node only",
	"output-parent":       "make it, or use --mkdir",
	"output-part":         "remove it, or set overwrite = true for its directory in the node's policy.toml",
	"output-partly":       "push again",
	"output-rule":         "name another directory, or set overwrite = true and directories = true for dir = %[1]q, too, in the node's policy.toml",
	"output-shared":       "--shared-output permits it; name one node for each directory that nodes share",
	"output-stdout":       "run dolly-img receive on it",
	"output-subvolume":    "name a directory in it; or make a plain one of it: btrfs subvolume show tells the two apart",
	"output-top":          "name one below it, such as %[1]s/NAME",
	"output-tree-owner":   "only root can give files away: run the node as root, or name with --owner the user that it runs as",
	"output-tree-rights":  "the unit keeps the daemon from it: dolly-img-directories.conf, beside the unit file in the source, lets it have it; a daemon without the unit has to run as root",
	"output-tree-xattr":   "the file system there cannot keep it, or only root may set it: see setfattr(1)",
	"output-tree":         "name a directory that does not exist, or one that an earlier transfer made",

	// Caches.
	"cache-access":       "the daemon has to own all of the cache, and be in the group: see [cache] in policy.toml",
	"cache-ambiguous":    "name one of them in full: %[1]s",
	"cache-elsewhere":    "name another directory with --cache DIR",
	"cache-conflict":     "take the name out of one of the two lists; dolly-img cache ls, where the cache is, says who wants what",
	"cache-full":         "raise the limits, or rm what is not needed",
	"cache-group":        "name a group of this machine in [cache] of policy.toml",
	"cache-homeless":     "name it with --cache DIR",
	"cache-incomplete":   "push it again",
	"cache-index":        "repair or remove index.json; removing it also means to remove oci-layout, the blobs can stay",
	"cache-missing":      "name the cache with --cache DIR; a daemon makes it",
	"cache-near":         "it has %[1]s",
	"cache-not-one":      "name an empty or a new directory",
	"cache-of-daemon":    "dolly-img cache ls lists what is there; the cache of this node's daemon is named with --cache %[1]s",
	"cache-own":          "name another with --cache DIR, or use --no-cache",
	"cache-pinned":       "dolly-img cache unpin REF, where the cache is, lets a pinned image make room; or raise the limits",
	"cache-unattainable": "ask for less",
	"cache-unknown":      "dolly-img cache ls lists what is there",
	"cache-unread":       "rm or pull it again",
	"cache-unreadable":   "the daemon of this node decides who may read its cache: see mode and group under [cache] in its policy.toml",
	"cache-unmounted":    "mount it again; the daemon there then goes on by itself",
	"cache-unwritable":   "is the cache directory writable for this user?",
	"cache-wanted":       "what a warmer wants is in its list, and dolly-img cache unpin --warmer NAME, where the cache is or with --nodes, lets it go; or raise the limits",
	"cache-owners":       "dolly-img cache ls, there or with --nodes, names them, and dolly-img cache unpin --warmer NAME lets go what one wants that is gone",
	"cache-wishes":       "remove the file: warmers say again what they want, and pins are not in it",
	"cache-wishes-many":  "split the list among several warmers",

	// Keys.
	"authority-ended":   "replace the authority, here on the server: dolly-img keys renew --ca",
	"authority-ends":    "replace it, on the server: dolly-img keys renew --ca",
	"authority-first":   "replace the authority first, here on the server: dolly-img keys renew --ca",
	"authority-follows": "replace what it signed, on the server: dolly-img keys renew",
	"authority-old":     "dolly-img keys renew, on the server, takes it out",
	"authority-only":    "replace it first, on the server: dolly-img keys renew --ca",
	"ca-ended":          "on the server: dolly-img keys renew --ca; then copy ca.pem from there",
	"certificate-ends":  "on the server: dolly-img keys renew; then copy the new files to the machines that need them, as it says",
	"issued-malformed":  "mend the line; or move the file away: the next one begins with the keys that are in the directory",
	"key-ambiguous":     "say which: %[1]s, or a serial number, which dolly-img keys show prints; --force revokes all of them",
	"key-denied":        "run as the owner of the keys, or name others with --keys DIR",
	"key-ended":         "on the server: dolly-img keys renew; then copy %[1]s from there, and ca.pem",
	"key-ends":          "renew it, on the server: dolly-img keys renew",
	"key-exists":        "move it away, and repeat the command",
	"key-foreign":       "copy ca.pem and %[1]s from the server, both of the same cluster",
	"key-names":         "dolly-img keys show lists the names that there are",
	"key-near":          "did you mean %[1]s?",
	"key-not-yet":       "check the clock of this host",
	"key-open":          "chmod 600 %[1]s",
	"key-revoked":       "on the server: dolly-img keys renew %[1]s",
	"key-unknown":       "dolly-img keys show, on the server, lists names and serial numbers; --force revokes it all the same, as for a key that an earlier version made",
	"key-writable":      "chmod go-w %[1]s",
	"keys-denied":       "run it as root or as the owner of that directory (sudo, say), or name keys of your own with --keys DIR",
	"keys-differ":       "compare the keys of both machines, on each with: dolly-img keys show",
	"keys-exist":        "keys init replaces nothing; on the server, dolly-img keys add makes keys of more nodes and senders, and dolly-img keys renew replaces what nears its end",
	"keys-none":         "make them once, on the server: dolly-img keys init --keys DIR; a node gets ca.pem and node.pem from there, and who only runs status ca.pem and viewer.pem",
	"name-revoked":      "remove the line there and on all machines, and revoke the old certificate by its serial number, which dolly-img keys show prints",
	"name-use-again":    "a new key would have the same name, which is revoked: to use the name again, take its line out of revoked on all machines, and on the server: dolly-img keys revoke %[1]s, then dolly-img keys renew",
	"no-ca":             "on the server: dolly-img keys init; then copy ca.pem from there",
	"no-ca-key":         "run this on the server, where dolly-img keys init made the keys: only there is ca.key",
	"no-viewer-key":     "on the server, where ca.key is: dolly-img keys add viewer NAME; then copy viewer-NAME.pem here as viewer.pem, with ca.pem",
	"no-warmer-key":     "on the server, where ca.key is: dolly-img keys add warmer NAME; then copy warmer-NAME.pem here as warmer.pem, with ca.pem",
	"no-node-key":       "copy ca.pem and node.pem to this node from the server, where dolly-img keys init made them",
	"no-sender-key":     "run this on the server, which has sender.pem; or make another sender there: dolly-img keys add sender NAME, and copy sender-NAME.pem here as sender.pem, with ca.pem",
	"role-warmer-pin":   "a warmer keeps an image on nodes by a wish of its own",
	"role-warmer":       "files and devices are for a sender's key, sender.pem",
	"revoked-malformed": "each line is a serial number as dolly-img keys show prints it, or a name; # begins a comment",
	"serial-revoked":    "on the server: dolly-img keys renew NAME (keys renew --help says which); then copy the new key here",

	// Lists of nodes.
	"nodes-blank":   "write a blank behind the comma, or one name on each line",
	"nodes-commas":  "separate nodes by commas, or write one name on each line",
	"nodes-exclude": "a node is left out by ,!NAME or -x NAME",
	"nodes-file":    "a file of nodes is @FILE",
	"nodes-group":   `is the path right? it is one of this machine, where the command runs; a node group of ClusterShell is given with --nodes "$(nodeset -f %[1]s)"`,
	"nodes-host":    "name hosts alone: users, queues and settings before a name cannot be in the list",
	"nodes-none":    "a command that should print nodes may have printed none",
	"nodes-port":    "write the name alone; a port below 1024 is given with --port, or on the command line",

	// What dolly has, and is something else here.
	"dolly-d":        "say --dummy for the run without disks; --socket is accepted and not needed: a client that systemd starts by its socket is our daemon",
	"dolly-end":      "a client that waits is ended where it runs, with SIGTERM",
	"dolly-password": "dolly-img keys init, once, makes them; a client takes nothing from a server without sender.pem of its cluster",

	// A node itself, and the demo.
	"policy-restart":    "undo that change, or restart the daemon",
	"address-foreign":   "name an address of this host",
	"address-malformed": "write it as ADDRESS:PORT, or as :PORT for all addresses",
	"demo-keep":         "give another name to --keep, or push the file that is there",
	"demo-early":        "take a larger image",
	"listen-taken":      "another daemon may run here; --listen ADDR:PORT names another port",
	"warm-dead":         "systemctl status dolly-img-warm shows why the controller does not run, and systemctl start dolly-img-warm starts it",
	"warm-socket":       "socket = \"PATH\" under [defaults] of the list names another one",
	"warm-twice":        "one controller keeps all lists of a key: stop the other one, or make this one a key of its own (dolly-img keys add warmer NAME), and name its keys, a state and a socket under [defaults] of its list",
	"warm-version":      "the controller is of another version of dolly-img: restart it with this one (systemctl restart dolly-img-warm)",
	"metrics-taken":     "--metrics ADDR:PORT names another address",
	"mirror-taken":      "--mirror ADDR:PORT names another address",
	"temp-full":         "set TMPDIR to a directory with more room, or use fewer --nodes",
	"temp-unwritable":   "set TMPDIR to a writable directory",
}

// adviceOn returns the hint for a kind of error about something.
func adviceOn(kind errkind.Kind, about ...string) string {
	text := hints[kind]
	if !strings.Contains(text, "%[") {
		return text
	}
	args := make([]any, len(about))
	for i, a := range about {
		args[i] = a
	}
	return fmt.Sprintf(text, args...)
}

// hintOf returns what to do about err, or "". It is that of the outermost error that has one.
func hintOf(err error) string {
	var own interface {
		error
		Hint() string
	}
	if errors.As(err, &own) && own.Hint() != "" {
		return own.Hint()
	}
	kind, about := errkind.Of(err)
	return adviceOn(kind, about...)
}
