// The guest in Extism's contract.
import { work } from "./work";

@external("extism:host/env", "input_length")
declare function input_length(): u64;
@external("extism:host/env", "input_load_u8")
declare function input_load_u8(off: u64): u32;
@external("extism:host/env", "input_load_u64")
declare function input_load_u64(off: u64): u64;
@external("extism:host/env", "alloc")
declare function alloc(len: u64): u64;
@external("extism:host/env", "store_u8")
declare function store_u8(off: u64, v: u32): void;
@external("extism:host/env", "store_u64")
declare function store_u64(off: u64, v: u64): void;
@external("extism:host/env", "output_set")
declare function output_set(off: u64, len: u64): void;

export function tool_call(): i32 {
  const input = new Uint8Array(i32(input_length()));
  let i = 0;
  for (; i + 8 <= input.length; i += 8) store<u64>(input.dataStart + i, input_load_u64(i));
  for (; i < input.length; i++) input[i] = u8(input_load_u8(i));
  const output = work(input);
  if (output === null) return 1;
  const start = alloc(output.length);
  for (i = 0; i + 8 <= output.length; i += 8) store_u64(start + i, load<u64>(output.dataStart + i));
  for (; i < output.length; i++) store_u8(start + i, output[i]);
  output_set(start, output.length);
  return 0;
}
