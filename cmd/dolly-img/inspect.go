package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

func newInspect() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a SIF file holds",
		Long: `Inspect reads the header and the descriptors of a SIF file, checks every count, offset
and size in them against the length of the file, and prints them.`,
		Args: exactly(1, "FILE, the path of a SIF file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := image.CheckSIF(args[0]); err != nil {
				return err
			}
			img, err := inspect(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return inspectJSON(cmd.OutOrStdout(), img)
			}
			return inspectTable(cmd.OutOrStdout(), img)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func inspect(path string) (*sif.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	img, err := sif.Inspect(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

func inspectTable(w io.Writer, img *sif.Image) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	const format = "2006-01-02 15:04:05"
	fmt.Fprintf(t, "version\t%s\n", printable.Line(img.Version))
	fmt.Fprintf(t, "architecture\t%s\n", img.Arch)
	fmt.Fprintf(t, "id\t%s\n", img.ID)
	fmt.Fprintf(t, "created\t%s\n", img.Created.Format(format))
	fmt.Fprintf(t, "modified\t%s\n", img.Modified.Format(format))
	fmt.Fprintf(t, "launch\t%s\n", printable.Line(img.Launch))
	fmt.Fprintf(t, "objects\t%d of %d\n\n", len(img.Descriptors), img.Capacity)
	t.Flush()
	fmt.Fprintln(t, "ID\tGROUP\tLINK\tTYPE\tOFFSET\tSIZE\tNAME")
	for _, d := range img.Descriptors {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%s\n", d.ID, number(d.Group, ""), linkText(d), typeText(d),
			d.Offset, d.Size, orDash(d.Name))
	}
	return t.Flush()
}

func number(n uint32, prefix string) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%s%d", prefix, n)
}

func linkText(d sif.Descriptor) string {
	if d.LinkIsGroup {
		return number(d.Link, "group ")
	}
	return number(d.Link, "")
}

func typeText(d sif.Descriptor) string {
	if d.Type != sif.Partition {
		return d.Type.String()
	}
	return fmt.Sprintf("%s partition, %s, %s", d.Part, d.FS, d.Arch)
}

func inspectJSON(w io.Writer, img *sif.Image) error {
	type object struct {
		Number      int    `json:"number"`
		ID          uint32 `json:"id"`
		Type        string `json:"type"`
		Group       uint32 `json:"group"`
		Link        uint32 `json:"link"`
		LinkIsGroup bool   `json:"linkIsGroup"`
		Offset      int64  `json:"offset"`
		Size        int64  `json:"size"`
		Name        string `json:"name"`
		FS          string `json:"fileSystem,omitempty"`
		Part        string `json:"partition,omitempty"`
		Arch        string `json:"architecture,omitempty"`
	}
	objects := []object{}
	for _, d := range img.Descriptors {
		o := object{Number: d.Number, ID: d.ID, Type: d.Type.String(), Group: d.Group, Link: d.Link,
			LinkIsGroup: d.LinkIsGroup, Offset: d.Offset, Size: d.Size, Name: d.Name}
		if d.Type == sif.Partition {
			o.FS, o.Part, o.Arch = d.FS.String(), d.Part.String(), d.Arch
		}
		objects = append(objects, o)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"version": img.Version, "architecture": img.Arch, "id": img.ID, "launch": img.Launch,
		"created": img.Created, "modified": img.Modified, "capacity": img.Capacity, "objects": objects,
	})
}
