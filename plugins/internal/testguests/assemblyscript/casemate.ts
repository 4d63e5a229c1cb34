// What a plugin written in AssemblyScript needs of native/1: its imports, its
// marker, and the input of a call. Memory is raw: nothing here is collected.

// @ts-ignore: decorator
@external("casemate_v1", "input_len")
declare function input_len(): u32;
// @ts-ignore: decorator
@external("casemate_v1", "input_read")
declare function input_read(off: u32, ptr: usize, len: u32): u32;
// @ts-ignore: decorator
@external("casemate_v1", "output_write")
declare function output_write(ptr: usize, len: u32): i32;
// @ts-ignore: decorator
@external("casemate_v1", "fail")
declare function fail_raw(code: i32, retry_after_ms: i32, ptr: usize, len: u32): void;

/** The codes of a failed call. */
export const enum Code {
  InvalidArgs = 1,
  NotFound = 2,
  Denied = 3,
  Transient = 4,
  Permanent = 5,
  Internal = 6,
}

/** The most bytes of an input that need no memory of their own. */
const SMALL: u32 = 4096;
const small: usize = memory.data(4096, 8);

/** The input of the current call, and its length. */
export let input: usize = 0;
export let inputLen: u32 = 0;

/** Reads the input of the call; done ends its life. */
export function begin(): void {
  inputLen = input_len();
  input = inputLen <= SMALL ? small : heap.alloc(inputLen);
  input_read(0, input, inputLen);
}

export function done(): void {
  if (input != small) heap.free(input);
}

/** Appends to the output: all of it, or nothing and a negative number. */
export function write(ptr: usize, len: u32): i32 {
  return output_write(ptr, len);
}

/** Appends a literal text, which is ASCII, to the output. */
export function writeText(s: string): i32 {
  const len = <u32>s.length;
  const at = ascii(s);
  const status = output_write(at, len);
  heap.free(at);
  return status;
}

/** Fails the call and returns what its export should return. */
export function fail(code: Code, why: string): i32 {
  const at = ascii(why);
  fail_raw(code, -1, at, <u32>why.length);
  heap.free(at);
  return 1;
}

/** Returns the characters of s, which is ASCII, one byte each. */
function ascii(s: string): usize {
  const at = heap.alloc(s.length);
  for (let i = 0; i < s.length; i++) store<u8>(at + i, <u8>s.charCodeAt(i));
  return at;
}

/** Tells whether the bytes at ptr are those of s, which is ASCII. */
export function same(ptr: usize, len: u32, s: string): bool {
  if (len != <u32>s.length) return false;
  for (let i: u32 = 0; i < len; i++) {
    if (load<u8>(ptr + i) != s.charCodeAt(i)) return false;
  }
  return true;
}

/** The host looks for this export to know a plugin of native/1. */
export function casemate_abi_1(): i32 {
  return 0;
}
