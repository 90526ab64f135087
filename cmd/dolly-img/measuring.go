package main

import (
	"fmt"
	"time"

	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// measuring is measuring on the screen of j, unless that is quiet.
func (j *job) measuring(name string) func(read, size int64) {
	if j.flags.quiet {
		return nil
	}
	return measuring(j.screen, name)
}

// measuring returns what shows how far a file is that is expanded once to find out how long it is: on a terminal a line that
// stays in its place, elsewhere a line at the start and then about every 5 seconds.
func measuring(s *screen, name string) func(read, size int64) {
	var last time.Time
	return func(read, size int64) {
		now := time.Now()
		switch {
		case s.hasLive() && read == size:
			s.progress("")
		case s.hasLive():
			s.progress(measured(name, read, size))
		case now.Sub(last) >= plainEvery && read < size:
			last = now
			s.printf("%s", measured(name, read, size))
		}
	}
}

// measured says how far it is.
func measured(name string, read, size int64) string {
	percent := int64(100)
	if size > 0 {
		percent = int64(float64(read) / float64(size) * 100)
	}
	return fmt.Sprintf("measuring how long %s is when it is expanded: %d %% of %s", name, percent, bytesize.Text(size))
}
