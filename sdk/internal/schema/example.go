package schema

import "encoding/json"

// Example returns a value of s with every member of its objects, as JSON. It
// is made up: a type that reads its own text may refuse it.
func (s *Schema) Example() json.RawMessage {
	text, err := json.Marshal(s.example())
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}

func (s *Schema) example() any {
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch s.Type {
	case "object":
		o := make(map[string]any, len(s.Properties))
		for _, p := range s.Properties {
			o[p.Name] = p.Schema.example()
		}
		if s.Values != nil {
			o["name"] = s.Values.example()
		}
		return o
	case "array":
		return []any{s.Items.example()}
	case "string":
		return s.exampleText()
	case "integer", "number":
		return 1
	case "boolean":
		return true
	}
	return nil
}

func (s *Schema) exampleText() string {
	switch {
	case s.Format == "date-time":
		return "2000-01-01T00:00:00Z"
	case s.Encoding == "base64":
		return "dGV4dA=="
	}
	return "text"
}
