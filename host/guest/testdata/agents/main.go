// Command agents is a tool plugin with a name that no plugin may have.
package main

import "github.com/casemate/casemate/sdk/tool"

func init() {
	tool.Plugin("agents", "0.1.0", "Has the name of something else.")
	tool.Register(tool.Tool{Name: "say", Description: "Says nothing.", Effects: tool.Pure}, say)
}

func main() {}

func say(tool.Context, struct{}) (string, error) { return "", nil }
