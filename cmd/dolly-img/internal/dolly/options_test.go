package dolly

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// TestOptions has every line of the options that dolly's versions know, and those of our own.
func TestOptions(t *testing.T) {
	with := func(set func(o *Options)) *Options {
		o := &Options{Tries: -1}
		set(o)
		return o
	}
	server := func(o *Options) { o.Server, o.CheckHost = true, true }
	for _, tt := range []struct {
		line   string
		want   *Options
		server bool
	}{
		{"", with(func(*Options) {}), false},
		{"-v", with(func(o *Options) { o.Verbose = true }), false},
		{"-v -q --listen :1 --cache c --keys k -a 5", with(func(o *Options) {
			o.Verbose, o.Quiet, o.Stall = true, true, 5
			o.Own = Own{Keys: "k", Cache: "c", Listen: ":1"}
		}), false},
		{"-s -v -o log -I in -O out -H a,b", with(func(o *Options) {
			server(o)
			o.Verbose, o.Log, o.Input, o.Output, o.Hosts = true, "log", "in", "out", "a,b"
		}), true},
		{"-svolog -Iin -Oout -Ha,b", with(func(o *Options) {
			server(o)
			o.Verbose, o.Log, o.Input, o.Output, o.Hosts = true, "log", "in", "out", "a,b"
		}), true},
		{"-H a -I in -s --", with(func(o *Options) { server(o); o.Input, o.Hosts = "in", "a" }), true},
		{"-H a -H b,c -I in", with(func(o *Options) { o.Input, o.Hosts = "in", "b,c" }), true}, // as with dolly the last one counts
		{"-H a -I in", with(func(o *Options) { o.Input, o.Hosts = "in", "a" }), true},
		{"-v -s -f dolly.cfg", with(func(o *Options) { server(o); o.Verbose, o.File = true, "dolly.cfg" }), true},
		{"-S node -f f", with(func(o *Options) { o.Server, o.ServerName, o.File = true, "node", "f" }), true},
		{"-S -f f", with(func(o *Options) { o.Server, o.File = true, "f" }), true},
		{"-f f -S", with(func(o *Options) { o.Server, o.File = true, "f" }), true},
		{"-I - -O - -H 10.0.1.45-80,n[1-2,5],::1", with(func(o *Options) {
			o.Input, o.Output, o.Hosts = "-", "-", "10.0.1.[45-80],n[1-2,5],::1"
		}), true},
		{"-D /a,/b -X /c -D /d -H a", with(func(o *Options) {
			o.Dirs, o.Exclude, o.Hosts = []string{"/a", "/b", "/d"}, []string{"/c"}, "a"
		}), true},
		{"-r 3 -n -R -6 -c 12 -Y", with(func(o *Options) { o.Tries, o.NoSync, o.Family, o.Size, o.HyphenNormal = 3, true, 6, 12, true }), false},
		{"-4c1G", with(func(o *Options) { o.Family, o.Size = 4, 1e9 }), false},
		{"-b 4096 -u 98304", with(func(o *Options) { o.Ineffective = []string{"-b", "-u"} }), false},
		{"--dummy -t 5 -H a --socket", with(func(o *Options) { o.Dummy, o.Seconds, o.Hosts = true, 5, "a" }), true},
		{"-V -x", with(func(o *Options) { o.Version = true }), false},
		{"-h -P", with(func(o *Options) { o.Help = true }), false},
		{"--version", with(func(o *Options) { o.Version = true }), false},
		{"--help", with(func(o *Options) { o.Help = true }), false},
		{"-s --report=r --yes-overwrite 6 --port 7000", with(func(o *Options) { server(o); o.Own = Own{Report: "r", Yes: 6, Port: 7000} }), true},
	} {
		got, err := Parse(strings.Fields(tt.line))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %+v, %v, want %+v", tt.line, got, err, tt.want)
			continue
		}
		if got.IsServer() != tt.server {
			t.Errorf("%q: server: %v", tt.line, got.IsServer())
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, tt := range []struct {
		line, want string
		kind       errkind.Kind
	}{
		{"-d", "-d: means a dummy run", "dolly-d"},
		{"-svd", "-d: means", "dolly-d"},
		{"-P geheim", "-P: there are no passwords", "dolly-password"},
		{"-Pgeheim", "-P: there are no passwords", "dolly-password"},
		{"-K", "-K: nobody can end a client", "dolly-end"},
		{"-x", "unknown option -x", ""},
		{"-sä", "unknown option -ä", ""},
		{"--nodes a", "unknown option --nodes", ""},
		{"--s", "unknown option --s", ""},
		{"--dummy=1", "--dummy takes no value", ""},
		{"-I", "-I needs a value", ""},
		{"--keys", "--keys needs a value", ""},
		{"--keys=", "--keys: the value is empty", ""},
		{"-s file", `unexpected argument "file"`, ""},
		{"-s -", `unexpected argument "-"`, ""},
		{"-s -- -v", `unexpected argument "-v"`, ""},
		{"-a 0", "-a: want a whole number from 1 on", ""},
		{"-a x", "-a: want a whole number", ""},
		{"-r -1", "-r: want a whole number from 0 on", ""},
		{"-t 99999999999", "-t: want a whole number", ""},
		{"-b x", "-b: want a whole number", ""},
		{"-c x", "-c: ", ""},
		{"-c 0", "-c: want the number of bytes", ""},
		{"-H ,", "-H: no hosts in the list", ""},
		{"-D /a,,/b", "-D: an empty name in the list", ""},
	} {
		_, err := Parse(strings.Fields(tt.line))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.line, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: the error repeats the password: %v", tt.line, err)
		}
		if kind, _ := errkind.Of(err); kind != tt.kind {
			t.Errorf("%q: kind %q", tt.line, kind)
		}
	}
}

