// The guest in Casemate's contract.
import { work } from "./work";

@external("casemate_v1", "input_len")
declare function input_len(): u32;
@external("casemate_v1", "input_read")
declare function input_read(off: u32, ptr: usize, len: u32): u32;
@external("casemate_v1", "output_write")
declare function output_write(ptr: usize, len: u32): i32;

export function casemate_abi_1(): i32 {
  return 1;
}

export function describe(): i32 {
  const text = String.UTF8.encode(
    '{"v":1,"name":"bench-assemblyscript","version":"1.0.0","kinds":["tool"],' +
      '"tools":[{"name":"bench","description":"Sums.","parameters":{"type":"object"},"effects":"pure"}],' +
      '"warm_up":[{"tool":"bench","arguments":{"a":1,"b":2}}]}',
  );
  return output_write(changetype<usize>(text), text.byteLength);
}

export function tool_call(): i32 {
  const input = new Uint8Array(input_len());
  input_read(0, input.dataStart, input.length);
  const output = work(input);
  if (output === null) return 1;
  return output_write(output.dataStart, output.length);
}
