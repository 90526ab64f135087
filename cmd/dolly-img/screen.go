package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// screen is standard error as the commands use it: whole lines, and on a terminal
// below them one line that is replaced as things move. It is a few lines of our own,
// because the progress libraries draw bars, from a goroutine and a clock of their
// own, and we need one sentence whenever the ring says something.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	width func() int // columns; nil: not a terminal, there is no live line
	live  string
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !plainTerminal() {
		s.width = func() int {
			if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
				return columns
			}
			return 80
		}
	}
	return s
}

// plainTerminal says whether the terminal knows no escape sequences, or its user wants none: progress is then
// printed in plain lines, as to a file. https://no-color.org defines NO_COLOR.
func plainTerminal() bool {
	kind := os.Getenv("TERM")
	return kind == "" || kind == "dumb" || os.Getenv("NO_COLOR") != ""
}

func (s *screen) terminal() bool { return s.width != nil }

// Write prints b, which is whole lines, above the live line.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.live
	s.draw("")
	n, err := s.w.Write(b)
	s.draw(live)
	return n, err
}

// printf prints one line above the live line.
func (s *screen) printf(format string, args ...any) {
	fmt.Fprintln(s, printable.Line(fmt.Sprintf(format, args...)))
}

// progress replaces the live line; "" removes it.
func (s *screen) progress(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draw(printable.Line(line))
}

// draw is one write, so that nothing flickers.
func (s *screen) draw(line string) {
	if s.width == nil || line == s.live {
		return
	}
	s.live = line
	fmt.Fprint(s.w, "\r\x1b[K"+cut(line, s.columns()))
}

// columns is how long the live line may be: a wrapped one could not be taken back,
// and the terminal echoes ^C behind it.
func (s *screen) columns() int { return s.width() - 3 }

// cut shortens a line to n columns.
func cut(line string, n int) string {
	for i, r := range line {
		if n -= columns(string(r)); n < 0 {
			return line[:i]
		}
	}
	return line
}

// columns is how wide s is at most. Which characters a terminal makes two columns wide
// is its own affair; none before U+1100 are.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r >= 0x1100 {
			n++
		}
	}
	return n
}
