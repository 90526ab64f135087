package dolly

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJob(t *testing.T) {
	guide, err := ReadConfig(strings.NewReader(guideFile), "f")
	if err != nil {
		t.Fatal(err)
	}
	stdio, err := ReadConfig(strings.NewReader("infile /dev/stdin\noutfile /dev/stdout\na\nendconfig\n"), "f")
	if err != nil {
		t.Fatal(err)
	}
	sent := &Job{Input: Path{Path: "/tmp/sle15.sif"}, Output: Path{Path: "/data/sle15.sif"}, Nodes: guide.Nodes, Server: "sle151", Wait: 10 * time.Second}
	with := func(set func(j *Job)) *Job {
		j := *sent
		set(&j)
		return &j
	}
	for _, tt := range []struct {
		line string
		conf *Config
		host string
		want *Job
	}{
		{"-s -f f", guide, "sle151", sent},
		{"-s -f f", guide, "other", with(func(j *Job) {
			j.Server, j.Notes = "other", []string{"f names sle151 as the server, and this is other"}
		})},
		{"-S -f f", guide, "other", sent},
		{"-S third -f f", guide, "other", with(func(j *Job) { j.Server = "third" })},
		{"-s -f f -r 0 -a 7 -I /x -O - -H a,b", guide, "sle151", with(func(j *Job) {
			j.Input, j.Output, j.Hosts, j.Nodes = Path{Path: "/x"}, Path{Path: "-"}, "a,b", nil
			j.Wait, j.Stall = 0, 7*time.Second
			j.Notes = []string{"-I /x takes the place of infile in f", "-O - takes the place of outfile in f", "-H a,b takes the place of the list of nodes in f"}
		})},
		{"-s -I /x -H a", nil, "h", &Job{Input: Path{Path: "/x"}, Output: Path{Path: "/x"}, Hosts: "a", Server: "h", Wait: 10 * time.Second}},
		{"-I /dev/stdin -O /dev/stdout -H a", nil, "h", &Job{Input: Path{Path: "-"}, Output: Path{Path: "-"}, Hosts: "a", Server: "h", Wait: 10 * time.Second}},
		{"-f f", stdio, "h", &Job{Input: Path{Path: "-"}, Output: Path{Path: "-"}, Nodes: []string{"a"}, Server: "h", Wait: 10 * time.Second}},
		{"-I /x -O device:system -H a -b 4096", nil, "h", &Job{Input: Path{Path: "/x"}, Output: Path{Path: "device:system"}, Hosts: "a", Server: "h", Wait: 10 * time.Second,
			Notes: []string{"-b has no effect: blocks have 1 MiB, or what a slow link carries in 5 ms"}}},
		{"-D /srv/a/ -X /srv/a/tmp,/srv/a/*.o -H a", nil, "h", &Job{Input: Path{Path: "/srv/a/"}, Output: Path{Path: "/srv/a"}, Tree: "/srv/a", Exclude: []string{"/tmp", "/*.o"},
			Hosts: "a", Server: "h", Wait: 10 * time.Second}},
		{"-D /srv/a -O /new -H a", nil, "h", &Job{Input: Path{Path: "/srv/a"}, Output: Path{Path: "/new/srv/a"}, Tree: "/srv/a", Mkdir: true, Hosts: "a", Server: "h", Wait: 10 * time.Second}},
		{"-D /srv/a -O / --in-place -H a", nil, "h", &Job{Input: Path{Path: "/srv/a"}, Output: Path{Path: "/srv/a"}, Tree: "/srv/a", Mkdir: true, InPlace: true, Hosts: "a", Server: "h", Wait: 10 * time.Second}},
		{"--dummy -t 3 -H a", nil, "h", &Job{Dummy: true, DummyTime: 3 * time.Second, Hosts: "a", Server: "h", Wait: 10 * time.Second}},
	} {
		o, err := Parse(strings.Fields(tt.line))
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.Job(tt.conf, tt.host)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ line, want string }{
		{"-s", "no hosts"},
		{"-s -H a", "no input"},
		{"-s -H a -I x", "output x: want an absolute path"},
		{"-s -H a -I -", "-I -: the nodes need a name"},
		{"-s -H a -I /x -t 5", "-t is for dummy runs"},
		{"--dummy -H a", "a dummy run needs an end"},
		{"-H a -X /x -I /y", "-X is for directories"},
		{"-H a -D /x -I /y", "-D and -I: only one"},
		{"-H a -D /x,/y", "-D /x,/y: one directory is sent at a time"},
		{"-H a -D /x -O /", "-O /: a directory is replaced as a whole, and what only the nodes have in it is gone; --in-place"},
		{"-H a -D /x -X /y", "-X /y: not below /x"},
		{"-H a -D x", "output x: want an absolute path"},
	} {
		o, err := Parse(strings.Fields(tt.line))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Job(nil, "h"); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.line, err, tt.want)
		}
	}
}
