//! What holds for a reader of either application: cuts do not matter, and neither memory nor work run away.

use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::server_name::{Application, NameReader, Reading, Unnamed};

/// What a reader says to all bytes at once.
pub(crate) fn read(application: Application, stream: &[u8]) -> Reading {
    NameReader::new(application).push(stream)
}

/// What a reader says to a stream in pieces of the given sizes, over and over. Keeps an eye on memory, and that an
/// answer stays.
pub(crate) fn read_cut(application: Application, stream: &[u8], sizes: &[usize]) -> Reading {
    let mut reader = NameReader::new(application);
    assert_eq!(reader.memory(), 0);
    let mut answer = Reading::More;
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        let new = reader.push(piece);
        if answer != Reading::More {
            assert_eq!(new, answer, "an answer stays");
        }
        answer = new;
        assert!(reader.memory() <= NameReader::LIMIT);
        if answer != Reading::More {
            assert!(reader.memory() <= 253, "what is read is let go");
        }
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    answer
}

/// Sizes of pieces, small ones often.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..4, 1_usize..64, 1_usize..3000], 1..8)
}

/// A name in every notation that a client may write it in, and how the reader writes it.
pub(crate) fn names() -> impl Strategy<Value = (String, String)> {
    "([a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?\\.){0,4}[a-zA-Z]([a-zA-Z0-9-]{0,20}[a-zA-Z])?"
        .prop_map(|name| (name.clone(), name.to_ascii_lowercase()))
}

/// Nothing but the whole may give an answer; the whole has to.
#[track_caller]
pub(crate) fn assert_only_whole(application: Application, stream: &[u8], name: &str) {
    for length in 0..stream.len() {
        assert_eq!(read(application, &stream[..length]), Reading::More, "cut off at {length}");
    }
    assert_eq!(read(application, stream), Reading::Name(name.to_owned()));
    assert_eq!(read_cut(application, stream, &[1]), Reading::Name(name.to_owned()));
}

/// A case that has no name, for the same reason whether it comes at once or byte by byte.
#[track_caller]
pub(crate) fn assert_unnamed(application: Application, what: &str, stream: &[u8], reason: Unnamed) {
    assert_eq!(read(application, stream), Reading::Unnamed(reason), "{what}");
    assert_eq!(read_cut(application, stream, &[1]), Reading::Unnamed(reason), "{what}, byte by byte");
}

/// Pushes a stream byte by byte until there is an answer. Returns it, with the number of bytes that it took. The room
/// may grow by doubling only: all growth together then copies less than twice the limit, however long the stream is.
#[track_caller]
pub(crate) fn read_endless(application: Application, stream: impl Iterator<Item = u8>) -> (Reading, usize) {
    let mut reader = NameReader::new(application);
    let mut rooms = vec![0];
    for (count, byte) in stream.enumerate() {
        let answer = reader.push(&[byte]);
        if answer != Reading::More {
            let copied: usize = rooms.iter().sum();
            assert!(copied <= 2 * NameReader::LIMIT, "grew through {rooms:?}");
            return (answer, count + 1);
        }
        let room = reader.memory();
        assert!(room <= NameReader::LIMIT);
        assert!(room <= (2 * (count + 1)).max(64), "{room} bytes kept of {}", count + 1);
        if rooms.last() != Some(&room) {
            rooms.push(room);
        }
    }
    panic!("no answer to a stream without end");
}

/// Noise behind something that an application's stream begins with.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(&b""[..]),
        Just(&b"\x16\x03\x01"[..]),
        Just(&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        Just(&b"\x16\x03\x03\x40\x00\x01\x00\x3f\xfc\x03\x03"[..]),
        Just(&b"GET "[..]),
        Just(&b"GET / HTTP/1.1\r\n"[..]),
        Just(&b"GET / HTTP/1.1\r\nHost: "[..]),
    ];
    let byte = prop_oneof![any::<u8>(), Just(0), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b'a')];
    (start, vec(byte, 0..600), any::<bool>())
        .prop_map(|(start, noise, repeat)| [start, &noise.repeat(if repeat { 64 } else { 1 })].concat())
}

proptest! {
    #[test]
    fn noise_is_read_alike_however_it_is_cut(noise in noise(), sizes in sizes(), tls: bool) {
        let application = if tls { Application::Tls } else { Application::Http };
        prop_assert_eq!(read_cut(application, &noise, &sizes), read(application, &noise));
    }
}

#[test]
fn no_bytes_tell_nothing_and_cost_nothing() {
    for application in [Application::Tls, Application::Http] {
        let mut reader = NameReader::new(application);
        assert_eq!(reader.push(b""), Reading::More);
        assert_eq!(reader.memory(), 0);
    }
}

#[test]
fn reasons_have_names_and_texts() {
    let listed: Vec<String> =
        Unnamed::ALL.iter().map(|reason| format!("{} {}", reason.name(), reason.text())).collect();
    assert_eq!(
        listed,
        [
            "not_the_protocol The client does not speak the protocol of the port.",
            "no_name The client asks for no name.",
            "encrypted_hello The client encrypts the name that it asks for, or pretends to.",
            "malformed The client's hello or request is malformed, or servers could read it differently.",
            "too_long The client's hello or request is too long.",
        ]
    );
    for (number, &reason) in Unnamed::ALL.iter().enumerate() {
        assert_eq!(reason as usize, number);
    }
}
