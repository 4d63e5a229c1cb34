package tooltest_test

import (
	"fmt"
	"strings"

	"github.com/casemate/casemate/sdk/tool"
	"github.com/casemate/casemate/sdk/tool/tooltest"
)

type shoutArgs struct {
	Text string `json:"text"`
}

// A plugin registers its tools while it is initialised.
func init() {
	tool.Plugin("shout", "0.1.0", "Says things loudly.")
	tool.Register(tool.Tool{Name: "shout", Description: "Says text loudly.", Effects: tool.Pure},
		func(_ tool.Context, a shoutArgs) (string, error) {
			if a.Text == "" {
				return "", tool.InvalidArgs("there is nothing to say")
			}
			return strings.ToUpper(a.Text), nil
		})
}

func ExampleRun() {
	for _, arguments := range []string{`{"text":"hello"}`, `{"text":""}`} {
		r, err := tooltest.Run(tooltest.Call{Tool: "shout", Arguments: arguments})
		if err != nil {
			fmt.Println(err)
			return
		}
		if r.Fail != nil {
			fmt.Printf("%s: %s\n", r.Fail.Code, r.Fail.Text)
			continue
		}
		fmt.Println(r.Text())
	}
	// Output:
	// HELLO
	// invalid_args: there is nothing to say
}
