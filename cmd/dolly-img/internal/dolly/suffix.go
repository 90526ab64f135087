package dolly

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// Suffix makes the name of a node in the data network of its name in the list. The zero value makes none.
type Suffix struct {
	Text string
	// Middle says that Text stands in front of the first digit of the name, and not behind the name.
	Middle bool
}

// add takes apart the line of further networks.
func (c *configReader) add(line []string) error {
	if len(line) != 2 {
		return c.wrong("%s: want N:SUFFIX", line[0])
	}
	parts := strings.Split(line[1], ":")
	n, err := strconv.Atoi(parts[0])
	switch {
	case err != nil || n < 0 || n > hostlist.MaxNodes:
		return c.wrong("%s %s: want the number of further networks in front of the colon", line[0], line[1])
	case n > 1:
		return c.wrong("%s %s: data goes over one network, and over another one with 1:SUFFIX", line[0], line[1])
	case len(parts) != 2 || parts[1] == "":
		return c.wrong("%s %s: want one suffix behind the colon", line[0], line[1])
	}
	c.conf.Suffix = Suffix{Text: parts[1], Middle: line[0] == "add2"}
	if _, err := c.conf.Suffix.Of("node1"); err != nil {
		return c.wrong("%s %s: %w", line[0], line[1], err)
	}
	if n == 1 {
		c.conf.Notes = append(c.conf.Notes, fmt.Sprintf("%s %s: data goes over the network of these names only, not over both by turns", line[0], line[1]))
	}
	return nil
}

// Of returns the name of a node in the data network. An address has none.
func (s Suffix) Of(node string) (string, error) {
	if s.Text == "" {
		return node, nil
	}
	host, port, found := strings.Cut(node, ":")
	at := len(host)
	if s.Middle {
		if at = strings.IndexAny(host, "0123456789"); at < 0 {
			return "", fmt.Errorf("node %s has no digit in its name, in front of which %q could stand", node, s.Text)
		}
	}
	name := host[:at] + s.Text + host[at:]
	if found {
		name += ":" + port
	}
	if strings.Contains(port, ":") || strings.Trim(host, "0123456789.") == "" {
		return "", fmt.Errorf("node %s is an address: only a name can have a suffix", node)
	}
	if _, _, err := hostlist.SplitPort(name, 1); err != nil {
		return "", err
	}
	return name, nil
}
