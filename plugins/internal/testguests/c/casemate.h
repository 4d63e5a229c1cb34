// What a plugin written in C needs of native/1: its imports, its exports, and
// the input of a call. Include it in one file.
#ifndef CASEMATE_H
#define CASEMATE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CASEMATE_EXPORT(name) __attribute__((export_name(name), used))
#define CASEMATE_IMPORT(name) \
	__attribute__((import_module("casemate_v1"), import_name(name)))

CASEMATE_IMPORT("input_len")
extern uint32_t casemate_input_len(void);
CASEMATE_IMPORT("input_read")
extern uint32_t casemate_input_read(uint32_t off, void *p, uint32_t len);
CASEMATE_IMPORT("output_write")
extern int32_t casemate_output_write(const void *p, uint32_t len);
CASEMATE_IMPORT("fail")
extern void casemate_fail_raw(int32_t code, int32_t retry_after_ms,
                              const void *p, uint32_t len);

// The codes of a failed call.
enum casemate_code {
	CASEMATE_INVALID_ARGS = 1,
	CASEMATE_NOT_FOUND = 2,
	CASEMATE_DENIED = 3,
	CASEMATE_TRANSIENT = 4,
	CASEMATE_PERMANENT = 5,
	CASEMATE_INTERNAL = 6,
};

// A piece of text that someone else owns; it does not end in NUL.
struct text {
	const char *p;
	uint32_t len;
};

#define TEXT(literal) ((struct text){literal, sizeof(literal) - 1})

static inline int text_is(struct text a, struct text b) {
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

// casemate_write appends to the output. It returns 0, or a negative errno and
// has then written nothing.
static inline int32_t casemate_write(struct text t) {
	return casemate_output_write(t.p, t.len);
}

// casemate_fail fails the call and returns what its export should return.
static inline int32_t casemate_fail(enum casemate_code code, struct text why) {
	casemate_fail_raw(code, -1, why.p, why.len);
	return 1;
}

// casemate_input returns the input of the call, with p NULL if there is no
// memory for it. casemate_input_free ends its life. Most inputs are small and
// go where the last one was, so that a call touches few pages.
static char casemate_small[4096];

static inline struct text casemate_input(void) {
	uint32_t len = casemate_input_len();
	char *p = len <= sizeof casemate_small ? casemate_small : malloc(len);
	if (p != NULL)
		casemate_input_read(0, p, len);
	return (struct text){p, len};
}

static inline void casemate_input_free(struct text input) {
	if (input.p != casemate_small)
		free((void *)input.p);
}

// The host looks for this export to know a plugin of native/1.
CASEMATE_EXPORT("casemate_abi_1")
int32_t casemate_abi_1(void) { return 0; }

#endif
