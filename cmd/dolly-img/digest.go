package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw"
)

func newDigest() *cobra.Command {
	return &cobra.Command{
		Use:   "digest FILE...",
		Short: "Print the digest that raw shows for a file",
		Long: `Digest reads files and prints for each the digest that dolly-img raw shows when it has
sent it, so that a file on a node can be compared with a report.

From 64 MiB on, and of devices, that is a digest of leaves, which all cores compute together: the SHA-256 of
the SHA-256 sums of all parts of 4 MiB, 32 bytes each, in the order of the file. Without
dolly-img a shell computes it so:

    split -b 4M --filter='sha256sum | perl -ne "print pack q(H64), \$_"' FILE | sha256sum

Of other files it is the SHA-256, and of standard input raw shows the SHA-256 whatever its
length. With --sha256 the report of raw has the SHA-256 of all that was sent in any case.`,
		Args: atLeastOne("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var failed []error
			for _, path := range args {
				d, err := fileDigest(cmd.Context(), path)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", d, path)
			}
			return errors.Join(failed...)
		},
	}
}

// fileDigest returns the digest that a transfer of a file has.
func fileDigest(ctx context.Context, path string) (digest.Digest, error) {
	if raw.IsDevice(path) {
		d, err := raw.OpenDevice(path)
		if err != nil {
			return "", err
		}
		defer d.Close()
		return leaf.Of(ctx, d, d.Size())
	}
	f, err := raw.OpenFile(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Unsized() {
		return "", errkind.Errorf("input-stream", "input %s is not as long as its size says", path)
	}
	d, err := f.Digest(ctx)
	if err != nil {
		return "", fmt.Errorf("input %s: %w", path, err)
	}
	return d, nil
}
