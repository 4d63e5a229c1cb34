//! A guest for benchmarks: it answers the sum of the numbers in a JSON object,
//! or a JSON string with itself. `--cfg extism` builds it for Extism.
#![no_main]

fn sum(text: &[u8]) -> u64 {
    text.split(|b| !b.is_ascii_digit())
        .map(|digits| digits.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
        .sum()
}

#[no_mangle]
pub extern "C" fn tool_call() -> i32 {
    let input = host::input();
    match input.first() {
        Some(b'{') => host::output(format!("{{\"v\":1,\"output\":{}}}", sum(&input)).as_bytes()),
        Some(b'"') => host::output(&input),
        _ => return 1,
    }
    0
}

#[cfg(not(extism))]
mod host {
    #[link(wasm_import_module = "casemate_v1")]
    extern "C" {
        fn input_len() -> u32;
        fn input_read(off: u32, ptr: *mut u8, len: u32) -> u32;
        fn output_write(ptr: *const u8, len: u32) -> i32;
    }

    pub fn input() -> Vec<u8> {
        unsafe {
            let mut b = vec![0; input_len() as usize];
            input_read(0, b.as_mut_ptr(), b.len() as u32);
            b
        }
    }

    pub fn output(b: &[u8]) {
        unsafe { output_write(b.as_ptr(), b.len() as u32) };
    }

    #[no_mangle]
    pub extern "C" fn casemate_abi_1() -> i32 {
        1
    }

    #[no_mangle]
    pub extern "C" fn describe() -> i32 {
        output(
            br#"{"v":1,"name":"bench-rust","version":"1.0.0","kinds":["tool"],
"tools":[{"name":"bench","description":"Sums.","parameters":{"type":"object"},"effects":"pure"}],
"warm_up":[{"tool":"bench","arguments":{"a":1,"b":2}}]}"#,
        );
        0
    }
}

#[cfg(extism)]
mod host {
    #[link(wasm_import_module = "extism:host/env")]
    extern "C" {
        fn input_length() -> u64;
        fn input_load_u8(off: u64) -> u32;
        fn input_load_u64(off: u64) -> u64;
        fn alloc(len: u64) -> u64;
        fn store_u8(off: u64, v: u32);
        fn store_u64(off: u64, v: u64);
        fn output_set(off: u64, len: u64);
    }

    pub fn input() -> Vec<u8> {
        unsafe {
            let n = input_length() as usize;
            let mut b = Vec::with_capacity(n + 8);
            while b.len() + 8 <= n {
                b.extend_from_slice(&input_load_u64(b.len() as u64).to_le_bytes());
            }
            while b.len() < n {
                b.push(input_load_u8(b.len() as u64) as u8);
            }
            b
        }
    }

    pub fn output(b: &[u8]) {
        unsafe {
            let start = alloc(b.len() as u64);
            let words = b.chunks_exact(8);
            let rest = words.remainder();
            let mut at = start;
            for w in words {
                store_u64(at, u64::from_le_bytes(w.try_into().unwrap()));
                at += 8;
            }
            for c in rest {
                store_u8(at, u32::from(*c));
                at += 1;
            }
            output_set(start, b.len() as u64);
        }
    }
}
