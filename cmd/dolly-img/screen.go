package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// screen is standard error as the commands use it. It prints whole lines, and on a terminal it draws one live line
// below them, which is replaced again and again. No library does this: those for progress draw bars, with a goroutine
// and a clock of their own, and here one sentence is drawn whenever the ring says something.
type screen struct {
	mu sync.Mutex
	w  io.Writer
	// tty says that w is a terminal, whether or not it can have a live line: somebody there reads a question.
	tty bool
	// width returns the columns of the terminal. It is nil where there is no live line.
	width func() int
	live  string
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	f, ok := w.(*os.File)
	if s.tty = ok && term.IsTerminal(int(f.Fd())); s.tty && !plainTerminal() {
		s.width = func() int {
			if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
				return columns
			}
			return 80
		}
	}
	return s
}

// plainTerminal reports whether the terminal knows no escape sequences, or the user wants none. Progress is then
// printed in plain lines, as to a file. NO_COLOR is defined by https://no-color.org.
func plainTerminal() bool {
	kind := os.Getenv("TERM")
	return kind == "" || kind == "dumb" || os.Getenv("NO_COLOR") != ""
}

// hasLive reports whether the screen has a live line.
func (s *screen) hasLive() bool { return s.width != nil }

// Write prints b, which has to be whole lines, above the live line.
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

// draw replaces the live line in one write, so that nothing flickers. The caller holds mu.
func (s *screen) draw(line string) {
	if s.width == nil || line == s.live {
		return
	}
	s.live = line
	fmt.Fprint(s.w, "\r\x1b[K"+cut(line, s.columns()))
}

// columns returns how long the live line may be. A line that wraps could not be removed, and behind the line
// there has to be room for the ^C that the terminal echoes.
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

// columns returns how wide s is at most. Terminals differ in which characters they make two columns wide, but none
// does it before U+1100.
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
