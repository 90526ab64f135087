package hostlist

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	letters  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits   = "0123456789"
	hostRest = letters + digits + ".-_"

	maxHost = 253
	maxName = maxHost + len("[]:65535")
)

// SplitPort splits a name that Parse returned into its host, an IPv6 address without
// brackets, and its port, which is defaultPort if the name has none.
func SplitPort(name string, defaultPort int) (host string, port int, err error) {
	name, err = canonical(name)
	if err != nil {
		return "", 0, err
	}
	if strings.Count(name, ":") != 1 && !strings.HasPrefix(name, "[") {
		return name, defaultPort, nil
	}
	host, text, err := net.SplitHostPort(name)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// canonical checks one name and takes the brackets off an IPv6 address without port.
func canonical(name string) (string, error) {
	if name == "" {
		return "", errors.New("empty name")
	}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		addr, rest, ok := strings.Cut(rest, "]")
		if !ok {
			return "", fmt.Errorf("%q: no ] after the address", name)
		}
		if err := checkIPv6(addr); err != nil {
			return "", err
		}
		if rest == "" {
			return addr, nil
		}
		port, ok := strings.CutPrefix(rest, ":")
		if !ok {
			return "", fmt.Errorf("%q: want a port after the address", name)
		}
		return name, checkPort(port)
	}
	if strings.Count(name, ":") > 1 {
		return name, checkIPv6(name)
	}
	host, port, ok := strings.Cut(name, ":")
	if err := checkHost(host); err != nil {
		return "", err
	}
	if ok {
		return name, checkPort(port)
	}
	return name, nil
}

func checkIPv6(s string) error {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is6() || strings.Trim(addr.Zone(), hostRest) != "" || len(s) > maxHost {
		return fmt.Errorf("%q is not an IPv6 address", s)
	}
	return nil
}

func checkHost(s string) error {
	if s == "" {
		return errors.New("empty name")
	}
	if strings.Trim(s, digits+".") == "" && strings.Contains(s, ".") {
		if _, err := netip.ParseAddr(s); err != nil {
			return fmt.Errorf("%q is not an IPv4 address", s)
		}
		return nil
	}
	if len(s) > maxHost || strings.Trim(s, hostRest) != "" || strings.Trim(s[:1], letters+digits) != "" {
		return fmt.Errorf("%q is not a host name", s)
	}
	return nil
}

func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 || s[0] == '0' {
		return fmt.Errorf("port %q: want a number from 1 to 65535", s)
	}
	return nil
}
