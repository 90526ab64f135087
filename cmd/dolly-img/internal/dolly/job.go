package dolly

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// defaultWait is how long nodes that do not answer are waited for unless -r says another time. Scripts start clients
// through pdsh, in the background, and the server at the same time.
const defaultWait = 10 * time.Second

// Job is what a server is to do, by its command line and its configuration file.
type Job struct {
	Input, Output Path
	// Tree is a directory that is sent with all that is in it, in place of Input. It takes the place of the directory Output.
	// Exclude has patterns of what is left out, which begin in the directory with a slash.
	Tree    string
	Exclude []string
	// InPlace has files of Tree be replaced one by one, and nothing be removed.
	InPlace bool
	// Mkdir has nodes make the directories above Output.
	Mkdir bool

	// Dummy says that there are no files. Then DummyBytes are sent, or as much as goes in DummyTime.
	Dummy      bool
	DummyBytes int64
	DummyTime  time.Duration

	// Hosts is the list of nodes as package hostlist reads it. It is "" if Nodes has them.
	Hosts  string
	Nodes  []string
	Suffix Suffix

	Server string        // the name of the server; "" is that of this host
	Wait   time.Duration // for nodes that do not answer
	Stall  time.Duration // 0 is no limit

	// Notes are what the user should know before it begins.
	Notes []string
}

// Job joins the command line of a server with its configuration file, which is nil if there is none. Where both name
// something the command line wins, and a note says so. Host is the name of this host.
func (o *Options) Job(c *Config, host string) (*Job, error) {
	if c == nil {
		c = &Config{}
	}
	j := &Job{
		Input: c.Input, Output: c.Output, Nodes: c.Nodes, Suffix: c.Suffix, Notes: c.Notes,
		Dummy: c.Dummy || o.Dummy, DummyBytes: c.DummyBytes, DummyTime: time.Duration(o.Seconds) * time.Second,
		Wait: defaultWait, Stall: time.Duration(o.Stall) * time.Second, InPlace: o.Own.InPlace,
	}
	if o.Tries >= 0 {
		j.Wait = time.Duration(o.Tries) * time.Second
	}
	j.over(o, c)
	j.streams()
	if err := j.tree(o); err != nil {
		return nil, err
	}
	if !j.Dummy && j.Output.Path == "" {
		if j.Output.Path = j.Input.Path; j.Input.Path == "-" {
			return nil, errors.New("-I -: the nodes need a name for it, with -O")
		}
	}
	j.name(o, c, host)
	for _, what := range append(c.Ineffective, o.Ineffective...) {
		j.note("%s has no effect: %s", what, whyIneffective[what])
	}
	if err := j.check(o); err != nil {
		return nil, err
	}
	return j, nil
}

// streams takes the names that standard input and output had in files before dolly knew -I and -O.
func (j *Job) streams() {
	if j.Input.Path == "/dev/stdin" {
		j.Input.Path = "-"
	}
	if j.Output.Path == "/dev/stdout" {
		j.Output.Path = "-"
	}
}

// tree takes -D and -X. Below the directory of -O, dolly unpacks directories under their whole paths; without -O they go
// where they are on the server.
func (j *Job) tree(o *Options) error {
	switch {
	case len(o.Dirs) == 0 && len(o.Exclude) > 0:
		return errors.New("-X is for directories, which -D names")
	case len(o.Dirs) == 0:
		return nil
	case o.Input != "":
		return errors.New("-D and -I: only one of them")
	case len(o.Dirs) > 1:
		return fmt.Errorf("-D %s: one directory is sent at a time, and replaced as a whole", strings.Join(o.Dirs, ","))
	case o.Output == "/" && !o.Own.InPlace:
		return errors.New("-O /: a directory is replaced as a whole, and what only the nodes have in it is gone; --in-place unpacks over what is there")
	}
	return j.Directory(o.Dirs[0], o.Exclude)
}

