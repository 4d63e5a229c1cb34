//! The test guest in Rust. Every tool that counts does so in memory and in a
//! global; on an instance as it was after initialisation both are 1.

mod casemate;
mod json;
mod sha256;

use casemate::{write, Code, Failure};
use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

macro_rules! tool {
    ($name:literal, $parameters:expr) => {
        concat!(r#"{"name":""#, $name, r#"","description":"","parameters":"#, $parameters, r#","effects":"pure"}"#)
    };
}
macro_rules! none {
    () => {
        r#"{"type":"object"}"#
    };
}
macro_rules! count_of {
    () => {
        r#"{"type":"object","properties":{"n":{"type":"integer","minimum":0}},"required":["n"]}"#
    };
}
macro_rules! summands {
    () => {
        r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"]}"#
    };
}

const DESCRIPTOR: &str = concat!(
    r#"{"v":1,"name":"pristine-rust","version":"0.1.0","kinds":["tool"],"tools":["#,
    tool!("count", none!()), ",", tool!("grow", none!()), ",", tool!("trap", none!()), ",",
    tool!("spin", none!()), ",", tool!("echo", none!()), ",", tool!("sum", summands!()), ",",
    tool!("fib", count_of!()), ",", tool!("sha256", count_of!()),
    r#"],"warm_up":[{"v":1,"tool":"sum","arguments":{"a":1,"b":2}}]}"#,
);

#[no_mangle]
pub extern "C" fn describe() -> i32 {
    casemate::run(|| write(DESCRIPTOR.as_bytes()))
}

#[no_mangle]
pub extern "C" fn tool_call() -> i32 {
    casemate::run(|| {
        let input = casemate::input();
        let tool = json::member(&input, "tool").unwrap_or_default();
        let arguments = json::member(&input, "arguments").unwrap_or(b"{}");
        call(tool, arguments)
    })
}

fn call(tool: &[u8], arguments: &[u8]) -> Result<(), Failure> {
    match tool {
        b"\"count\"" => count(),
        b"\"grow\"" => grow(),
        b"\"trap\"" => {
            count()?;
            core::arch::wasm32::unreachable()
        }
        b"\"spin\"" => spin(),
        b"\"echo\"" => answer(arguments),
        b"\"sum\"" => answer_int(number(arguments, "a")? + number(arguments, "b")?),
        b"\"fib\"" => answer_int(i64::from(fib(size(arguments)? as u32))),
        b"\"sha256\"" => sha256(size(arguments)?),
        _ => Err(Failure(Code::NotFound, "no such tool")),
    }
}

fn number(arguments: &[u8], name: &str) -> Result<i64, Failure> {
    let value = json::member(arguments, name).and_then(json::int);
    value.ok_or(Failure(Code::InvalidArgs, "want a whole number"))
}

fn size(arguments: &[u8]) -> Result<u64, Failure> {
    let n = number(arguments, "n")?;
    u64::try_from(n).map_err(|_| Failure(Code::InvalidArgs, "n: want a number that is not negative"))
}

fn answer(output: &[u8]) -> Result<(), Failure> {
    write(b"{\"v\":1,\"output\":")?;
    write(output)?;
    write(b"}")
}

fn answer_int(n: i64) -> Result<(), Failure> {
    answer(json::print(&mut [0; 20], n))
}

/// Counts calls in memory.
static COUNTER: AtomicI64 = AtomicI64::new(0);

extern "C" {
    /// Counts calls in a global: global.s beside the guest in C.
    fn count_global() -> i32;
}

fn count() -> Result<(), Failure> {
    let memory = COUNTER.fetch_add(1, Relaxed) + 1;
    let global = unsafe { count_global() };
    write(b"{\"v\":1,\"output\":{\"memory\":")?;
    write(json::print(&mut [0; 20], memory))?;
    write(b",\"global\":")?;
    write(json::print(&mut [0; 20], i64::from(global)))?;
    write(b"}}")
}

fn grow() -> Result<(), Failure> {
    const PAGE: usize = 64 << 10;
    const SIZE: usize = 20 << 20;
    let old = core::arch::wasm32::memory_grow::<0>(SIZE / PAGE);
    if old == usize::MAX {
        return Err(Failure(Code::Internal, "memory did not grow"));
    }
    for at in (0..SIZE).step_by(4096) {
        unsafe { ((old * PAGE + at) as *mut u8).write_volatile(1) };
    }
    count()
}

fn spin() -> Result<(), Failure> {
    count()?;
    loop {
        COUNTER.fetch_add(1, Relaxed);
    }
}

fn fib(n: u32) -> u32 {
    if n < 2 {
        n
    } else {
        fib(n - 1) + fib(n - 2)
    }
}

/// Hashes the bytes 0 to 250, again and again.
fn sha256(n: u64) -> Result<(), Failure> {
    let (mut state, mut block, mut i, mut value) = (sha256::START, [0u8; 64], 0, 0);
    let padded = (n + 9 + 63) / 64 * 64;
    while i < padded {
        block[(i % 64) as usize] = match i {
            _ if i < n => value,
            _ if i == n => 0x80,
            _ if i < padded - 8 => 0,
            _ => (n * 8 >> ((padded - 1 - i) * 8)) as u8,
        };
        value = if value == 250 { 0 } else { value + 1 };
        i += 1;
        if i % 64 == 0 {
            sha256::block(&mut state, &block);
        }
    }
    let mut hex = [b'"'; 66];
    for k in 0..64 {
        hex[k + 1] = b"0123456789abcdef"[(state[k / 8] >> (28 - k % 8 * 4) & 15) as usize];
    }
    answer(&hex)
}
