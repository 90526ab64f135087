package main

import (
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
)

// addMetricsFlag defines --metrics.
func addMetricsFlag(cmd *cobra.Command, at *string) {
	cmd.Flags().StringVar(at, "metrics", "", "let Prometheus read metrics at `ADDRESS`, such as 127.0.0.1:9997; a port alone is one of 127.0.0.1")
}

// metricsAddress returns where the value of --metrics lets metrics be served, or "".
func metricsAddress(flag string) (string, error) {
	if flag == "" {
		return "", nil
	}
	addr, err := metrics.Address(flag)
	if err != nil {
		return "", usagef("--metrics %s: %w", flag, err)
	}
	return addr, nil
}

// metricsBuild returns what metrics say of this program.
func metricsBuild() metrics.Build {
	b := thisBuild()
	return metrics.Build{Version: b.version, Revision: b.commit, Go: b.goLang}
}
