// The test guest in AssemblyScript. Every tool that counts does so in memory
// and in a global; on an instance as it was after initialisation both are 1.
import * as casemate from "./casemate";
import { Code, fail, write, writeText } from "./casemate";
import * as json from "./json";
import * as sha256 from "./sha256";

export { casemate_abi_1 } from "./casemate";

const NONE = '{"type":"object"}';
const COUNT_OF = '{"type":"object","properties":{"n":{"type":"integer","minimum":0}},"required":["n"]}';
const SUMMANDS =
  '{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"]}';

function tool(name: string, parameters: string): string {
  return '{"name":"' + name + '","description":"","parameters":' + parameters + ',"effects":"pure"}';
}

export function describe(): i32 {
  return writeText(
    '{"v":1,"name":"pristine-assemblyscript","version":"0.1.0","kinds":["tool"],"tools":[' +
      tool("count", NONE) + "," + tool("grow", NONE) + "," + tool("trap", NONE) + "," +
      tool("spin", NONE) + "," + tool("echo", NONE) + "," + tool("sum", SUMMANDS) + "," +
      tool("fib", COUNT_OF) + "," + tool("sha256", COUNT_OF) +
      '],"warm_up":[{"v":1,"tool":"sum","arguments":{"a":1,"b":2}}]}',
  );
}

// A module-level let is a global of the module; the cell is made by its start
// function.
let counter: i32 = 0;
const cell: usize = heap.alloc(4);
store<i32>(cell, 0);

function count(): i32 {
  counter++;
  store<i32>(cell, load<i32>(cell) + 1);
  writeText('{"v":1,"output":{"memory":');
  let len = json.print(load<i32>(cell));
  write(json.printed, len);
  writeText(',"global":');
  len = json.print(counter);
  write(json.printed, len);
  return writeText("}}");
}

function answer(ptr: usize, len: u32): i32 {
  writeText('{"v":1,"output":');
  write(ptr, len);
  return writeText("}");
}

function answerInt(n: i64): i32 {
  const len = json.print(n);
  return answer(json.printed, len);
}

function grow(): i32 {
  const old = memory.grow((20 << 20) / (64 << 10));
  if (old < 0) return fail(Code.Internal, "memory did not grow");
  const at = <usize>old << 16;
  for (let i: usize = 0; i < 20 << 20; i += 4096) store<u8>(at + i, 1);
  return count();
}

function spin(): i32 {
  count();
  while (true) store<i32>(cell, load<i32>(cell) + 1);
}

function sum(args: usize, len: u32): i32 {
  if (!json.member(args, len, "a") || !json.int()) return notWhole();
  const a = json.number;
  if (!json.member(args, len, "b") || !json.int()) return notWhole();
  return answerInt(a + json.number);
}

function notWhole(): i32 {
  return fail(Code.InvalidArgs, "want a whole number");
}

function fib(n: u32): u32 {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

const block: usize = memory.data(64);
const hex: usize = memory.data(66);

/** Hashes the bytes 0 to 250, again and again. */
function hash(n: u64): i32 {
  const padded = ((n + 9 + 63) / 64) * 64;
  sha256.reset();
  let value: u32 = 0;
  for (let i: u64 = 0; i < padded; ) {
    let b: u32 = 0;
    if (i < n) b = value;
    else if (i == n) b = 0x80;
    else if (i >= padded - 8) b = <u32>((n * 8) >> ((padded - 1 - i) * 8));
    store<u8>(block + <usize>(i % 64), <u8>b);
    value = value == 250 ? 0 : value + 1;
    if (++i % 64 == 0) sha256.block(block);
  }
  store<u8>(hex, 0x22);
  for (let k: u32 = 0; k < 64; k++) {
    const digit = (sha256.word(k / 8) >> (28 - (k % 8) * 4)) & 15;
    store<u8>(hex + 1 + k, <u8>(digit < 10 ? 0x30 + digit : 0x57 + digit));
  }
  store<u8>(hex + 65, 0x22);
  return answer(hex, 66);
}

function isTool(ptr: usize, len: u32, name: string): bool {
  return len >= 2 && casemate.same(ptr + 1, len - 2, name);
}

function call(): i32 {
  if (!json.member(casemate.input, casemate.inputLen, "tool")) return fail(Code.Internal, "no tool");
  const name = json.value, nameLen = json.valueLen;
  if (!json.member(casemate.input, casemate.inputLen, "arguments")) return fail(Code.Internal, "no arguments");
  const args = json.value, argsLen = json.valueLen;
  if (isTool(name, nameLen, "count")) return count();
  if (isTool(name, nameLen, "grow")) return grow();
  if (isTool(name, nameLen, "trap")) {
    count();
    unreachable();
  }
  if (isTool(name, nameLen, "spin")) return spin();
  if (isTool(name, nameLen, "echo")) return answer(args, argsLen);
  if (isTool(name, nameLen, "sum")) return sum(args, argsLen);
  if (!json.member(args, argsLen, "n") || !json.int() || json.number < 0) return notWhole();
  if (isTool(name, nameLen, "fib")) return answerInt(fib(<u32>json.number));
  if (isTool(name, nameLen, "sha256")) return hash(json.number);
  return fail(Code.NotFound, "no such tool");
}

export function tool_call(): i32 {
  casemate.begin();
  const status = call();
  casemate.done();
  return status;
}
