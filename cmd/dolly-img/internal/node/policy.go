package node

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// policyText says in one line what a policy permits.
func policyText(p *identity.Policy) string {
	path, found := p.File()
	if !found {
		return fmt.Sprintf("only the cache: there is no %s", path)
	}
	parts := []string{"the cache"}
	for _, o := range p.Outputs {
		text := "files below " + o.Dir
		if o.Overwrite {
			text += ", also in place of others"
		}
		if o.Directories {
			text += ", and whole directories"
		}
		parts = append(parts, text)
	}
	for _, d := range p.Devices {
		parts = append(parts, "overwriting "+d.Called())
	}
	if p.Data.Plain {
		parts = append(parts, "plain data links")
	}
	if p.Limits.Rate > 0 {
		parts = append(parts, "at most "+bytesize.Text(p.Limits.Rate)+"/s")
	}
	if p.Limits.Transfers > 0 {
		parts = append(parts, fmt.Sprintf("at most %d transfers", p.Limits.Transfers))
	}
	if p.Cache.Max > 0 {
		parts = append(parts, "a cache of at most "+bytesize.Text(p.Cache.Max))
	}
	if p.Cache.Free > 0 {
		parts = append(parts, bytesize.Text(p.Cache.Free)+" stay free")
	}
	if p.Cache.Mode != 0 {
		parts = append(parts, fmt.Sprintf("cache files of mode %#o", p.Cache.Mode))
	}
	if p.Cache.Group != "" {
		parts = append(parts, "cache files of group "+p.Cache.Group)
	}
	return strings.Join(parts, "; ")
}

// policyWarnings returns a line for each thing that a policy permits though it is hardly meant, or cannot be used.
func policyWarnings(p *identity.Policy) []string {
	return slices.Concat(p.Warnings(), unusable(p), unusableDevices(p))
}

// unusable returns a line for each directory that a policy permits and the node cannot write to.
func unusable(p *identity.Policy) (warnings []string) {
	for _, o := range p.Outputs {
		if err := unix.Access(o.Dir, unix.W_OK|unix.X_OK); err != nil {
			text := fmt.Sprintf("output directory %s: %v", o.Dir, err)
			if err == unix.EROFS && underSystemd() {
				text += "; the unit needs ReadWritePaths=" + o.Dir + ": systemctl edit dolly-img, then systemctl restart dolly-img"
			}
			warnings = append(warnings, text)
		}
	}
	return warnings
}
