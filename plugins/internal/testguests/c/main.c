// The test guest in C. Every tool that counts does so in memory and in a
// global; on an instance as it was after initialisation both are 1.
#include "casemate.h"
#include "json.h"
#include "sha256.h"

#define TOOL(name, parameters) \
	"{\"name\":\"" name "\",\"description\":\"\",\"parameters\":" parameters ",\"effects\":\"pure\"}"
#define NONE "{\"type\":\"object\"}"
#define NUMBER(name) "\"" name "\":{\"type\":\"integer\"}"
#define COUNT_OF "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":0}},\"required\":[\"n\"]}"
#define SUMMANDS "{\"type\":\"object\",\"properties\":{" NUMBER("a") "," NUMBER("b") "},\"required\":[\"a\",\"b\"]}"

CASEMATE_EXPORT("describe")
int32_t describe(void) {
	return casemate_write(TEXT(
		"{\"v\":1,\"name\":\"pristine-c\",\"version\":\"0.1.0\",\"kinds\":[\"tool\"],\"tools\":["
		TOOL("count", NONE) "," TOOL("grow", NONE) "," TOOL("trap", NONE) "," TOOL("spin", NONE) ","
		TOOL("echo", NONE) "," TOOL("sum", SUMMANDS) "," TOOL("fib", COUNT_OF) "," TOOL("sha256", COUNT_OF)
		"],\"warm_up\":[{\"v\":1,\"tool\":\"sum\",\"arguments\":{\"a\":1,\"b\":2}}]}"));
}

static int32_t answer(struct text output) {
	casemate_write(TEXT("{\"v\":1,\"output\":"));
	casemate_write(output);
	return casemate_write(TEXT("}"));
}

static int32_t answer_int(int64_t n) {
	char buf[20];
	return answer(json_print(buf, n));
}

// Counts calls in memory; count_global, of global.s, does in a global.
static volatile int32_t counter;
int32_t count_global(void);

static int32_t count(void) {
	char memory[20], global[20];
	counter++;
	casemate_write(TEXT("{\"v\":1,\"output\":{\"memory\":"));
	casemate_write(json_print(memory, counter));
	casemate_write(TEXT(",\"global\":"));
	casemate_write(json_print(global, count_global()));
	return casemate_write(TEXT("}}"));
}

static int32_t grow(void) {
	const uint32_t page = 64 << 10, pages = (20 << 20) / page;
	size_t old = __builtin_wasm_memory_grow(0, pages);
	if (old == SIZE_MAX)
		return casemate_fail(CASEMATE_INTERNAL, TEXT("memory did not grow"));
	volatile char *p = (char *)(old * page);
	for (uint32_t i = 0; i < pages * page; i += 4096)
		p[i] = 1;
	return count();
}

static int32_t spin(void) {
	count();
	for (;;)
		counter++;
}

static int32_t sum(struct text arguments) {
	int64_t a, b;
	if (!json_int(json_member(arguments, TEXT("a")), &a) || !json_int(json_member(arguments, TEXT("b")), &b))
		return casemate_fail(CASEMATE_INVALID_ARGS, TEXT("a and b: want whole numbers"));
	return answer_int(a + b);
}

static uint32_t fib(uint32_t n) {
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

// The bytes that are hashed are 0 to 250, again and again.
static int32_t sha256(uint64_t n) {
	uint32_t h[8];
	uint8_t block[64];
	uint64_t i = 0, padded = (n + 9 + 63) / 64 * 64;
	memcpy(h, sha256_start, sizeof h);
	for (uint32_t value = 0; i < padded; value = value == 250 ? 0 : value + 1) {
		uint8_t *b = &block[i % 64];
		if (i < n)
			*b = (uint8_t)value;
		else if (i == n)
			*b = 0x80;
		else
			*b = i < padded - 8 ? 0 : (uint8_t)(n * 8 >> (padded - 1 - i) * 8);
		if (++i % 64 == 0)
			sha256_block(h, block);
	}
	char hex[66] = "\"";
	for (int k = 0; k < 64; k++)
		hex[k + 1] = "0123456789abcdef"[h[k / 8] >> (28 - k % 8 * 4) & 15];
	hex[65] = '"';
	return answer((struct text){hex, sizeof hex});
}

static int32_t run(struct text input) {
	struct text tool = json_member(input, TEXT("tool"));
	struct text arguments = json_member(input, TEXT("arguments"));
	int64_t n;
	if (text_is(tool, TEXT("\"count\"")))
		return count();
	if (text_is(tool, TEXT("\"grow\"")))
		return grow();
	if (text_is(tool, TEXT("\"trap\""))) {
		count();
		__builtin_trap();
	}
	if (text_is(tool, TEXT("\"spin\"")))
		return spin();
	if (text_is(tool, TEXT("\"echo\"")))
		return answer(arguments);
	if (text_is(tool, TEXT("\"sum\"")))
		return sum(arguments);
	if (!json_int(json_member(arguments, TEXT("n")), &n) || n < 0)
		return casemate_fail(CASEMATE_INVALID_ARGS, TEXT("n: want a whole number, not negative"));
	if (text_is(tool, TEXT("\"fib\"")))
		return answer_int(fib((uint32_t)n));
	if (text_is(tool, TEXT("\"sha256\"")))
		return sha256((uint64_t)n);
	return casemate_fail(CASEMATE_NOT_FOUND, TEXT("no such tool"));
}

CASEMATE_EXPORT("tool_call")
int32_t tool_call(void) {
	struct text input = casemate_input();
	if (input.p == NULL)
		return casemate_fail(CASEMATE_INTERNAL, TEXT("no memory for the input"));
	int32_t status = run(input);
	casemate_input_free(input);
	return status;
}
