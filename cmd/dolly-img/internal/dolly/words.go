package dolly

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// ctrlPort is the port that dolly names for control. Nothing uses it here: control goes to the data port, too.
const ctrlPort = 9997

// transferSize is how many bytes the ring sends at once.
const transferSize = 1 << 20

// printer collects text.
type printer struct{ bytes.Buffer }

func (p *printer) printf(format string, args ...any) {
	for i, a := range args { // names may come from files and from other machines
		if s, ok := a.(string); ok {
			args[i] = printable.Line(s)
		}
	}
	fmt.Fprintf(p, format, args...)
}

// Parameters are what dolly prints before it begins.
type Parameters struct {
	Input, Output Path
	Dummy         bool
	DummyBytes    int64
	// Size is what -c says, in bytes: the server tells how much of it, or of what is known to come, is sent. 0 is nothing.
	Size   int64
	Port   int
	Host   string // this one
	Server string
	Nodes  []string
	// Listed says that the nodes come from the command line, and not from a file.
	Listed bool
	// Stall is what -a says, in seconds.
	Stall int
	// Me is the place of a client in Nodes; -1 is the server, or not known.
	Me int
}

func (p *Parameters) print(b *printer, server bool) {
	b.printf("Parameter file:\n")
	if p.Dummy {
		b.printf("dummy filesize = %d MB\n", p.DummyBytes>>20)
	} else {
		behind := ""
		if p.Input.Split {
			behind = ", splitted in parts."
		}
		p.Input.print(b, "infile", behind)
		behind = ""
		if p.Output.Split {
			behind = fmt.Sprintf(", splitted in %d byte parts.", p.Output.Each)
		}
		p.Output.print(b, "outfile", behind)
	}
	b.printf("using data port %d\nusing ctrl port %d\nmyhostname = '%s'\n", p.Port, ctrlPort, p.Host)
	next := p.Nodes[min(p.Me+1, len(p.Nodes)):]
	if !server && p.Me < 0 {
		next = nil
	}
	b.printf("fanout = 1\nnr_childs = %d\nserver = '%s'\n", min(1, len(next)), p.Server)
	not := ""
	if !server {
		not = "not "
	}
	b.printf("I'm %sthe server.\n", not)
	if not = "not "; len(next) == 0 {
		not = ""
	}
	b.printf("I'm %sthe last host.\n", not)
	b.printf("There are %d hosts in the ring (excluding server):\n", len(p.Nodes))
	for _, node := range p.Nodes {
		b.printf("\t'%s'\n", node)
	}
	b.printf("Next hosts in ring:\n")
	if len(next) == 0 {
		b.printf("\tnone.\n")
	} else {
		b.printf("\t%s (%d)\n", next[0], p.Me+1)
	}
	b.printf("All parameters read successfully.\n")
	switch {
	case p.Input.Compressed && !p.Output.Compressed:
		b.printf("The server uncompresses data before sending.\n")
	case p.Output.Compressed && !p.Input.Compressed:
		b.printf("The server compresses data with gzip before sending.\n")
	default:
		b.printf("No compression used.\n")
	}
	b.printf("Using transfer size %d bytes.\n\n", transferSize)
}

// timeout returns what dolly says of -a, and "" where that is 0.
func timeout(seconds int) string {
	if seconds == 0 {
		return ""
	}
	return fmt.Sprintf("Will set timeout to %d seconds.\n", seconds)
}

// Server writes what dolly writes on the server with -v.
type Server struct {
	w      io.Writer
	params Parameters

	mu    sync.Mutex
	left  int // nodes that did not answer yet
	told  map[string]bool
	built bool
	moved moved
}

// NewServer writes to w, where a terminal has progress in one line.
func NewServer(w io.Writer, terminal bool, p Parameters) *Server {
	p.Me = -1
	return &Server{w: w, params: p, left: len(p.Nodes), told: map[string]bool{}, moved: moved{terminal: terminal}}
}

