package dolly

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Options are what a command line of dolly says. The zero value is that of "dolly" alone.
type Options struct {
	Server     bool   // -s or -S: this is the server, which -H, -I, -f and others say, too
	CheckHost  bool   // -s: the file has to name this host as the server
	ServerName string // -S NAME

	File    string   // -f: the configuration file
	Input   string   // -I
	Output  string   // -O
	Hosts   string   // -H, as package hostlist reads it
	Dirs    []string // -D
	Exclude []string // -X

	Verbose bool   // -v
	Quiet   bool   // -q
	Log     string // -o: statistics are appended to it

	Stall  int // -a: end if nothing moves for so many seconds; 0 is never
	Tries  int // -r: wait for nodes that do not answer for so many seconds; -1 is not given
	NoSync bool
	Family int   // 4 or 6: the address family; 0 is any
	Size   int64 // -c: bytes that are in a compressed input; 0 is not known

	Dummy   bool // --dummy
	Seconds int  // -t: how long a dummy run lasts

	HyphenNormal bool // -Y, which is the default here
	Version      bool
	Help         bool

	// Ineffective names what was given and has no effect here.
	Ineffective []string

	Own Own
}

// Own are the options that dolly does not have. They are long ones.
type Own struct {
	Keys   string // --keys
	Cache  string // --cache, of a client
	Listen string // --listen, of a client
	Report string // --report, of the server
	Port   int    // --port, of the server; 0 is the usual one
	Yes    int    // --yes-overwrite, of the server

	InPlace bool // --in-place, of the server
}

// IsServer reports whether this command line is that of the server.
func (o *Options) IsServer() bool {
	return o.Server || o.File != "" || o.Input != "" || o.Output != "" || o.Hosts != "" || len(o.Dirs) > 0 || o.Dummy
}

// An option has a value if value is set, and else switches something on if on is.
type option struct {
	value func(o *Options, v string) error
	on    func(o *Options) error
	// optional says that the value may be missing, where the next word is an option or there is none.
	optional bool
}

// text makes an option that stores its value.
func text(at func(o *Options) *string) option {
	return option{value: func(o *Options, v string) error {
		if v == "" {
			return errors.New("the value is empty")
		}
		*at(o) = v
		return nil
	}}
}

// list makes an option whose value is a list of names with commas between them, and that may come again.
func list(at func(o *Options) *[]string) option {
	return option{value: func(o *Options, v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if name == "" {
				return errors.New("an empty name in the list")
			}
			*at(o) = append(*at(o), name)
		}
		return nil
	}}
}

// number makes an option whose value is a whole number of at least least.
func number(at func(o *Options) *int, least int) option {
	return option{value: func(o *Options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > 1<<31-1 {
			return fmt.Errorf("want a whole number from %d on", least)
		}
		*at(o) = n
		return nil
	}}
}

// flag makes an option without a value.
func flag(set func(o *Options)) option {
	return option{on: func(o *Options) error { set(o); return nil }}
}

// refused makes an option that is refused.
func refused(why error) option {
	return option{on: func(*Options) error { return why }}
}

// ineffective makes an option that has a value and no effect.
func ineffective(name string) option {
	return option{value: func(o *Options, v string) error {
		if _, err := strconv.ParseUint(v, 10, 31); err != nil {
			return errors.New("want a whole number")
		}
		o.Ineffective = append(o.Ineffective, name)
		return nil
	}}
}

var (
	errTwoMeanings = errkind.Errorf("dolly-d", "means a dummy run without disks in dolly 0.63, and in 0.64 and later to wake clients through systemd and then write")
	errPassword    = errkind.Errorf("dolly-password", "there are no passwords here: keys say who may send")
	errEndClients  = errkind.Errorf("dolly-end", "nobody can end a client from elsewhere here: it ends after its transfer")
)

// options has all options by their names without hyphens.
var options = map[string]option{
	"s": flag(func(o *Options) { o.Server, o.CheckHost = true, true }),
	"S": {optional: true, value: func(o *Options, v string) error { o.Server, o.ServerName = true, v; return nil }},
	"f": text(func(o *Options) *string { return &o.File }),
	"I": text(func(o *Options) *string { return &o.Input }),
	"O": text(func(o *Options) *string { return &o.Output }),
	"H": {value: func(o *Options, v string) error {
		if strings.Trim(v, ", ") == "" {
			return errors.New("no hosts in the list")
		}
		o.Hosts = Hosts(v)
		return nil
	}},
	"D": list(func(o *Options) *[]string { return &o.Dirs }),
	"X": list(func(o *Options) *[]string { return &o.Exclude }),
	"v": flag(func(o *Options) { o.Verbose = true }),
	"q": flag(func(o *Options) { o.Quiet = true }),
	"o": text(func(o *Options) *string { return &o.Log }),
	"a": number(func(o *Options) *int { return &o.Stall }, 1),
	"r": number(func(o *Options) *int { return &o.Tries }, 0),
	"n": flag(func(o *Options) { o.NoSync = true }),
	"R": flag(func(*Options) {}), // names are resolved always
	"4": flag(func(o *Options) { o.Family = 4 }),
	"6": flag(func(o *Options) { o.Family = 6 }),
	"c": {value: func(o *Options, v string) (err error) {
		if o.Size, err = bytesize.Parse(v); err == nil && o.Size == 0 {
			err = errors.New("want the number of bytes")
		}
		return err
	}},
	"b": ineffective("-b"),
	"u": ineffective("-u"),
	"t": number(func(o *Options) *int { return &o.Seconds }, 1),
	"d": refused(errTwoMeanings),
	"P": refused(errPassword),
	"K": refused(errEndClients),
	"Y": flag(func(o *Options) { o.HyphenNormal = true }),
	"V": flag(func(o *Options) { o.Version = true }),
	"h": flag(func(o *Options) { o.Help = true }),

	"dummy":         flag(func(o *Options) { o.Dummy = true }),
	"socket":        flag(func(*Options) {}), // systemd starts our daemon so without being asked
	"version":       flag(func(o *Options) { o.Version = true }),
	"help":          flag(func(o *Options) { o.Help = true }),
	"keys":          text(func(o *Options) *string { return &o.Own.Keys }),
	"cache":         text(func(o *Options) *string { return &o.Own.Cache }),
	"listen":        text(func(o *Options) *string { return &o.Own.Listen }),
	"report":        text(func(o *Options) *string { return &o.Own.Report }),
	"port":          number(func(o *Options) *int { return &o.Own.Port }, 1),
	"yes-overwrite": number(func(o *Options) *int { return &o.Own.Yes }, 1),
	"in-place":      flag(func(o *Options) { o.Own.InPlace = true }),
}