// The help has a line for every option.
func TestUsage(t *testing.T) {
	for name := range options {
		option := "-" + name
		if len(name) > 1 {
			option = "--" + name
		}
		if name == "version" || name == "help" {
			continue // -V and -h
		}
		if !regexp.MustCompile(`(?m)(^\t|^\t.* |[:,] |and )` + option + `\b`).MatchString(Usage) {
			t.Errorf("no %s in the help", option)
		}
	}
}

// TestWithout: what is left is the same command line without the options, however they were written.
func TestWithout(t *testing.T) {
	for _, c := range [][2]string{
		{"-s -v -I F -O OUT -H a,b", "-s -v -I F -O OUT"},
		{"-svHa -I F -Hb -H c --yes-overwrite 3 -n", "-sv -I F -n"},
		{"-svolog -IH --yes-overwrite=3 --report --yes-overwrite -S -H a", "-svolog -IH --report --yes-overwrite -S"},
		{"-S node -f H -vf H --keys=H -vH H --", "-S node -f H -vf H --keys=H -v"},
	} {
		if got := strings.Join(Without(strings.Fields(c[0]), "H", "yes-overwrite"), " "); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
		o, err := Parse(strings.Fields(c[0]))
		if err != nil {
			t.Fatalf("%s: %v", c[0], err)
		}
		left, err := Parse(strings.Fields(c[1]))
		if o.Hosts, o.Own.Yes = "", 0; err != nil || !reflect.DeepEqual(o, left) {
			t.Errorf("%s: %+v, want %+v, %v", c[1], left, o, err)
		}
	}
}

// line writes o as a command line.
func line(o *Options) []string {
	var words []string
	add := func(option, value string) {
		if value != "" {
			words = append(words, option, value)
		}
	}
	on := func(option string, is bool) {
		if is {
			words = append(words, option)
		}
	}
	on("-s", o.CheckHost)
	if o.Server && (!o.CheckHost || o.ServerName != "") {
		words = append(words, "-S"+o.ServerName)
	}
	add("-f", o.File)
	add("-I", o.Input)
	add("-O", o.Output)
	add("-H", o.Hosts)
	add("-D", strings.Join(o.Dirs, ","))
	add("-X", strings.Join(o.Exclude, ","))
	add("-o", o.Log)
	add("--keys", o.Own.Keys)
	add("--cache", o.Own.Cache)
	add("--listen", o.Own.Listen)
	add("--report", o.Own.Report)
	on("-v", o.Verbose)
	on("-q", o.Quiet)
	on("-n", o.NoSync)
	on("-Y", o.HyphenNormal)
	on("--dummy", o.Dummy)
	for _, n := range []struct {
		option string
		value  int64
		unset  int64
	}{{"-a", int64(o.Stall), 0}, {"-r", int64(o.Tries), -1}, {"-c", o.Size, 0}, {"-t", int64(o.Seconds), 0},
		{"--port", int64(o.Own.Port), 0}, {"--yes-overwrite", int64(o.Own.Yes), 0}} {
		if n.value != n.unset {
			words = append(words, n.option, fmt.Sprint(n.value))
		}
	}
	if o.Family != 0 {
		words = append(words, fmt.Sprintf("-%d", o.Family))
	}
	for _, name := range o.Ineffective {
		words = append(words, name, "1")
	}
	on("-V", o.Version)
	on("-h", o.Help)
	return words
}

// FuzzOptions: what parses, parses to the same when it is written in another way, and never as both a server without hosts
// and a client.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"-s\x00-v", "-sv\x00-Ia\x00-H\x00a,10.0.0.1-9", "-S\x00-f\x00x", "--keys=x\x00-c\x0012k", "-d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := Parse(strings.Split(text, "\x00"))
		if err != nil {
			if o != nil || strings.TrimSpace(err.Error()) == "" {
				t.Errorf("%q: %v beside %q", text, o, err)
			}
			return
		}
		again, err := Parse(line(o))
		if err != nil || !reflect.DeepEqual(o, again) {
			t.Errorf("%q: %+v is %q, which is %+v, %v", text, o, line(o), again, err)
		}
		if o.Hosts != "" && Hosts(o.Hosts) != o.Hosts {
			t.Errorf("%q: hosts %q become %q", text, o.Hosts, Hosts(o.Hosts))
		}
		if slices.Contains(o.Dirs, "") {
			t.Errorf("%q: an empty directory", text)
		}
	})
}