// write writes what f prints, in one piece.
func write(w io.Writer, f func(b *printer)) {
	b := &printer{}
	if f(b); b.Len() == 0 {
		return
	}
	_, _ = w.Write(b.Bytes()) // nobody who reads this must end a transfer
}

// Begin writes the parameters. Buffer is the size of the kernel's buffer for sending, in bytes.
func (s *Server) Begin(buffer int) {
	write(s.w, func(b *printer) {
		b.WriteString(timeout(s.params.Stall))
		if s.params.Listed {
			for _, node := range s.params.Nodes {
				b.printf("'writing '%s'\n", node)
			}
			b.printf("'")
		}
		s.params.print(b, true)
		b.printf("Trying to build ring...\n")
		if len(s.params.Nodes) > 0 {
			b.printf("Connecting to host %s... Send buffer 0 is %d bytes\ndata control.\n", s.params.Nodes[0], buffer)
		}
		b.printf("Waiting for ring to build...\n")
	})
}

// Event writes what a step of the transfer is to dolly.
func (s *Server) Event(e ring.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	write(s.w, func(b *printer) {
		switch e.Kind {
		case ring.EventNode:
			if e.State == ring.Held || e.State == ring.Committed {
				s.ready(b, e.Node)
			}
		case ring.EventPlan:
			for _, node := range e.Nodes {
				s.ready(b, node)
			}
			if len(e.Nodes) > 0 {
				s.accepted(b, e.Time)
			}
		case ring.EventProgress:
			s.accepted(b, e.Time)
			s.progress(b, e)
		}
	})
}

// ready says that a node answered.
func (s *Server) ready(b *printer, node string) {
	if s.told[node] {
		return
	}
	s.told[node] = true
	b.printf("Host got parameters '%s'.\nMachines left to wait for: %d\n", node, s.left)
	s.left--
	b.printf("Host ready '%s'.\nMachines left to wait for: %d\n", node, s.left)
}

// accepted says that data begins to move.
func (s *Server) accepted(b *printer, now time.Time) {
	if s.built {
		return
	}
	s.built = true
	s.moved.begin(now)
	b.printf("Accepted.\nServer: Sending data...\n")
}

func (s *Server) progress(b *printer, e ring.Event) {
	if !e.Verifying && !e.Comparing {
		if s.moved.whole = s.params.Size; s.params.Size > 0 && e.Total > 0 {
			s.moved.whole = e.Total
		}
		s.moved.print(b, "Sent", e.Time, e.Bytes)
	}
}

// End writes the figures, once at least one node has everything. Asked is how many nodes should have it. Unsynced says that
// nothing was made durable.
func (s *Server) End(f Statistics, asked int, unsynced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	write(s.w, func(b *printer) {
		s.accepted(b, time.Now())
		s.moved.end(b)
		b.printf("Read %d bytes from file(s).\nWriting maxbytes = %d to ctrlout\nSent MB: %.0f.\n", f.Bytes, f.Bytes, float64(f.Bytes)/1e6)
		if !unsynced {
			b.printf("Synced.\n")
		}
		b.printf("Waiting for child 0.\n")
		if f.Nodes == asked {
			b.printf("Clients done.\n")
		} else {
			b.printf("*** ERROR *** %d of %d clients do not have it.\n", asked-f.Nodes, asked)
		}
		f.printRates(b)
		b.printf("Transmitted.\n")
	})
}

// Break ends a line of progress, before something else is written.
func (s *Server) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	write(s.w, s.moved.end)
}

// BufferSize reads the size of a buffer as the kernel has it in net/ipv4/tcp_wmem and tcp_rmem: the least, the usual and the
// largest one. It returns the usual one, in bytes, or 0.
func BufferSize(line string) int {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Place returns where a client is in the list of nodes, or -1.
func Place(nodes []string, name string) int { return slices.Index(nodes, name) }
