package response

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// inputPart says what a content part of a type must hold.
type inputPart struct {
	text  string   // the member that is its text; "": none
	oneOf []string // at least one of these members, strings
}

// inputParts are the content parts that a model can be shown. Nothing that a
// client sent is dropped in silence, so others are refused.
var inputParts = map[string]inputPart{
	"input_text":     {text: "text"},
	"output_text":    {text: "text"},
	"text":           {text: "text"},
	"summary_text":   {text: "text"},
	"reasoning_text": {text: "text"},
	"refusal":        {text: "refusal"},
	"input_image":    {oneOf: []string{"image_url", keyFileID}},
	"input_file":     {oneOf: []string{"file_data", "file_url", keyFileID}},
	"input_audio":    {},
	"image_url":      {}, // as Chat Completions has it
}

// keyFileID is the member of a part that stands for an uploaded file.
const keyFileID = "file_id"

// parts checks content parts.
func (f *fields) parts(name string, raw json.RawMessage) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		f.fail(name, "invalid_type", name+" must be an array of parts.")
		return
	}
	for i, r := range list {
		p, bad := parseFields(fmt.Sprintf("%s[%d]", f.param(name), i), r)
		if bad != nil {
			f.adopt(&fields{err: bad})
			return
		}
		p.part()
		f.adopt(p)
	}
}

// part checks one content part.
func (f *fields) part() {
	kind := f.required("type")
	rule, ok := inputParts[kind]
	switch {
	case f.err != nil:
		return
	case !ok:
		f.fail("", "unsupported_value", "This kind of content part is not supported: "+
			"use input_text, output_text, refusal, input_image, input_file or input_audio.")
		return
	case rule.text != "":
		if f.strPtr(rule.text) == nil {
			f.fail(rule.text, "missing_required_parameter", rule.text+" is required.")
		}
	case rule.oneOf != nil:
		there := func(k string) bool { return f.str(k) != "" }
		if !slices.ContainsFunc(rule.oneOf, there) {
			f.fail("", "missing_required_parameter", kind+" needs one of "+strings.Join(rule.oneOf, ", ")+".")
		}
		f.name(keyFileID)
		f.name("filename")
		f.oneOf("detail", "auto", "low", "high", "original")
	case kind == "input_audio":
		f.audio()
	default:
		f.imageURL()
	}
}

func (f *fields) audio() {
	a := f.inner("input_audio")
	if a == nil {
		f.fail("input_audio", "missing_required_parameter", "input_audio is required.")
		return
	}
	a.required("data")
	a.required("format")
	f.adopt(a)
}

// imageURL checks the address of an image: a string, or {url}.
func (f *fields) imageURL() {
	raw := f.m["image_url"]
	if len(raw) > 0 && raw[0] == '{' {
		u := f.inner("image_url")
		if u == nil {
			return
		}
		u.required("url")
		f.adopt(u)
		return
	}
	f.required("image_url")
}

// File is what an uploaded file is to a model.
type File struct {
	Name string
	URL  string // a data: URL
}

// ResolveFiles returns the item with each file_id of its content replaced by the
// content of the file. load gets the parameter that the id stands at; its error
// ends the work. param is the item's.
func ResolveFiles(it Item, param string, load func(param, id string) (File, error)) (Item, error) {
	var key string
	switch it.Type {
	case itemMessage:
		key = "content"
	case itemFunctionOutput, itemCustomOutput:
		key = "output"
	default:
		return it, nil
	}
	var m map[string]json.RawMessage
	var parts []map[string]json.RawMessage
	if json.Unmarshal(it.Raw, &m) != nil || json.Unmarshal(m[key], &parts) != nil {
		return it, nil // no parts
	}
	changed := false
	for i, p := range parts {
		id := text(p[keyFileID])
		if id == "" || inputParts[text(p["type"])].oneOf == nil {
			continue
		}
		file, err := load(fmt.Sprintf("%s.%s[%d].%s", param, key, i, keyFileID), id)
		if err != nil {
			return it, err
		}
		changed = true
		delete(p, keyFileID)
		if text(p["type"]) == "input_image" {
			p["image_url"] = marshal(file.URL)
			continue
		}
		p["file_data"] = marshal(file.URL)
		if text(p["filename"]) == "" {
			p["filename"] = marshal(file.Name)
		}
	}
	if changed {
		m[key] = marshal(parts)
		it.Raw = marshal(m)
	}
	return it, nil
}
