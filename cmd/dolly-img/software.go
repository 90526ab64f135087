package main

import (
	"runtime/debug"
	"strings"
)

// software is this program and its version, as peers are told it: "dolly-img 1.2.0 (abc1234)".
func software() string {
	name := "dolly-img"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return name
	}
	if v := strings.TrimPrefix(info.Main.Version, "v"); v != "" && v != "(devel)" {
		name += " " + v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) > 7 {
			name += " (" + s.Value[:7] + ")"
		}
	}
	return name
}
