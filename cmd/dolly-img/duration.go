package main

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// timeFlag is a flag whose value is a time: a number of seconds, or what time.ParseDuration reads.
type timeFlag struct{ to *time.Duration }

// timeVar defines a flag for a time.
func timeVar(fl *pflag.FlagSet, to *time.Duration, name string, standard time.Duration, usage string) {
	*to = standard
	fl.Var(timeFlag{to}, name, usage)
}

// Set reads a time. wrongValue says what to write instead.
func (f timeFlag) Set(s string) error {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		*f.to = time.Duration(n) * time.Second
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	*f.to = d
	return nil
}

// String is what Set reads back; "0" has the help leave out the default.
func (f timeFlag) String() string {
	if f.to == nil || *f.to == 0 {
		return "0"
	}
	return f.to.String()
}

// Type is what the help calls the value where the usage has no name for it.
func (timeFlag) Type() string { return "duration" }
