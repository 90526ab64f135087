package warm

import (
	"fmt"
	"time"

	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// A Key is a key of a list as people read of it. The manual page of the list is made of these, and a test holds them to what Parse reads.
type Key struct {
	// Table is how the table is written that the key is in: "[defaults]", "[nodes.NAME]" or "[[image]]".
	Table, Name string
	// Example is a value, as TOML has it, and Wrong one that Parse refuses.
	Example, Wrong string
	// Bounds says which values there are, and in which unit.
	Bounds string
	// Default says what counts without the key. It is "" if the key has to be there.
	Default string
	// Text says what the key is for, in sentences.
	Text string
}

// Keys returns all keys of a list, table by table.
func Keys() []Key {
	return append(append(defaultsKeys(), nodesKeys()...), imageKeys()...)
}

const timeUnits = "units are s, m and h"

var rates = "bytes per second, from " + bytesize.Text(leastRate) + " on, with a unit: k, M, G, or Ki, Mi, Gi"

func days(d time.Duration) string { return fmt.Sprintf("%d days", d/(24*time.Hour)) }

func defaultsKeys() []Key {
	const table = "[defaults]"
	return []Key{
		{table, "every", `"10m"`, `"1s"`, fmt.Sprintf("a time from %v to %s; %s", leastEvery, days(longest), timeUnits), "10m",
			"How often a registry is asked whether a tag has moved. A tenth of it is left to chance, lest all entries ask at once. Of a tag that has not moved only the digest is asked for."},
		{table, "windows", `["Mon-Fri 20:00-06:00", "Sat-Sun"]`, `["Fun 20:00-06:00"]`, "a list of days (Mon Tue Wed Thu Fri Sat Sun), hours (00:00 to 24:00), or both", "always",
			"When rings run at their full rate. Hours that end before they begin go through midnight and belong to the day on which they begin. Windows need outside."},
		{table, "zone", `"Europe/Zurich"`, `"Europe/Zuerich"`, "a name of the time zone database", "that of the server",
			"The zone of the windows. They follow its clock, also where that is put forward or back."},
		{table, "outside", `"100M"`, `"slow"`, "\"off\", \"full\", or " + rates, "nothing, and it has to be there if windows are",
			"What rings do outside of the windows. With off none begins, and one that runs is interrupted; nodes keep what they have of it. A rate bounds each ring."},
		{table, "rings", "2", "0", fmt.Sprintf("1 to %d", mostRings), "2",
			"How many rings run at once. Each sends one image to all nodes that lack it."},
		{table, "retry", `"1m..1h"`, `"1h..1m"`, fmt.Sprintf("two times, each from %v to %s, the first not longer than the second; %s", leastRetry, days(longest), timeUnits), "1m..1h",
			"When something that failed is tried again: after the first time, and then after twice as long each time, up to the second. What a registry says for sure, such as that there is no such tag, is asked for again after every."},
		{table, "catch-up", `"60s"`, `"1s"`, fmt.Sprintf("a time from %v to %s; %s", leastCatchUp, days(longest), timeUnits), "60s",
			"How often nodes are asked what they hold, and the lists of nodes are read. Nodes that came in the meantime are served by one ring for each image."},
		{table, "keys", `"/etc/dolly-img/warmer"`, `"warmer"`, "an absolute path", "/etc/dolly-img/warmer",
			"The directory with ca.pem and warmer.pem. A change takes a restart."},
		{table, "state", `"/var/lib/dolly-img/warm"`, `"warm"`, "an absolute path", "/var/lib/dolly-img/warm",
			"The directory of the state: the digests of tags, and when they were last asked for. Without it all but older digests is found again. A change takes a restart."},
		{table, "socket", `"/run/dolly-img/warm.sock"`, `"warm.sock"`, "an absolute path of up to 107 bytes", "/run/dolly-img/warm.sock",
			"Where the controller tells dolly-img status what it knows. Every user of the server can read it. A change takes a restart."},
	}
}

func nodesKeys() []Key {
	const table = "[nodes.NAME]"
	const one = "one of list, file and command has to be there"
	return []Key{
		{table, "list", `"gpu[001-128]"`, `"gpu[001-"`, "nodes as --nodes has them, but for @FILE", one,
			"The nodes of the group."},
		{table, "file", `"/etc/gpu-nodes"`, `"gpu-nodes"`, "an absolute path", one,
			"A file with the nodes, one expression in each line. It is read in each round. If it cannot be read, or has no nodes, the nodes before stand, and status says so."},
		{table, "command", `"sinfo -hN -o %N -p gpu"`, `""`, fmt.Sprintf("a command for /bin/sh, which ends within %v", commandWithin), one,
			"A command that prints the nodes. It is run in each round. If it fails, or prints none, the nodes before stand, and status says so."},
		{table, "platform", `"linux/amd64"`, `"amd64"`, "OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT", "that of the server",
			"The platform of the nodes. An image that there is for several is looked for in this one."},
	}
}

func imageKeys() []Key {
	const table = "[[image]]"
	return []Key{
		{table, "ref", `"docker://registry.example/ml/torch:25.10"`, `"docker://user:password@registry.example/app"`, "what dolly-img push takes, without blanks and without credentials", "",
			"The image: one of a registry by tag or digest, a SIF file, a layout or an archive, by their absolute path."},
		{table, "tags", `"25.*"`, `"25.["`, "a pattern with *, ? and [a-z]; ref then is of a registry, and has neither tag nor digest", "only ref",
			"All tags of ref that match are kept, each as an image of its own."},
		{table, "nodes", `["gpu"]`, `[]`, "names of [nodes.NAME]", "",
			"The groups whose nodes get the image."},
		{table, "pin", "true", `"yes"`, "true or false", "false",
			"Nodes keep the image as they keep one that somebody pinned there."},
		{table, "keep", "2", "0", fmt.Sprintf("1 to %d", mostKeep), "1",
			"How many digests of the name nodes keep. An older one goes once the new one is on all nodes that can have it, and there is no more room for it."},
		{table, "min", `"98%"`, `"98"`, "more than 0% and up to 100%", "100%",
			"The share of the nodes from which on the image counts as warm."},
		{table, "name", `"torch"`, `"a b"`, "a text without blanks, not with tags; no two entries have the same", "that of ref, as with push",
			"The name in the caches."},
		{table, "rate", `"500M"`, `500`, rates, "no bound",
			"The most that the server sends in a ring of this image."},
		{table, "priority", "10", "1001", "-1000 to 1000", "0",
			"Images of a higher one go first. Of the same one that goes first which was not pushed for longest."},
		{table, "authfile", `"/etc/dolly-img/auth.json"`, `"auth.json"`, "an absolute path", "that of root, as podman has it",
			"A file with the credentials for the registry. It is read at each use, and never leaves the server."},
	}
}
