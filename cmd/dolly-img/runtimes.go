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
		fmt.Fprintf(out, `# /etc/containerd/certs.d/_default/hosts.toml, for all registries, or with the name of one
# in place of _default. In /etc/containerd/config.toml has to be:
#   [plugins."io.containerd.grpc.v1.cri".registry]
#     config_path = "/etc/containerd/certs.d"
# and for ctr: ctr image pull --hosts-dir /etc/containerd/certs.d NAME

[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, addr)
	case "podman":
		fmt.Fprint(out, `# /etc/containers/registries.conf.d/dolly-img.conf, for podman, buildah, skopeo and CRI-O; one
# part for each registry that images come from. Behind the mirror's address the colon in front of
# a port is written _, as in 127.0.0.1_5000.
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
		fmt.Fprint(out, `# A SIF is started where it lies in the cache:
apptainer run $(dolly-img cache path REF)
# Another image is made a SIF of, without any registry:
apptainer build app.sif $(dolly-img cache path REF)
# dolly-img cache ls lists what may stand for REF.
`)
	default:
		return usagef("--print-config %q: want containerd, podman or apptainer", runtime)
	}
	return nil
}

// registries are those that images in the cache come from, and two that most use: an image that
// comes later should not need another configuration.
func registries(cacheFlag string) []string {
	hosts := []string{"docker.io", "quay.io"}
	if c, err := cachedir.Open(cacheFlag); err == nil {
		refs, _ := c.References() // what cannot be read has no names
		for _, r := range refs {
			if host, _, _ := strings.Cut(r.Repository, "/"); strings.ContainsAny(host, ".:") || host == "localhost" {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
