//! Gives requests an authority that the HTTP/2 library reads.
//!
//! gRPC clients in Go that dial a unix socket by a function of their own, as every kubelet does for a plugin's
//! registration, send the socket's escaped path as `:authority`. That is none by RFC 3986, and the `h2` crate ends such a
//! request with PROTOCOL_ERROR before anybody sees it. So the value is exchanged on its way in; nobody here asks for it.
//!
//! Only the blocks of header fields are read, and of these only where each field begins and ends (RFC 7541, section 6):
//! what refers to the table of earlier fields stays valid, since an exchanged field keeps its place there and becomes
//! shorter, so that it is forgotten by the reader no earlier than by the sender. What cannot be read is left as it is, for
//! the library to judge.

/// Of one character, so that it is never longer than what it takes the place of: a string of HPACK, not compressed.
const AUTHORITY: [u8; 2] = [1, b'k'];
/// The place of `:authority` in HPACK's table of common fields.
const NAME: usize = 1;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The library's own limit for a frame; it ends a connection with longer ones.
const LONGEST: usize = 16_384;

/// The bytes that a client sent, as they are to be read.
#[derive(Debug)]
pub(super) struct Filter {
    state: State,
    /// A head, or a whole frame with header fields, that is not complete yet.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes are passed on.
    Pass(usize),
    Head,
    /// A frame of so many bytes is held until it is whole.
    Fields(usize),
    /// No longer understood.
    AsIs,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self { state: State::Pass(PREFACE), held: Vec::new() }
    }

    /// Takes what was received and appends what is to be read.
    pub(super) fn pass(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let wanted = match self.state {
                State::AsIs => return out.extend_from_slice(input),
                State::Pass(left) => left,
                State::Head => FRAME_HEAD - self.held.len(),
                State::Fields(length) => length - self.held.len(),
            };
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            match self.state {
                State::Pass(left) => {
                    out.extend_from_slice(taken);
                    self.state = pass(left - taken.len());
                }
                State::Head | State::Fields(_) | State::AsIs => {
                    self.held.extend_from_slice(taken);
                    if taken.len() == wanted {
                        self.complete(out);
                    }
                }
            }
        }
    }

    /// What is held is complete.
    fn complete(&mut self, out: &mut Vec<u8>) {
        let head = match self.state {
            State::Head => match self.held.as_slice() {
                [a, b, c, kind, ..] => {
                    Some((usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c), *kind))
                }
                _ => None,
            },
            State::Pass(_) | State::Fields(_) | State::AsIs => None,
        };
        self.state = match head {
            Some((length, HEADERS)) if (1..=LONGEST).contains(&length) => {
                self.state = State::Fields(FRAME_HEAD + length);
                return;
            }
            Some((length, HEADERS)) if length > LONGEST => State::AsIs,
            Some((length, _)) => pass(length),
            None => State::Head,
        };
        match exchanged(&self.held) {
            Some(frame) => out.extend_from_slice(&frame),
            None => out.extend_from_slice(&self.held),
        }
        self.held = Vec::new();
    }
}

fn pass(left: usize) -> State {
    if left == 0 { State::Head } else { State::Pass(left) }
}

/// A whole frame with another authority, if it has one.
fn exchanged(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at_checked(FRAME_HEAD)?;
    let flags = *head.get(4)?;
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let after = payload.len().checked_sub(padding)?;
    let value = authority(payload.get(before..after)?)?;
    let (start, end) = (before + value.start, before + value.end);
    let payload = [payload.get(..start)?, &AUTHORITY, payload.get(end..)?].concat();
    let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
    Some([length.get(1..)?, head.get(3..)?, &payload].concat())
}

/// Where the value of `:authority` stands, with its length before it.
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut fields = Fields { block, at: 0 };
    while let Some(first) = block.get(fields.at) {
        // Where the name is an index, and whether a value follows.
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            ..0x20 => (4, true),
        };
        let name = fields.number(bits)?;
        if !literal {
            continue;
        }
        if name == 0 {
            fields.string()?;
        }
        let start = fields.at;
        let length = fields.string()?;
        if name == NAME {
            return (length > 0).then_some(start..fields.at);
        }
    }
    None
}

