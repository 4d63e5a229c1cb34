//! What a plugin written in Rust needs of native/1: its imports, its marker,
//! and the input of a call. Uses core and alloc only.

extern crate alloc;

use alloc::vec::Vec;

#[link(wasm_import_module = "casemate_v1")]
extern "C" {
    fn input_len() -> u32;
    fn input_read(off: u32, ptr: *mut u8, len: u32) -> u32;
    fn output_write(ptr: *const u8, len: u32) -> i32;
    #[link_name = "fail"]
    fn import_fail(code: i32, retry_after_ms: i32, ptr: *const u8, len: u32);
}

/// The codes of a failed call.
#[derive(Clone, Copy)]
#[allow(dead_code)]
pub enum Code {
    InvalidArgs = 1,
    NotFound = 2,
    Denied = 3,
    Transient = 4,
    Permanent = 5,
    Internal = 6,
}

/// Why a call failed.
pub struct Failure(pub Code, pub &'static str);

/// Runs the body of an export and returns what the export should return.
pub fn run(body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match body() {
        Ok(()) => 0,
        Err(Failure(code, text)) => {
            unsafe { import_fail(code as i32, -1, text.as_ptr(), text.len() as u32) };
            1
        }
    }
}

/// Returns the input of the call.
pub fn input() -> Vec<u8> {
    let len = unsafe { input_len() };
    let mut input = Vec::with_capacity(len as usize);
    unsafe {
        let read = input_read(0, input.as_mut_ptr(), len);
        input.set_len(read as usize);
    }
    input
}

/// Appends to the output, all of it or nothing.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    match unsafe { output_write(bytes.as_ptr(), bytes.len() as u32) } {
        0 => Ok(()),
        _ => Err(Failure(Code::Permanent, "the output is too large")),
    }
}

/// The host looks for this export to know a plugin of native/1.
#[no_mangle]
pub extern "C" fn casemate_abi_1() -> i32 {
    0
}
