package sif

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/sylabs/sif/v2/pkg/sif"
)

// CreateOptions says what Create makes. The zero value is good.
type CreateOptions struct {
	FS            FSType // of the partition; 0: FSSquash
	Arch          string // as the Go runtime names it; "": this one
	Name          string // of the partition, up to 128 bytes
	Deterministic bool   // the same input gives the same file: no random ID, no time
}

// Create makes a SIF at path, where nothing may be yet, with partition as its primary
// system partition. After an error nothing is left.
func Create(path string, partition io.Reader, opts CreateOptions) (err error) {
	if opts.FS == 0 {
		opts.FS = FSSquash
	}
	if opts.Arch == "" {
		opts.Arch = runtime.GOARCH
	}
	input, err := sif.NewDescriptorInput(sif.DataPartition, partition, sif.OptObjectName(opts.Name),
		sif.OptPartitionMetadata(sif.FSType(opts.FS), sif.PartPrimSys, opts.Arch))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	settings := []sif.CreateOpt{
		sif.OptCreateWithDescriptors(input),
		sif.OptCreateWithLaunchScript("#!/usr/bin/env run-singularity\n"),
		sif.OptCreateWithCloseOnUnload(false),
	}
	if opts.Deterministic {
		settings = append(settings, sif.OptCreateDeterministic())
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	_, err = sif.CreateContainer(f, settings...)
	return err
}
