package plugins

import (
	"fmt"

	"github.com/casemate/casemate/plugins/manifest"
)

// CheckArguments holds the arguments of a call against a JSON Schema, under the
// bounds that a plugin's own schemas have. The error says what is wrong with the
// arguments, or that the schema is none.
func CheckArguments(schema, arguments []byte) error {
	s, err := manifest.ParseSchema(schema)
	if err != nil {
		return fmt.Errorf("plugins: schema: %w", err)
	}
	return s.Check(arguments)
}

// CheckSchema says what keeps a text from being a JSON Schema that calls may be
// held against; nil: nothing.
func CheckSchema(schema []byte) error {
	_, err := manifest.ParseSchema(schema)
	return err
}
