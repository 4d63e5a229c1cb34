// Package mcp speaks the Model Context Protocol: it lists and calls the tools of
// servers that clients name, under the operator's egress rules, and serves a
// tenant's granted tools to MCP clients. It runs no tool itself and stores
// nothing.
package mcp
