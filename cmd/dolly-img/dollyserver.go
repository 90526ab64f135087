package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/dolly"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
)

// dollyServer is dolly on the server.
func dollyServer(cmd *cobra.Command, o *dolly.Options, args []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	conf, err := readDollyConfig(o.File)
	if err != nil {
		return err
	}
	d, err := o.Job(conf, host)
	if err != nil {
		return &usageError{err: err}
	}
	j, err := dollyJob(cmd, o, d)
	if err != nil {
		return err
	}
	j.again = func(nodes []string) string { return dollyAgain(cmd, o, args, nodes) }
	log, err := openDollyLog(o.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, w, end := watchStall(cmd.Context(), d.Stall)
	defer end()
	j.watch, j.alive = w.event, w.alive
	dollySays(j, o, d, host, log)
	err = j.run(ctx)
	if status := new(statusError); errors.As(err, &status) && errors.As(context.Cause(ctx), new(*stalled)) {
		return &statusError{status.code, context.Cause(ctx)}
	}
	return err
}

// readDollyConfig reads a configuration file. It returns nil if path is "".
func readDollyConfig(path string) (*dolly.Config, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer f.Close()
	conf, err := dolly.ReadConfig(f, path)
	if err != nil {
		return nil, &usageError{err: err}
	}
	return conf, nil
}

// dollyJob makes the push that d is. It is the one that raw would make.
func dollyJob(cmd *cobra.Command, o *dolly.Options, d *dolly.Job) (*job, error) {
	send := &sendFlags{
		port: ring.DefaultPort, data: "tls", keys: o.Own.Keys, wait: d.Wait, straggler: string(ring.Demote),
		retries: 3, maxDirect: 4, report: o.Own.Report, quiet: true, // the words of dolly are printed in place of ours
	}
	if o.Own.Port > 0 {
		send.port = o.Own.Port
	}
	noSync := ""
	if o.NoSync {
		noSync = "-n"
	}
	j, err := configJob(cmd, d, send, &outputFlags{}, &deviceFlags{yes: o.Own.Yes, gpt: "move", verify: "read-back"}, noSync)
	if err != nil {
		return nil, err
	}
	if o.Tries >= 0 {
		j.Wait = d.Wait // also where devices would wait for longer
	}
	j.Family = o.Family
	note := func(note error) {
		if o.Verbose {
			j.screen.printf("note: %v", note)
		}
	}
	switch what := j.What.(type) {
	case push.File:
		what.Note = note
		if shown := measuring(j.screen, d.Input.Path); what.Measuring == nil {
			what.Measuring = func(read, size int64) {
				if j.alive != nil {
					j.alive()
				}
				if o.Verbose {
					shown(read, size)
				}
			}
		}
		j.What = what
	case push.Tree:
		what.Note, what.Warn = note, note
		j.What = what
	}
	return j, nil
}

// configJob makes the push of a configuration file. The flags say what the file does not. NoSync is the option that has nothing
// made durable, as it was given, or "".
func configJob(cmd *cobra.Command, d *dolly.Job, send *sendFlags, out *outputFlags, dev *deviceFlags, noSync string) (*job, error) {
	// From 0.70 on, a file may name a directory as the input.
	if info, err := os.Stat(d.Input.Path); err == nil && info.IsDir() && d.Tree == "" && d.Input == (dolly.Path{Path: d.Input.Path}) {
		if err := d.Directory(d.Input.Path, nil); err != nil {
			return nil, &usageError{err: err}
		}
	}
	if d.InPlace && d.Tree == "" {
		return nil, usagef("--in-place is for a directory, which -D names")
	}
	switch {
	case d.Hosts != "":
		send.nodes = []string{d.Hosts}
	case len(send.nodes) == 0:
		send.nodes = d.Nodes
	}
	name, what := "", d.Input.Path
	if what != "" && what != "-" {
		name = filepath.Base(what)
	}
	out.output = d.Output.Path
	if d.Dummy {
		out.output, out.discard, what = "", true, "dummy"
	}
	out.mkdir = out.mkdir || d.Mkdir && out.output != "-"
	m, err := out.meta(meta.KindRaw, name)
	if err != nil {
		return nil, err
	}
	if d.Tree != "" {
		if m.Device != nil {
			return nil, usagef("output %s: a directory does not go to a device", m.Output)
		}
		if m.Output != "-" {
			m.Tree = &meta.Tree{InPlace: d.InPlace}
		}
	}
	if d.Output.Split && m.Device != nil {
		return nil, usagef("outfile %s split: a device has no parts", m.Output)
	}
	switch {
	case noSync == "":
	case m.Device != nil:
		return nil, usagef("%s: output %s is a device, which is made durable and read back before a node says that it has it", noSync, m.Output)
	case m.Tree != nil:
		return nil, usagef("%s: output %s is a directory, which is made durable before it takes the place of the one that is there", noSync, m.Output)
	default: // otherwise there is nothing to make durable
		m.NoSync = m.Output != "-" && !m.Discard
	}
	if err := dev.into(cmd, m, d.Input.Path, send); err != nil {
		return nil, err
	}
	j, err := send.job(cmd, what, m)
	if err != nil {
		return nil, err
	}
	if err := dev.confirms(j); err != nil {
		return nil, err
	}
	if d.Suffix.Text != "" {
		j.DataName = d.Suffix.Of
	}
	j.Annotations = dollyAnnotations(d, j.Nodes)
	j.What = dollySource(cmd, j, d)
	return j, nil
}

// What a client prints with -v of the whole ring, in annotations of the first blob. PROTOCOL.md has them.
const (
	annotationInput = "dolly-img.input"
	annotationNodes = "dolly-img.nodes"
	// mostNodesText is how long a list may be that is told to every node, in bytes.
	mostNodesText = 4 << 10
)

func dollyAnnotations(d *dolly.Job, nodes []string) map[string]string {
	all := map[string]string{annotationInput: d.Input.Path}
	if list := strings.Join(nodes, ","); len(list) <= mostNodesText {
		all[annotationNodes] = list
	} else if list = hostlist.Fold(nodes); len(list) <= mostNodesText {
		all[annotationNodes] = list
	}
	return all
}

// dollySource returns what d sends.
func dollySource(cmd *cobra.Command, j *job, d *dolly.Job) push.Opener {
	if d.Tree != "" {
		return push.Tree{Path: d.Tree, Exclude: d.Exclude, Note: j.note, Warn: j.warn}
	}
	if d.Dummy {
		return push.Dummy{Bytes: d.DummyBytes, Time: d.DummyTime}
	}
	what := push.File{
		Path: d.Input.Path, Parts: d.Input.Split, Each: d.Output.Each, Format: expand.Raw, Stream: cmd.InOrStdin(),
		Measuring: j.measuring(d.Input.Path), Note: j.note,
	}
	switch {
	case d.Input.Compressed && d.Output.Compressed: // it stays as it is
	case d.Input.Compressed:
		what.Format = expand.Gzip
	case d.Output.Compressed:
		what.Compress = true
	case j.Meta.Device != nil && !raw.IsDevice(d.Input.Path):
		what.Format = expand.Auto
	}
	return what
}

// dollySays has j print what dolly prints with -v, and write the log.
func dollySays(j *job, o *dolly.Options, d *dolly.Job, host string, log *os.File) {
	var words *dolly.Server
	if o.Verbose {
		for _, note := range d.Notes {
			j.screen.printf("note: %s", note)
		}
		_, port, err := net.SplitHostPort(j.Nodes[0])
		data, perr := 0, err
		if err == nil {
			_, perr = fmt.Sscan(port, &data)
		}
		if perr != nil {
			data = j.Port
		}
		words = dolly.NewServer(j.screen, j.screen.hasLive(), dolly.Parameters{
			Input: d.Input, Output: d.Output, Dummy: d.Dummy, DummyBytes: d.DummyBytes, Port: data, Host: host, Server: d.Server,
			Nodes: j.Nodes, Listed: d.Hosts != "", Size: o.Size, Stall: o.Stall,
		})
		words.Begin(kernelBuffer("tcp_wmem"))
		watch := j.watch
		j.watch = func(e ring.Event) {
			if watch != nil {
				watch(e)
			}
			words.Event(e)
		}
	}
	j.ended = func(rep *ring.Report) {
		f := dolly.Statistics{
			Input: d.Input, Output: d.Output, Dummy: d.Dummy, Bytes: rep.Bytes, Expanded: o.Size, Server: host, Nodes: rep.Count(), Time: rep.Elapsed,
		}
		if expands := d.Input.Compressed && !d.Output.Compressed; expands && o.Size > 0 && f.Nodes > 0 && o.Size != rep.Bytes {
			if f.Expanded = rep.Bytes; o.Verbose {
				words.Break()
				j.screen.printf("note: -c says %d bytes, and there are %d in %s, which count", o.Size, rep.Bytes, d.Input.Path)
			}
		}
		if words != nil && f.Nodes > 0 {
			words.End(f, len(rep.Nodes), o.NoSync)
		} else if words != nil {
			words.Break()
		}
		if log != nil && f.Nodes > 0 {
			if err := f.Write(log, o.Verbose); err != nil {
				printError(j.screen, fmt.Errorf("log: %w", err))
			}
		}
	}
}

// openDollyLog opens the file of -o before anything else is done, so that an error comes before the transfer. It returns
// nil if path is "".
func openDollyLog(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}

// dollyAgain returns the command that serves these nodes: that which was given, with another list of hosts, and as with push
// another report.
func dollyAgain(cmd *cobra.Command, o *dolly.Options, args, nodes []string) string {
	words := []string{cmd.CommandPath()}
	if filepath.Base(os.Args[0]) == dollyName {
		words = []string{dollyName}
	}
	for _, word := range dolly.Without(args, "H", "yes-overwrite", "report") {
		words = append(words, quote(word))
	}
	if o.Own.Report != "" {
		words = append(words, "--report", quote(nextReport(o.Own.Report)))
	}
	if o.Own.Yes > 0 {
		words = append(words, "--yes-overwrite", strconv.Itoa(len(nodes)))
	}
	return strings.Join(append(words, "-H", quote(hostlist.Fold(nodes))), " ")
}
