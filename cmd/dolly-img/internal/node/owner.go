package node

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// resolveOwner looks up "user", "user:group" or ":group" on this machine. If s names no group, the group stays as it is.
func resolveOwner(s string) (*raw.Owner, error) {
	if s == "" {
		return nil, nil
	}
	name, group, _ := strings.Cut(s, ":")
	if name == "" && group == "" {
		return nil, fmt.Errorf("owner %q: want USER, USER:GROUP or :GROUP", s)
	}
	o := &raw.Owner{UID: -1, GID: -1}
	var err error
	if name != "" {
		o.UID, err = lookupID(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
	}
	if group != "" && err == nil {
		o.GID, err = lookupID(group, func() (string, error) {
			g, err := user.LookupGroup(group)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	if err != nil {
		return nil, errkind.Errorf("output-owner", "owner %s: %w", s, err)
	}
	if euid := os.Geteuid(); euid != 0 && (o.UID >= 0 && o.UID != euid || o.GID >= 0 && o.GID != os.Getegid()) {
		return nil, fmt.Errorf("owner %s: this node does not run as root and cannot give files away", s)
	}
	return o, nil
}

func lookupID(name string, lookup func() (string, error)) (int, error) {
	id, err := strconv.ParseUint(name, 10, 31)
	if err == nil {
		return int(id), nil
	}
	s, err := lookup()
	if err != nil {
		return 0, err
	}
	id, err = strconv.ParseUint(s, 10, 31)
	return int(id), err
}
