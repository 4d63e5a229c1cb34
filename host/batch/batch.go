// Package batch turns the lines of an input file into queued requests, and
// follows a batch from its validation to its end. It answers no HTTP and runs no
// request.
package batch