struct Fields<'b> {
    block: &'b [u8],
    at: usize,
}

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.block.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// A number in the lower `bits` of a byte, and in those after it when they are all ones.
    fn number(&mut self, bits: u8) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let mut number = usize::from(self.byte()?) & most;
        if number < most {
            return Some(number);
        }
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Passes over a string, compressed or not; gives its length as sent.
    fn string(&mut self) -> Option<usize> {
        let length = self.number(7)?;
        self.at += length;
        (self.at <= self.block.len()).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn passed(input: &[u8], step: usize) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::new(), Vec::new());
        input.chunks(step).for_each(|chunk| filter.pass(chunk, &mut out));
        out
    }

    const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// POST, http, a path, a field with a name of its own, a change of the table's size.
    const OTHER_FIELDS: &[u8] = b"\x83\x86\x44\x02/p\x40\x02te\x03abc\x3f\x05";

    fn request(authority: &[u8], flags: u8) -> Vec<u8> {
        let padded = flags & PADDED != 0;
        let before: &[u8] = match (padded, flags & PRIORITY != 0) {
            (true, true) => &[3, 0, 0, 0, 0, 9],
            (true, false) => &[3],
            (false, true) => &[0, 0, 0, 0, 9],
            (false, false) => &[],
        };
        let after: &[u8] = if padded { &[0; 3] } else { &[] };
        let fields = frame(HEADERS, flags, &[before, OTHER_FIELDS, authority, b"\xbe", after].concat());
        [PREFACE_AND_SETTINGS, &fields, &frame(0, 1, &[0; 5]), &frame(HEADERS, 5, b"\x83\xbf")].concat()
    }

    #[test]
    fn an_authority_is_exchanged_and_nothing_else_however_the_bytes_come() {
        for flags in [4, 5, 4 | PADDED, 4 | PRIORITY, 4 | PADDED | PRIORITY] {
            for (given, expected) in [
                // Added to the table, kept out of it, never to be put there; compressed or not.
                (&b"\x41\x06%2Ffoo"[..], &b"\x41\x01k"[..]),
                (b"\x41\x83\x1f\x2f\x3f", b"\x41\x01k"),
                (b"\x01\x04%2Fx", b"\x01\x01k"),
                (b"\x11\x04%2Fx", b"\x11\x01k"),
                // A name that is elsewhere in the table, an authority that was sent before, an empty one.
                (b"\x50\x04%2Fx", b"\x50\x04%2Fx"),
                (b"\xc1", b"\xc1"),
                (b"\x41\x00", b"\x41\x00"),
            ] {
                for step in [1, 2, 7, 1000] {
                    assert_eq!(
                        passed(&request(given, flags), step),
                        request(expected, flags),
                        "{given:?} {flags} {step}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_bytes_break_it_and_their_grouping_means_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let mut given = PREFACE_AND_SETTINGS.to_vec();
            for _ in 0..random.usize(1..4) {
                let payload: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
                given.extend(frame(HEADERS, random.u8(..), &payload));
            }
            given.extend((0..random.usize(0..20)).map(|_| random.u8(..)));
            let whole = passed(&given, given.len());
            assert_eq!(passed(&given, random.usize(1..9)), whole, "{given:?}");
            assert!(whole.len() <= given.len());
        }
    }

    #[test]
    fn what_is_not_understood_is_left_for_the_library() {
        for given in [
            // A value and a number that are cut off, an endless number, padding longer than the frame.
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4, b"\x41\x7fshort")].concat(),
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4, b"\x41\xff\xff\xff\xff\xff\xff")].concat(),
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4, b"\x41\xff")].concat(),
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4 | PADDED, b"\xff\x41\x02ab")].concat(),
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4, b"")].concat(),
            [PREFACE_AND_SETTINGS, &frame(HEADERS, 4, &vec![0x83; LONGEST + 1]), b"\x41\x02ab"].concat(),
        ] {
            for step in [1, 5, 100_000] {
                assert_eq!(passed(&given, step), given);
            }
        }
        // So much decides that it is no HTTP/2.
        let other = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(passed(other, 100), other[..PREFACE]);
    }
}
