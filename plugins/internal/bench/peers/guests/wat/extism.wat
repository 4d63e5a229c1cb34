;; The head of the guest in Extism's contract; work.wat is the rest.
(module
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func $size (result i32) (i32.wrap_i64 (call $input_length)))
  (func $input (param $p i32) (param $n i32)
    (local $i i32)
    (block $bytes
      (loop $words
        (br_if $bytes (i32.gt_u (i32.add (local.get $i) (i32.const 8)) (local.get $n)))
        (i64.store (i32.add (local.get $p) (local.get $i)) (call $input_load_u64 (i64.extend_i32_u (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (br $words)))
    (loop $rest
      (if (i32.lt_u (local.get $i) (local.get $n))
        (then
          (i32.store8 (i32.add (local.get $p) (local.get $i)) (call $input_load_u8 (i64.extend_i32_u (local.get $i))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $rest)))))
  (func $output (param $p i32) (param $n i32)
    (local $i i32) (local $start i64)
    (local.set $start (call $alloc (i64.extend_i32_u (local.get $n))))
    (block $bytes
      (loop $words
        (br_if $bytes (i32.gt_u (i32.add (local.get $i) (i32.const 8)) (local.get $n)))
        (call $store_u64
          (i64.add (local.get $start) (i64.extend_i32_u (local.get $i)))
          (i64.load (i32.add (local.get $p) (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (br $words)))
    (loop $rest
      (if (i32.lt_u (local.get $i) (local.get $n))
        (then
          (call $store_u8
            (i64.add (local.get $start) (i64.extend_i32_u (local.get $i)))
            (i32.load8_u (i32.add (local.get $p) (local.get $i))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $rest))))
    (call $output_set (local.get $start) (i64.extend_i32_u (local.get $n))))
