//! Enough of JSON to find the members of an envelope and read whole numbers.
//! It expects valid JSON, as the host sends it; it allocates nothing.

/// Splits the white space off the front of `s`.
fn trim(s: &[u8]) -> &[u8] {
    let n = s.iter().take_while(|b| b.is_ascii_whitespace()).count();
    &s[n..]
}

/// Returns the length of the string that `s` begins with, quotes included.
fn string_len(s: &[u8]) -> usize {
    let mut i = 1;
    while i < s.len() && s[i] != b'"' {
        i += if s[i] == b'\\' { 2 } else { 1 };
    }
    s.len().min(i + 1)
}

/// Returns the length of the value that `s` begins with.
fn value_len(s: &[u8]) -> usize {
    let (mut i, mut depth) = (0, 0);
    while i < s.len() {
        match s[i] {
            b'"' => {
                i += string_len(&s[i..]);
                if depth == 0 {
                    return i;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return i,
            b'}' | b']' if depth == 1 => return i + 1,
            b'}' | b']' => depth -= 1,
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return i,
            _ => {}
        }
        i += 1;
    }
    s.len()
}

/// Returns the value of a member of an object as it is written. Names are
/// compared as written too.
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut s = trim(trim(object).strip_prefix(b"{")?);
    while s.first() == Some(&b'"') {
        let (key, rest) = s.split_at(string_len(s));
        let rest = trim(trim(rest).strip_prefix(b":")?);
        let (value, rest) = rest.split_at(value_len(rest));
        if key.len() > 2 && &key[1..key.len() - 1] == name.as_bytes() {
            return Some(value);
        }
        s = trim(rest);
        s = trim(s.strip_prefix(b",").unwrap_or(s));
    }
    None
}

/// Reads a whole number.
pub fn int(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut n = 0;
    for d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n * 10 + i64::from(d - b'0');
    }
    Some(if digits.len() < value.len() { -n } else { n })
}

/// Writes a whole number to the end of `buf` and returns what it wrote.
pub fn print(buf: &mut [u8; 20], n: i64) -> &[u8] {
    let (mut i, mut u) = (buf.len(), n.unsigned_abs());
    loop {
        i -= 1;
        buf[i] = b'0' + (u % 10) as u8;
        u /= 10;
        if u == 0 {
            break;
        }
    }
    if n < 0 {
        i -= 1;
        buf[i] = b'-';
    }
    &buf[i..]
}
