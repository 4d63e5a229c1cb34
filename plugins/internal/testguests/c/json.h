// Enough of JSON to find the members of an envelope and read whole numbers. It
// expects valid JSON, as the host sends it; it allocates nothing.
#ifndef JSON_H
#define JSON_H

#include "casemate.h"

static inline const char *json_space(const char *p, const char *end) {
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

// json_string returns the end of the string that begins at p.
static inline const char *json_string(const char *p, const char *end) {
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p < end ? p + 1 : end;
}

// json_value returns the end of the value that begins at p.
static inline const char *json_value(const char *p, const char *end) {
	int depth = 0;
	for (; p < end; p++) {
		switch (*p) {
		case '"':
			p = json_string(p, end);
			if (depth == 0)
				return p;
			p--;
			break;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (depth == 0)
				return p;
			if (--depth == 0)
				return p + 1;
			break;
		case ',':
		case ' ':
		case '\t':
		case '\n':
		case '\r':
			if (depth == 0)
				return p;
		}
	}
	return end;
}

// json_member returns the value of a member of an object as it is written,
// with p NULL if there is none. Names are compared as written too.
static inline struct text json_member(struct text object, struct text name) {
	const char *end = object.p + object.len;
	const char *p = json_space(object.p, end);
	if (p == end || *p != '{')
		return (struct text){0};
	p = json_space(p + 1, end);
	while (p < end && *p == '"') {
		const char *key = p + 1;
		p = json_string(p, end);
		struct text found = {key, (uint32_t)(p - 1 - key)};
		p = json_space(p, end);
		if (p < end && *p == ':')
			p = json_space(p + 1, end);
		const char *value = p;
		p = json_value(p, end);
		if (text_is(found, name))
			return (struct text){value, (uint32_t)(p - value)};
		p = json_space(p, end);
		if (p < end && *p == ',')
			p = json_space(p + 1, end);
	}
	return (struct text){0};
}

// json_int reads a whole number. It returns 0 if the value is none.
static inline int json_int(struct text value, int64_t *out) {
	uint32_t i = value.len > 0 && value.p[0] == '-';
	uint64_t n = 0;
	if (value.len == i || value.len - i > 18)
		return 0;
	for (uint32_t k = i; k < value.len; k++) {
		if (value.p[k] < '0' || value.p[k] > '9')
			return 0;
		n = n * 10 + (uint64_t)(value.p[k] - '0');
	}
	*out = i ? -(int64_t)n : (int64_t)n;
	return 1;
}

// json_print writes a whole number to buf, which has room for 20 bytes.
static inline struct text json_print(char buf[20], int64_t n) {
	char *end = buf + 20, *p = end;
	uint64_t u = n < 0 ? -(uint64_t)n : (uint64_t)n;
	do {
		*--p = (char)('0' + u % 10);
		u /= 10;
	} while (u > 0);
	if (n < 0)
		*--p = '-';
	return (struct text){p, (uint32_t)(end - p)};
}

#endif