// Parse reads a command line, without the name of the program, as getopt does: letters may share one hyphen (-sv), a value
// may stand behind its letter (-Hnode1) or be the next word, and the order does not matter. The error names the option, and
// never repeats a value that may be a secret. Asking for help or the version ends the reading.
func Parse(args []string) (*Options, error) {
	o := &Options{Tries: -1}
	for len(args) > 0 && !o.Help && !o.Version {
		word := args[0]
		args = args[1:]
		var err error
		switch {
		case word == "--":
			if len(args) > 0 {
				err = fmt.Errorf("unexpected argument %q", args[0])
			}
		case strings.HasPrefix(word, "--"):
			args, err = o.long(word[2:], args)
		case strings.HasPrefix(word, "-") && word != "-":
			args, err = o.letters(word[1:], args)
		default:
			err = fmt.Errorf("unexpected argument %q", word)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// long takes --NAME, --NAME=VALUE or --NAME VALUE, and returns the words behind it.
func (o *Options) long(word string, args []string) ([]string, error) {
	name, value, with := strings.Cut(word, "=")
	opt, ok := options[name]
	if !ok || len(name) < 2 {
		return nil, fmt.Errorf("unknown option --%s", name)
	}
	switch {
	case opt.on != nil && with:
		return nil, fmt.Errorf("--%s takes no value", name)
	case opt.on != nil:
		return args, named("--"+name, opt.on(o))
	case !with && len(args) == 0:
		return nil, fmt.Errorf("--%s needs a value", name)
	case !with:
		value, args = args[0], args[1:]
	}
	return args, named("--"+name, opt.value(o, value))
}

// letters takes what stands behind one hyphen, and returns the words behind it.
func (o *Options) letters(word string, args []string) ([]string, error) {
	for i, letter := range word {
		name := string(letter)
		opt, ok := options[name]
		if !ok {
			return nil, fmt.Errorf("unknown option -%s", name)
		}
		if opt.on != nil {
			if err := opt.on(o); err != nil {
				return nil, named("-"+name, err)
			}
			continue
		}
		value := word[i+len(name):]
		switch {
		case value != "":
		case len(args) > 0 && (!opt.optional || !strings.HasPrefix(args[0], "-")):
			value, args = args[0], args[1:]
		case !opt.optional:
			return nil, fmt.Errorf("-%s needs a value", name)
		}
		return args, named("-"+name, opt.value(o, value))
	}
	return args, nil
}

// Without returns a command line that Parse reads, without the options of these names and their values.
func Without(args []string, names ...string) []string {
	var rest []string
	for len(args) > 0 {
		word, behind := args[0], args[1:]
		switch {
		case word == "--":
		case strings.HasPrefix(word, "--"):
			behind, _ = new(Options).long(word[2:], behind)
			if name, _, _ := strings.Cut(word[2:], "="); !slices.Contains(names, name) {
				rest = append(rest, args[:len(args)-len(behind)]...)
			}
		default:
			behind, _ = new(Options).letters(word[1:], behind)
			at := strings.IndexFunc(word[1:], func(r rune) bool { return options[string(r)].value != nil }) + 1
			if at == 0 || !slices.Contains(names, word[at:at+1]) {
				rest = append(rest, args[:len(args)-len(behind)]...)
			} else if at > 1 { // the letters before it share its hyphen
				rest = append(rest, word[:at])
			}
		}
		args = behind
	}
	return rest
}

// named puts the name of an option before an error.
func named(option string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", option, err)
}

// lastRange matches an IPv4 address whose last number is a range, as dolly 0.71 has it.
var lastRange = regexp.MustCompile(`^((?:\d{1,3}\.){3})(\d{1,3})-(\d{1,3})$`)

// Hosts returns a list of hosts as package hostlist reads it: 10.0.1.45-80 becomes 10.0.1.[45-80].
func Hosts(list string) string {
	items := strings.Split(list, ",")
	for i, item := range items {
		items[i] = lastRange.ReplaceAllString(item, "${1}[${2}-${3}]")
	}
	return strings.Join(items, ",")
}
