package egress

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// How a secret is named in a header value.
const (
	secretOpen  = "{{secret:"
	secretClose = "}}"
)

// ownFields are the header fields of a request that are the host's to write:
// about this connection, where the message ends, or what a proxy sees; and
// those by which some servers take another method, path or host than the rules
// were asked for.
var ownFields = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true, "keep-alive": true,
	"te": true, "trailer": true, "upgrade": true, "expect": true, "http2-settings": true, "proxy": true,
	"x-http-method": true, "x-http-method-override": true, "x-method-override": true,
	"x-original-url": true, "x-rewrite-url": true, "forwarded": true, "x-forwarded-host": true, "x-host": true,
}

// hopFields are those of a response that are about the connection only.
var hopFields = map[string]bool{
	"connection": true, "keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
}

// ownField reports whether a field, by its name in lower case, is not the
// plugin's to set. Some servers take _ for -.
func ownField(name string) bool {
	name = strings.ReplaceAll(name, "_", "-")
	return ownFields[name] || strings.HasPrefix(name, "proxy-")
}

// credential holds the fields that another origin must not get.
var credential = map[string]bool{"authorization": true, "cookie": true, "cookie2": true, "www-authenticate": true}

// field is one checked header field of a request.
type field struct {
	name   string // lower case
	value  string
	secret bool // value names a secret
	own    bool // another origin must not get it, nor a wire that others read
}

// parseFields checks the header fields that a plugin sets. Its error is an
// *HTTPError.
func parseFields(raw []capability.HTTPHeader) ([]field, error) {
	size := 0
	fields := make([]field, 0, len(raw))
	for _, f := range raw {
		name := strings.ToLower(f.Name)
		switch {
		case !validFieldName(name), !validFieldValue(f.Value), ownField(name):
			return nil, &capability.HTTPError{Code: abi.HTTPInvalidHeader, Audit: capability.AuditHeader}
		}
		size += len(name) + len(f.Value)
		fields = append(fields, field{name: name, value: f.Value, secret: strings.Contains(f.Value, secretOpen)})
	}
	if len(fields) > maxFields || size > maxFieldBytes {
		return nil, &capability.HTTPError{Code: abi.HTTPRequestTooLarge}
	}
	return fields, nil
}

// header returns the fields as they are sent to t, with the values of secrets.
// Its error is an *HTTPError: a secret that is not bound to t and the field is
// refused, and so is one that would go without TLS.
func (c *Client) header(fields []field, t target) (http.Header, error) {
	h := make(http.Header, len(fields)+1)
	for _, f := range fields {
		value := f.value
		if f.secret {
			var err error
			if value, err = c.fill(f, t); err != nil {
				return nil, err
			}
		}
		h.Add(f.name, value)
	}
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", "casemate")
	}
	return h, nil
}

// bindsConn reports whether a request asks the server to know its sender by the
// connection, as NTLM does. Connections serve one tenant after another, so that
// one must not be used again.
func bindsConn(h http.Header) bool {
	for _, v := range h.Values("Authorization") {
		scheme, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(v, "\t", " ")), " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}

// fill puts the values of secrets into the value of a field.
func (c *Client) fill(f field, t target) (string, error) {
	var out strings.Builder
	rest := f.value
	for {
		before, after, found := strings.Cut(rest, secretOpen)
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, tail, closed := strings.Cut(after, secretClose)
		if !closed || !validSecretName(name) {
			return "", &capability.HTTPError{Code: abi.HTTPInvalidHeader}
		}
		value, bound := c.secret(name, t.host, f.name)
		if !bound || t.url.Scheme != "https" {
			return "", &capability.HTTPError{Code: abi.HTTPSecretDenied, Audit: capability.AuditSecret}
		}
		out.WriteString(value)
		rest = tail
	}
}

// crossed returns the fields that another origin may get.
func crossed(fields []field) []field {
	var kept []field
	for _, f := range fields {
		if !f.secret && !f.own && !credential[f.name] {
			kept = append(kept, f)
		}
	}
	return kept
}

// withoutBody returns the fields of a request that lost its body.
func withoutBody(fields []field) []field {
	var kept []field
	for _, f := range fields {
		if !strings.HasPrefix(f.name, "content-") {
			kept = append(kept, f)
		}
	}
	return kept
}

// responseFields returns what a plugin sees of a response's header, names in
// lower case and sorted, so that the same response costs it the same. Set-Cookie
// is a plugin's to keep: there is no jar here.
func responseFields(h http.Header) []capability.HTTPHeader {
	fields := make([]capability.HTTPHeader, 0, len(h))
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name := strings.ToLower(key)
		if hopFields[name] || strings.HasPrefix(name, "proxy-") {
			continue
		}
		for _, v := range h[key] {
			fields = append(fields, capability.HTTPHeader{Name: name, Value: strings.ToValidUTF8(v, "\uFFFD")})
		}
	}
	return fields
}

// validFieldName reports whether name is a token of RFC 9110.
func validFieldName(name string) bool {
	return name != "" && len(name) <= 256 && token(name)
}

// validFieldValue reports whether value stays on one line.
func validFieldValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validMethod reports whether a method can be sent at all. CONNECT asks for a
// tunnel and TRACE for an echo of what was sent, secrets too.
func validMethod(m string) bool {
	switch strings.ToUpper(m) {
	case "", "CONNECT", "TRACE", "TRACK":
		return false
	}
	return len(m) <= 32 && token(m)
}

func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}
