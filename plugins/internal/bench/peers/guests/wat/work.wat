  ;; A guest for benchmarks: the answer to a JSON object is the sum of the
  ;; numbers in it, and to a JSON string the string itself. The input is at
  ;; 1024; the answer ends at 256.
  (memory (export "memory") 1)

  ;; reserve makes sure that n bytes fit behind 1024.
  (func $reserve (param $n i32)
    (local $more i32)
    (local.set $more (i32.sub
      (i32.shr_u (i32.add (local.get $n) (i32.const 66559)) (i32.const 16))
      (memory.size)))
    (if (i32.gt_s (local.get $more) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $more)) (i32.const -1)) (then (unreachable))))))

  ;; sum adds the numbers in n bytes at p.
  (func $sum (param $p i32) (param $n i32) (result i64)
    (local $total i64) (local $number i64) (local $c i32)
    (loop $next
      (if (i32.eqz (local.get $n)) (then (return (i64.add (local.get $total) (local.get $number)))))
      (local.set $c (i32.sub (i32.load8_u (local.get $p)) (i32.const 48)))
      (if (i32.lt_u (local.get $c) (i32.const 10))
        (then (local.set $number (i64.add (i64.mul (local.get $number) (i64.const 10)) (i64.extend_i32_u (local.get $c)))))
        (else
          (local.set $total (i64.add (local.get $total) (local.get $number)))
          (local.set $number (i64.const 0))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; answer writes {"v":1,"output":VALUE} and returns where it begins.
  (func $answer (param $v i64) (result i32)
    (local $p i32)
    (local.set $p (i32.const 255))
    (i32.store8 (local.get $p) (i32.const 125))
    (loop $digit
      (local.set $p (i32.sub (local.get $p) (i32.const 1)))
      (i32.store8 (local.get $p) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $v) (i64.const 10)))))
      (local.set $v (i64.div_u (local.get $v) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $v) (i64.const 0))))
    (local.set $p (i32.sub (local.get $p) (i32.const 16)))
    (i64.store (local.get $p) (i64.const 0x222c313a2276227b))
    (i64.store offset=8 (local.get $p) (i64.const 0x3a2274757074756f))
    (local.get $p))

  (func (export "tool_call") (result i32)
    (local $n i32) (local $p i32)
    (local.set $n (call $size))
    (call $reserve (local.get $n))
    (call $input (i32.const 1024) (local.get $n))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 34))
      (then
        (call $output (i32.const 1024) (local.get $n))
        (return (i32.const 0))))
    (if (i32.ne (i32.load8_u (i32.const 1024)) (i32.const 123)) (then (return (i32.const 1))))
    (local.set $p (call $answer (call $sum (i32.const 1024) (local.get $n))))
    (call $output (local.get $p) (i32.sub (i32.const 256) (local.get $p)))
    (i32.const 0)))
