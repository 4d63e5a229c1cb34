// Command calculator is a tool plugin that evaluates arithmetic exactly. It
// keeps no state and asks for no powers.
package main

import (
	"encoding/json"

	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("calculator", "0.1.0", "Evaluates arithmetic expressions.")
	tool.Register(tool.Tool{
		Name: "calculator",
		Description: "Evaluates an arithmetic expression exactly and returns its value. " +
			"Operators: + - * / % (remainder), ^ or ** (power), parentheses.",
		Effects: tool.Pure,
	}, calculate)
	tool.WarmUp("calculator", args{Expression: "(1.5 + 2) * 3 ^ 2 / 7"})
}

func main() {}

type args struct {
	Expression string `json:"expression" jsonschema:"the expression, for example (6+1)*7/2"`
}

// calculate returns a JSON number, or a string of digits where a whole number
// is larger than a JSON number can safely be.
func calculate(_ tool.Context, a args) (any, error) {
	value, err := evaluate(a.Expression)
	if err != nil {
		return nil, tool.InvalidArgs("expression: %w", err)
	}
	text := format(value)
	if value.IsInt() && value.Num().BitLen() > 53 {
		return text, nil
	}
	return json.Number(text), nil
}
