package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/mirror"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
)

const defaultMirror = "127.0.0.1:5050"

// printConfig prints what a runtime needs to use the mirror at addr.
func printConfig(cmd *cobra.Command, runtime, addr, cacheFlag string) error {
	if addr == "" {
		addr = defaultMirror
	}
	out := cmd.OutOrStdout()
	if runtime != "apptainer" && strings.HasPrefix(addr, "unix:") {
		return usagef("--mirror %s: %s wants an address, not a socket", addr, runtime)
	}
	switch runtime {
	case "containerd":
		fmt.Fprintf(out, `# This is /etc/containerd/certs.d/_default/hosts.toml, for all registries; for one registry put
# its name in place of _default. /etc/containerd/config.toml needs:
#   [plugins."io.containerd.grpc.v1.cri".registry]
#     config_path = "/etc/containerd/certs.d"
# With ctr: ctr image pull --hosts-dir /etc/containerd/certs.d NAME

[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, addr)
	case "podman":
		fmt.Fprint(out, `# This is /etc/containers/registries.conf.d/dolly-img.conf, for podman, buildah, skopeo and CRI-O. It
# has a part for each registry that images come from. Behind the mirror's address, a registry's port
# is written with _ in place of the colon, as in 127.0.0.1_5000.
`)
		for _, host := range registries(cacheFlag) {
			fmt.Fprintf(out, `
[[registry]]
location = %q
[[registry.mirror]]
location = %q
insecure = true
`, host, addr+"/"+mirror.PathName(host))
		}
	case "apptainer":
		fmt.Fprint(out, `# Start a SIF where it lies in the cache:
apptainer run $(dolly-img cache path REF)
# Make a SIF of another image, without any registry:
apptainer build app.sif $(dolly-img cache path REF)
# dolly-img cache ls lists the names that REF can be.
`)
	default:
		return usagef("--print-config %q: want containerd, podman or apptainer", runtime)
	}
	return nil
}

// registries returns the registries that images in the cache come from, and two that most clusters use, so that an image
// that comes later from one of these needs no new configuration.
func registries(cacheFlag string) []string {
	hosts := []string{"docker.io", "quay.io"}
	if c, err := cachedir.Open(cacheFlag); err == nil {
		refs, _ := c.References() // a cache that cannot be read adds no names
		for _, r := range refs {
			if host, _, _ := strings.Cut(r.Repository, "/"); strings.ContainsAny(host, ".:") || host == "localhost" {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
