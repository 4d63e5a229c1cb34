// What a guest asks of its host, once per contract: where it is called, its
// input, its output and its heap. It needs no C library.
#pragma once
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

enum { PAGE = 65536 };

extern unsigned char __heap_base;

// heap returns n bytes, always the same ones, or null.
static unsigned char *heap(uint32_t n) {
	uintptr_t end = (uintptr_t)&__heap_base + n;
	uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
	if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (uintptr_t)-1)
		return 0;
	return &__heap_base;
}

// work answers the input; its result is what the export returns.
static int32_t work(void);

#ifdef EXTISM

IMPORT("extism:host/env", "input_length") uint64_t input_length(void);
IMPORT("extism:host/env", "input_load_u8") uint32_t input_load_u8(uint64_t);
IMPORT("extism:host/env", "input_load_u64") uint64_t input_load_u64(uint64_t);
IMPORT("extism:host/env", "alloc") uint64_t alloc(uint64_t);
IMPORT("extism:host/env", "store_u8") void store_u8(uint64_t, uint32_t);
IMPORT("extism:host/env", "store_u64") void store_u64(uint64_t, uint64_t);
IMPORT("extism:host/env", "output_set") void output_set(uint64_t, uint64_t);

static uint32_t input_size(void) { return (uint32_t)input_length(); }

static void input(unsigned char *p, uint32_t n) {
	uint32_t i = 0;
	for (; i + 8 <= n; i += 8) {
		uint64_t v = input_load_u64(i);
		__builtin_memcpy(p + i, &v, 8);
	}
	for (; i < n; i++) p[i] = (unsigned char)input_load_u8(i);
}

static void output(const unsigned char *p, uint32_t n) {
	uint64_t at = alloc(n);
	uint32_t i = 0;
	for (; i + 8 <= n; i += 8) {
		uint64_t v;
		__builtin_memcpy(&v, p + i, 8);
		store_u64(at + i, v);
	}
	for (; i < n; i++) store_u8(at + i, p[i]);
	output_set(at, n);
}

EXPORT("tool_call") int32_t tool_call(void) { return work(); }

#else

IMPORT("casemate_v1", "input_len") uint32_t input_len(void);
IMPORT("casemate_v1", "input_read") uint32_t input_read(uint32_t, unsigned char *, uint32_t);
IMPORT("casemate_v1", "output_write") int32_t output_write(const unsigned char *, uint32_t);

static uint32_t input_size(void) { return input_len(); }
static void input(unsigned char *p, uint32_t n) { input_read(0, p, n); }
static void output(const unsigned char *p, uint32_t n) { output_write(p, n); }

static const char descriptor[] =
	"{\"v\":1,\"name\":\"bench-c\",\"version\":\"1.0.0\",\"kinds\":[\"tool\"],"
	"\"tools\":[{\"name\":\"bench\",\"description\":\"Sums.\",\"parameters\":{\"type\":\"object\"},\"effects\":\"pure\"}]}";

EXPORT("casemate_abi_1") int32_t marker(void) { return 1; }
EXPORT("describe") int32_t describe(void) {
	output((const unsigned char *)descriptor, sizeof descriptor - 1);
	return 0;
}
EXPORT("tool_call") int32_t tool_call(void) { return work(); }

#endif
