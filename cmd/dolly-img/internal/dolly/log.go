package dolly

import (
	"io"
	"time"
)

// Statistics are the figures of a transfer.
type Statistics struct {
	Input, Output Path
	// Dummy says that there are no files.
	Dummy bool
	// Bytes is what was sent, and Expanded what is in it, by -c; 0 is not said.
	Bytes, Expanded int64
	Server          string
	Nodes           int // that have it
	Time            time.Duration
}

// standardSegment is the TCP segment that dolly names when segsize is not set, in bytes.
const standardSegment = 1460

// rates returns MB/s of bytes, and of all nodes together.
func (s *Statistics) rates(bytes int64) (one, all float64) {
	micros := float64(s.Time.Microseconds())
	if micros <= 0 {
		return 0, 0
	}
	return float64(bytes) / micros, float64(bytes) * float64(s.Nodes) / micros
}

// seconds returns the time in seconds and microseconds.
func (s *Statistics) seconds() (seconds, micros int64) {
	n := s.Time.Microseconds()
	return n / 1e6, n % 1e6
}

// Write appends the figures to a log in the form of dolly. With verbose it is in words, a line for each figure; without, it is
// a row with the columns data [MiB] of a dummy run, segment size, clients, seconds, MB/s and aggregate MB/s. Names of files
// come before, in lines of their own.
func (s *Statistics) Write(w io.Writer, verbose bool) error {
	b := &printer{}
	switch {
	case !s.Dummy:
		s.Input.print(b, "infile", "")
		s.Output.print(b, "outfile", "")
	case verbose:
		b.printf("Transfered block : %d MB\n", s.Bytes>>20)
	default:
		b.printf(" %8d", s.Bytes>>20)
	}
	if verbose {
		b.printf("Standard TCP segment size : %d Bytes (%d Byte eth)\n", standardSegment, standardSegment+54)
		b.printf("Server : '%s'\nFanout = 1\nNr of childs = 1\nNr of hosts = %d\n", s.Server, s.Nodes)
		s.printRates(b)
	} else {
		seconds, micros := s.seconds()
		one, all := s.rates(s.Bytes)
		b.printf(" %8d %8d%4d.%06d  %4.6f  %4.6f  ", standardSegment, s.Nodes, seconds, micros, one, all)
		s.printExpanded(b)
		b.printf("\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// printRates prints time and rates in words.
func (s *Statistics) printRates(b *printer) {
	seconds, micros := s.seconds()
	one, all := s.rates(s.Bytes)
	b.printf("Time: %d.%06d\nMBytes/s: %0.3f\nAggregate MBytes/s: %0.3f\n", seconds, micros, one, all)
	s.printExpanded(b)
}

// printExpanded prints the rates of what is in a compressed file.
func (s *Statistics) printExpanded(b *printer) {
	if s.Expanded > 0 {
		one, all := s.rates(s.Expanded)
		b.printf("Bytes written on each node: %d\nMBytes/s written: %0.3f\nAggregate MBytes/s written: %0.3f\n", s.Expanded, one, all)
	}
}

// print prints the line of a file. What stands behind its name.
func (p Path) print(b *printer, keyword, behind string) {
	if p.Compressed {
		b.printf("compressed ")
	}
	b.printf("%s = '%s'%s\n", keyword, p.Path, behind)
}
