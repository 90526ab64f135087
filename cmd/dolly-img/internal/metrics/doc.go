// Package metrics lets Prometheus read what a daemon or a controller counts and knows.
//
// What is exposed is in the tables below. Their Help is what a scrape says, and the README has the same rows; a test compares them.
//
//   - Labels have no names of nodes and no digests. Their values are in the tables, but for versions and images. An image is called as
//     in the list, without a digest. What then has the same name has one row together.
//   - A counter has all its series from the start, at 0, so that rate() sees the first event.
//   - What is not known is absent, and not 0: a time at which nothing has happened yet, or a mirror that is not served.
//   - The series of an image that is not listed any more are gone.
//
// The format is the text exposition format of Prometheus, version 0.0.4:
// https://github.com/prometheus/docs/blob/main/content/docs/instrumenting/exposition_formats.md
//
// The writer is our own, because client_golang would be 44 more packages in a program that needs a hundred lines of it.
package metrics

// Types of metrics.
const (
	counter = "counter"
	gauge   = "gauge"
)

// A Metric is one that is exposed. Its series differ in the values of Labels.
type Metric struct {
	Name   string
	Type   string
	Labels []string
	// Values are all those of the only label, where they are known. One that is none of them counts as the last.
	Values []string
	Help   string
}

// Metrics of every program.
var (
	BuildInfo = &Metric{"dolly_img_build_info", gauge, []string{"version", "revision", "goversion"}, nil,
		"Always 1. The labels say which program this is."}
	CertificateExpiry = &Metric{"dolly_img_certificate_expiry_timestamp_seconds", gauge, []string{"certificate"}, []string{"own", "authority"},
		"When the certificate that is in force ends, and when the last authority in ca.pem does."}
	ConfigValid = &Metric{"dolly_img_config_valid", gauge, nil, nil,
		"0 if the configuration was refused when it was last read again: policy and keys of a daemon, the list of warm. What was before is in force."}
)

// Metrics of a daemon.
var (
	Transfers = &Metric{"dolly_img_transfers_total", counter, []string{"outcome"}, []string{"committed", "held", "refused", "interrupted", "failed"},
		"Transfers that ended here. held: nothing had to move. refused: this node said no. interrupted: the sender was ended, or its source failed."}
	TransferBytes = &Metric{"dolly_img_transfer_bytes_total", counter, []string{"direction"}, []string{"received", "sent"},
		"Payload of data links. Runs of zeros do not travel and are not counted; what travels twice is counted twice."}
	LinkFaults = &Metric{"dolly_img_link_faults_total", counter, []string{"cause"}, []string{"network", "crc", "mismatch", "gone", "busy", "protocol", "other"},
		"Data links from or to this node that broke while their transfer ran, as this node saw it first. Other nodes may be the cause."}
	CacheBytes = &Metric{"dolly_img_cache_bytes", gauge, nil, nil,
		"Size of all blobs in the cache, which [cache] max of the policy bounds. It may be a minute old."}
	CacheImages = &Metric{"dolly_img_cache_images", gauge, nil, nil,
		"Images in the cache, as dolly-img cache ls lists them. It may be a minute old."}
	MirrorRequests = &Metric{"dolly_img_mirror_requests_total", counter, []string{"result"}, []string{"hit", "miss", "refused", "error"},
		"Requests of runtimes. miss: the runtime has to ask the registry. refused: the request was malformed or no read. error: the cache could not be read."}
	MirrorLastSuccess = &Metric{"dolly_img_mirror_last_success_timestamp_seconds", gauge, nil, nil,
		"When a request of a runtime was last a hit."}
)

// Metrics of a controller.
var (
	WarmNodes = &Metric{"dolly_img_warm_nodes", gauge, []string{"image", "state"}, nil,
		"Nodes of a listed image by state: warm, warming, behind, missing, full, failed, conflict, away, unknown."}
	WarmLastSuccess = &Metric{"dolly_img_warm_last_success_timestamp_seconds", gauge, []string{"image"}, nil,
		"When a listed image was last warm on as many nodes as its min says, on all platforms."}
)

// Daemon is what dolly-img daemon exposes, in this order.
var Daemon = []*Metric{
	BuildInfo, CertificateExpiry, ConfigValid, Transfers, TransferBytes, LinkFaults, CacheBytes, CacheImages, MirrorRequests, MirrorLastSuccess,
}

// Controller is what dolly-img warm exposes, in this order.
var Controller = []*Metric{BuildInfo, CertificateExpiry, ConfigValid, WarmNodes, WarmLastSuccess}
