// Enough of JSON to find the members of an envelope and read whole numbers. It
// expects valid JSON, as the host sends it; it allocates nothing.
import { same } from "./casemate";

/** Where the value that member found begins, and its length. */
export let value: usize = 0;
export let valueLen: u32 = 0;

function isSpace(c: u8): bool {
  return c == 0x20 || c == 0x09 || c == 0x0a || c == 0x0d;
}

function skipSpace(p: usize, end: usize): usize {
  while (p < end && isSpace(load<u8>(p))) p++;
  return p;
}

/** Returns the end of the string that begins at p. */
function skipString(p: usize, end: usize): usize {
  for (p++; p < end && load<u8>(p) != 0x22; p++) {
    if (load<u8>(p) == 0x5c) p++;
  }
  return p < end ? p + 1 : end;
}

/** Returns the end of the value that begins at p. */
function skipValue(p: usize, end: usize): usize {
  let depth = 0;
  while (p < end) {
    const c = load<u8>(p);
    if (c == 0x22) {
      p = skipString(p, end);
      if (depth == 0) return p;
      continue;
    }
    if (c == 0x7b || c == 0x5b) {
      depth++;
    } else if (c == 0x7d || c == 0x5d) {
      if (depth == 0) return p;
      if (--depth == 0) return p + 1;
    } else if (depth == 0 && (c == 0x2c || isSpace(c))) {
      return p;
    }
    p++;
  }
  return end;
}

/**
 * Finds a member of an object by its name, both as they are written, and
 * leaves it in value and valueLen. It tells whether there is one.
 */
export function member(object: usize, len: u32, name: string): bool {
  const end = object + len;
  let p = skipSpace(object, end);
  if (p == end || load<u8>(p) != 0x7b) return false;
  p = skipSpace(p + 1, end);
  while (p < end && load<u8>(p) == 0x22) {
    const key = p + 1;
    p = skipString(p, end);
    const keyLen = <u32>(p - 1 - key);
    p = skipSpace(p, end);
    if (p < end && load<u8>(p) == 0x3a) p = skipSpace(p + 1, end);
    value = p;
    p = skipValue(p, end);
    valueLen = <u32>(p - value);
    if (same(key, keyLen, name)) return true;
    p = skipSpace(p, end);
    if (p < end && load<u8>(p) == 0x2c) p = skipSpace(p + 1, end);
  }
  return false;
}

/** What int read. */
export let number: i64 = 0;

/** Reads the value that member found as a whole number into number. */
export function int(): bool {
  const sign: u32 = valueLen > 0 && load<u8>(value) == 0x2d ? 1 : 0;
  if (valueLen == sign || valueLen - sign > 18) return false;
  let n: i64 = 0;
  for (let i = sign; i < valueLen; i++) {
    const digit = <u32>load<u8>(value + i) - 0x30;
    if (digit > 9) return false;
    n = n * 10 + digit;
  }
  number = sign ? -n : n;
  return true;
}

/** Room for the digits of a number, and where those of the last one begin. */
const DIGITS: u32 = 20;
const digits: usize = memory.data(20);
export let printed: usize = 0;

/** Writes a whole number from printed on, and returns its length. */
export function print(n: i64): u32 {
  const end = digits + DIGITS;
  let p = end;
  let u = <u64>(n < 0 ? -n : n);
  do {
    store<u8>(--p, <u8>(0x30 + (u % 10)));
    u /= 10;
  } while (u > 0);
  if (n < 0) store<u8>(--p, 0x2d);
  printed = p;
  return <u32>(end - p);
}
