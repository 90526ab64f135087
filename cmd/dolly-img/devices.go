package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

func newDevices() *cobra.Command {
	var keys string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "Show which block devices the policy of this node means",
		Long: `Devices runs on a node. It reads the policy.toml beside the keys and shows for each [[device]]
which disk of this machine it means, what that holds, and whether a transfer could write
it now. It warns of a rule whose path may lead to another device after the next boot. Where a rule means
no disk, or several, it says of each disk why it does not fit. Then come the
other devices: those that a rule could name, and those that no rule may ever name, with the
reason. Nothing is written.

The exit status is 0 if there are rules, and each means one device that could be written now, else 1.`,
		Example: `  dolly-img devices
  dolly-img devices --json | jq .rules`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := node.FindDevices(keys)
			if err != nil {
				return err
			}
			if asJSON {
				err = devicesJSON(cmd.OutOrStdout(), d)
			} else {
				printDevices(cmd.OutOrStdout(), d)
			}
			if err != nil {
				return err
			}
			if len(d.Rules) == 0 {
				printHint(cmd.ErrOrStderr(), d)
				return &statusError{code: 1}
			}
			for _, r := range d.Rules {
				if !r.Usable() {
					return &statusError{code: 1}
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "`DIR` of the keys and of policy.toml (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// printHint says how a device is named where none is.
func printHint(w io.Writer, d *node.Devices) {
	what := "names no device"
	if !d.Found {
		what = "does not exist"
	}
	fmt.Fprintln(w, printable.Line(fmt.Sprintf("hint: %s %s: no transfer may overwrite anything; to permit a disk add [[device]] and path = \"/dev/disk/by-path/…\", or name, model and size", d.Policy, what)))
}

// printDevices prints a table of the rules, and one of the other devices.
func printDevices(w io.Writer, d *node.Devices) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = printable.Line(orDash(cells[i]))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if len(d.Rules) > 0 {
		row("RULE", "DEVICE", "SIZE", "MODEL", "SERIAL", "STATE")
	}
	for _, r := range d.Rules {
		if r.Device == nil {
			row(r.Rule.Called(), "", "", "", "", r.Err.Error())
			continue
		}
		row(r.Rule.Called(), r.Device.Path, bytesize.Text(r.Device.Size), r.Device.Model, r.Device.Serial, ruleState(r))
	}
	t.Flush()
	for _, r := range d.Rules {
		if r.Warning != "" {
			fmt.Fprintln(w, printable.Line("warning: "+r.Rule.Called()+": "+r.Warning))
		}
	}
	for _, r := range d.Rules {
		if r.Device != nil || len(r.Others) < 2 {
			continue // the row has said it
		}
		fmt.Fprintf(w, "%s is not\n", printable.Line(r.Rule.Called()))
		for _, o := range r.Others {
			fmt.Fprintf(w, "  %s\n", printable.Line(o.Device.Path+": "+o.Why))
		}
	}
	var could, never []string
	for _, o := range d.Others {
		text := fmt.Sprintf("  %s  %s  %s", o.Path, bytesize.Text(o.Size), described(o.Device))
		if o.Never == "" {
			could = append(could, text)
		} else {
			never = append(never, text+": "+o.Never)
		}
	}
	printList(w, "no rule means, and one could:", could)
	printList(w, "no rule may ever mean:", never)
}

func printList(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(w, title)
	for _, line := range lines {
		fmt.Fprintln(w, printable.Line(line))
	}
}

// ruleState says whether the device of a rule could be written now.
func ruleState(r node.RuleDevice) string {
	state := "ready"
	if r.Err != nil {
		state = r.Err.Error()
	}
	if r.Facts != nil {
		state += "; holds: " + r.Facts.Held()
	}
	if len(r.Twice) > 0 {
		state += "; also " + strings.Join(r.Twice, ", ")
	}
	return state
}

// described says what a device is, in the words that a rule may have.
func described(d *disk.Device) string {
	text := string(d.Kind)
	for _, fact := range []struct{ name, value string }{{"bus", d.Bus}, {"model", d.Model}, {"serial", d.Serial}, {"wwn", d.WWN}, {"name", d.MapName}} {
		if fact.value != "" && d.Kind != disk.Partition {
			text += fmt.Sprintf(", %s %q", fact.name, fact.value)
		}
	}
	if busy := d.Busy(); busy != "" {
		text += ", busy: " + busy
	}
	return text
}

// devicesJSON prints the same as one JSON object.
func devicesJSON(w io.Writer, d *node.Devices) error {
	type reason struct {
		Device string `json:"device"`
		Why    string `json:"why"`
	}
	type rule struct {
		Rule   string           `json:"rule"`
		Device *disk.Device     `json:"device"`
		Holds  []disk.Signature `json:"holds"`
		Usable bool             `json:"usable"`
		Reason string           `json:"reason"`
		Warn   string           `json:"warning,omitempty"`
		Twice  []string         `json:"twice,omitempty"`
		Others []reason         `json:"others"`
	}
	type other struct {
		*disk.Device
		Never string `json:"never"`
	}
	out := struct {
		Policy string  `json:"policy"`
		Found  bool    `json:"found"`
		Rules  []rule  `json:"rules"`
		Others []other `json:"others"`
	}{d.Policy, d.Found, []rule{}, []other{}}
	for _, r := range d.Rules {
		one := rule{Rule: r.Rule.Called(), Device: r.Device, Usable: r.Usable(), Warn: r.Warning, Twice: r.Twice, Others: []reason{}}
		if r.Err != nil {
			one.Reason = r.Err.Error()
		}
		if r.Facts != nil {
			one.Holds = r.Facts.Holds
		}
		for _, o := range r.Others {
			one.Others = append(one.Others, reason{o.Device.Path, o.Why})
		}
		out.Rules = append(out.Rules, one)
	}
	for _, o := range d.Others {
		out.Others = append(out.Others, other{o.Device, o.Never})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}