// Directory makes a directory the input.
func (j *Job) Directory(dir string, exclude []string) error {
	if j.Output.Compressed || j.Output.Split {
		return fmt.Errorf("outfile %s: %s is a directory, which is neither compressed nor split", j.Output.Path, dir)
	}
	j.Tree, j.Input = path.Clean(dir), Path{Path: dir}
	for _, x := range exclude {
		below, ok := strings.CutPrefix(path.Clean(x), strings.TrimSuffix(j.Tree, "/")+"/")
		if !ok {
			return fmt.Errorf("-X %s: not below %s", x, j.Tree)
		}
		j.Exclude = append(j.Exclude, "/"+below)
	}
	if j.Mkdir = j.Output.Path != ""; j.Mkdir && j.Output.Path != "-" {
		j.Output.Path = path.Join(j.Output.Path, j.Tree)
	} else if !j.Mkdir {
		j.Output.Path = j.Tree
	}
	return nil
}

// whyIneffective says why a setting of dolly has no effect.
var whyIneffective = map[string]string{
	"-b":      "blocks have 1 MiB, or what a slow link carries in 5 ms",
	"-u":      "the ring sizes its buffers itself",
	"segsize": "the kernel sizes segments by the links",
	"fanout":  "a chain keeps every link full, and in a tree each node would have to send to several at once",
}

func (j *Job) note(format string, args ...any) {
	j.Notes = append(j.Notes, fmt.Sprintf(format, args...))
}

// over lets what the command line names take the place of what the file names.
func (j *Job) over(o *Options, c *Config) {
	wins := func(option, value, keyword string, there bool) {
		if there {
			j.note("%s %s takes the place of %s in %s", option, value, keyword, o.File)
		}
	}
	if o.Input != "" {
		wins("-I", o.Input, "infile", c.Input.Path != "" || c.Dummy)
		j.Input, j.Dummy = Path{Path: o.Input}, o.Dummy
	}
	if o.Output != "" {
		wins("-O", o.Output, "outfile", c.Output.Path != "")
		j.Output = Path{Path: o.Output}
	}
	if o.Hosts != "" {
		wins("-H", o.Hosts, "the list of nodes", len(c.Nodes) > 0)
		j.Hosts, j.Nodes = o.Hosts, nil
	}
}

// name finds out what the server is called.
func (j *Job) name(o *Options, c *Config, host string) {
	j.Server = host
	switch {
	case o.ServerName != "":
		j.Server = o.ServerName
	case c.Server != "" && !o.CheckHost: // -S alone: the file is believed
		j.Server = c.Server
	case c.Server != "" && c.Server != host:
		j.note("%s names %s as the server, and this is %s", o.File, c.Server, host)
	}
}

// check returns what is missing, or does not go together.
func (j *Job) check(o *Options) error {
	switch {
	case j.Hosts == "" && len(j.Nodes) == 0:
		return errors.New("no hosts: name them with -H, or with -f FILE")
	case j.Dummy:
		if j.DummyBytes == 0 && j.DummyTime == 0 {
			return errors.New("a dummy run needs an end: -t SECONDS, or the number of MB behind dummy in the file")
		}
		return nil
	case o.Seconds > 0:
		return errors.New("-t is for dummy runs, with --dummy")
	case j.Input.Path == "":
		return errors.New("no input: name it with -I, or with -f FILE")
	case j.Output.Path == "-" && j.Output.Split:
		return errors.New("outfile - split: standard output is one file")
	case j.Output.Path != "-" && j.Output.Path != "" && !filepath.IsAbs(j.Output.Path) && !isDevice(j.Output.Path):
		return fmt.Errorf("output %s: want an absolute path, on the nodes", j.Output.Path)
	}
	return nil
}

// isDevice reports whether an output is device:NAME.
func isDevice(path string) bool { return len(path) > 7 && path[:7] == "device:" }
