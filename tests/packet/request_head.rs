//! Names from HTTP/1.x.

use std::iter;

use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::server_name::{Application, NameReader, Reading, Unnamed};

use crate::server_name::{assert_only_whole, assert_unnamed, names, read, read_cut, read_endless, sizes};

const NAME: &str = "account.blob.core.windows.net";

fn named(name: &str) -> Reading {
    Reading::Name(name.to_owned())
}

/// A request with a `Host`, and how far into it the host is.
fn requests() -> impl Strategy<Value = (Vec<u8>, String)> {
    let target = prop_oneof![Just("/"), Just("/a/b?c=http://other.example/"), Just("//other.example/"), Just("/ü")];
    let space = "[ \t]{0,3}";
    let port = prop_oneof![Just(""), Just(":80"), Just(":"), Just(":65535"), Just("."), Just(".:8080")];
    let fields = vec(("[A-Za-z-]{1,12}", "[ -~\t]{0,30}"), 0..10);
    let method = prop_oneof![Just("GET"), Just("PUT"), Just("M-SEARCH")];
    let host = prop_oneof![Just("Host"), Just("host"), Just("HOST")];
    (method, target, 0..2, host, (space, space, port), names(), fields, any::<prop::sample::Index>()).prop_map(
        |(method, target, minor, host, (ahead, behind, port), (written, name), fields, at)| {
            let mut lines: Vec<String> = fields
                .into_iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
                .map(|(name, value)| format!("{name}:{value}\r\n"))
                .collect();
            lines.insert(at.index(lines.len() + 1), format!("{host}:{ahead}{written}{port}{behind}\r\n"));
            (format!("{method} {target} HTTP/1.{minor}\r\n{}\r\n", lines.concat()).into_bytes(), name)
        },
    )
}

proptest! {
    #[test]
    fn any_cut_into_pushes_gives_the_same_name((request, name) in requests(), sizes in sizes(), body: Vec<u8>) {
        prop_assert_eq!(read(Application::Http, &request), named(&name));
        prop_assert_eq!(read_cut(Application::Http, &request, &sizes), named(&name));
        let with_body = [&request[..], &body].concat();
        prop_assert_eq!(read_cut(Application::Http, &with_body, &sizes), named(&name));
    }

    #[test]
    fn no_part_of_a_head_tells_a_name((request, _) in requests(), sizes in sizes(), end: prop::sample::Index) {
        let part = &request[..end.index(request.len())];
        prop_assert_eq!(read_cut(Application::Http, part, &sizes), Reading::More);
    }

    #[test]
    fn a_control_byte_anywhere_is_refused(
        (request, _) in requests(), at: prop::sample::Index, control in prop_oneof![0_u8..9, 10_u8..32, Just(127)],
    ) {
        let mut request = request;
        request.insert(at.index(request.len()), control);
        prop_assert!(matches!(
            read(Application::Http, &request),
            Reading::Unnamed(Unnamed::Malformed | Unnamed::NotTheProtocol)
        ));
    }
}

#[test]
fn a_request_tells_where_it_ends() {
    let end = |request: &str| {
        let mut reader = NameReader::new(Application::Http);
        (reader.push(request.as_bytes()), reader.end())
    };
    let head = format!("PUT /x HTTP/1.1\r\nHost: {NAME}\r\n");
    let whole = |more: &str| format!("{head}{more}\r\n");
    for (more, content) in [("", 0), ("Content-Length: 0\r\n", 0), ("content-length: 17 \r\n", 17)] {
        let request = whole(more);
        assert_eq!(end(&request), (named(NAME), Some(request.len() as u32 + content)), "{more}");
    }
    for (more, why) in [
        ("Transfer-Encoding: chunked\r\n", Unnamed::Malformed),
        ("Transfer-Encoding: identity\r\nContent-Length: 1\r\n", Unnamed::Malformed),
        ("Upgrade: h2c\r\n", Unnamed::Malformed),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Unnamed::Malformed),
        ("Content-Length: +1\r\n", Unnamed::Malformed),
        ("Content-Length: 1, 1\r\n", Unnamed::Malformed),
        ("Content-Length:\r\n", Unnamed::Malformed),
        ("Content-Length: 1073741825\r\n", Unnamed::TooLong),
        ("Content-Length: 99999999999999999999\r\n", Unnamed::TooLong),
    ] {
        assert_eq!(end(&whole(more)), (Reading::Unnamed(why), None), "{more}");
    }
    let absolute = format!("GET http://other.example/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert_eq!(end(&absolute), (Reading::Unnamed(Unnamed::Malformed), None), "servers differ in which counts");
}

#[test]
fn requests_tell_their_name() {
    for (request, name) in [
        (format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"), NAME),
        (format!("GET / HTTP/1.0\r\nUser-Agent: a\r\nhost:{NAME}:80 \r\nAccept: */*\r\n\r\n"), NAME),
        ("OPTIONS * HTTP/1.1\r\nHost: A.Example.:8080\r\n\r\n".to_owned(), "a.example"),
        ("GET http://Target.example/x HTTP/1.1\r\nHost: target.example\r\n\r\n".to_owned(), "target.example"),
        ("GET HTTP://target.example HTTP/1.1\r\nHost: target.example:80\r\n\r\n".to_owned(), "target.example"),
        ("GET http://target.example:80?q HTTP/1.1\r\nHost: TARGET.example\r\n\r\n".to_owned(), "target.example"),
        ("GET http://target.example./ HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), "target.example"),
        ("GET http://target.example/ HTTP/1.1\r\nHost: 10.1.0.4\r\n\r\n".to_owned(), "target.example"),
    ] {
        assert_only_whole(Application::Http, request.as_bytes(), name);
    }
}

#[test]
fn requests_without_a_name_that_counts() {
    use Unnamed::{Malformed, NoName, NotTheProtocol, TooLong};
    let host = format!("Host: {NAME}");
    let line = "GET / HTTP/1.1\r\n";
    for (what, request, reason) in [
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), NotTheProtocol),
        ("HTTP/0.9", "GET /\r\n".to_owned(), NotTheProtocol),
        ("HTTP/1.2", format!("GET / HTTP/1.2\r\n{host}\r\n\r\n"), NotTheProtocol),
        ("a version in small letters", format!("GET / http/1.1\r\n{host}\r\n\r\n"), NotTheProtocol),
        ("SSH", "SSH-2.0-OpenSSH_9.9 Debian\r\n".to_owned(), NotTheProtocol),
        ("TLS", "\x16\x03\x01".to_owned(), NotTheProtocol),
        ("no method", "\"GET / HTTP/1.1".to_owned(), NotTheProtocol),
        ("an empty line ahead", format!("\r\n{line}{host}\r\n\r\n"), Malformed),
        ("a line feed ahead", format!("\n{line}{host}\r\n\r\n"), Malformed),
        ("a space ahead", format!(" {line}{host}\r\n\r\n"), Malformed),
        ("a tab behind the method", format!("GET\t/ HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("two spaces behind the method", format!("GET  / HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("two spaces behind the target", format!("GET /  HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a space in the target", format!("GET /a b HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("no target", format!("GET  HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a space behind the version", format!("GET / HTTP/1.1 \r\n{host}\r\n\r\n"), Malformed),
        ("NUL in the target", format!("GET /\0 HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a line feed alone behind the request", format!("GET / HTTP/1.1\n{host}\r\n\r\n"), Malformed),
        ("a carriage return in the request", format!("GET /\r HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a line feed alone", format!("{line}{host}\n\r\n"), Malformed),
        ("a line feed alone at the end", format!("{line}{host}\r\n\n"), Malformed),
        ("a carriage return alone", format!("{line}A: b\rHost: other.example\r\n{host}\r\n\r\n"), Malformed),
        ("a carriage return alone at the end", format!("{line}{host}\r\n\rx"), Malformed),
        ("NUL in a value", format!("{line}A: \0\r\n{host}\r\n\r\n"), Malformed),
        ("NUL in the host", format!("{line}{host}\0.example\r\n\r\n"), Malformed),
        ("a folded line", format!("{line}Host:\r\n {NAME}\r\n\r\n"), Malformed),
        ("a folded line behind the host", format!("{line}{host}\r\n\t.example\r\n\r\n"), Malformed),
        ("a space ahead of the first field", format!("{line} {host}\r\n\r\n"), Malformed),
        ("a space ahead of the colon", format!("{line}Host : {NAME}\r\n\r\n"), Malformed),
        ("a tab ahead of the colon", format!("{line}A\t: b\r\n{host}\r\n\r\n"), Malformed),
        ("a field without a name", format!("{line}: b\r\n{host}\r\n\r\n"), Malformed),
        ("a field without a colon", format!("{line}A\r\n{host}\r\n\r\n"), Malformed),
        ("two hosts", format!("{line}{host}\r\nHost: other.example\r\n\r\n"), Malformed),
        ("the same host twice", format!("{line}{host}\r\nA: b\r\nhOST: {NAME}\r\n\r\n"), Malformed),
        ("two hosts in one", format!("{line}{host}, other.example\r\n\r\n"), Malformed),
        ("user information", format!("{line}Host: other.example@{NAME}\r\n\r\n"), Malformed),
        ("user and password", format!("{line}Host: a:80@{NAME}\r\n\r\n"), Malformed),
        ("a port in letters", format!("{line}{host}:http\r\n\r\n"), Malformed),
        ("a port with a sign", format!("{line}{host}:+80\r\n\r\n"), Malformed),
        ("a port of six digits", format!("{line}{host}:000080\r\n\r\n"), Malformed),
        ("two ports", format!("{line}{host}:80:80\r\n\r\n"), Malformed),
        ("a port alone", format!("{line}Host: :80\r\n\r\n"), Malformed),
        ("two dots at the end", format!("{line}{host}..\r\n\r\n"), Malformed),
        ("a URL", format!("{line}Host: http://{NAME}\r\n\r\n"), Malformed),
        ("a path", format!("{line}{host}/\r\n\r\n"), Malformed),
        ("not ASCII", format!("{line}Host: münchen.example\r\n\r\n"), Malformed),
        ("an odd notation of an address", format!("{line}Host: 10.260\r\n\r\n"), Malformed),
        ("an address with a dot", format!("{line}Host: 10.1.0.4.\r\n\r\n"), Malformed),
        ("brackets that stay open", format!("{line}Host: [::1\r\n\r\n"), Malformed),
        ("no address in brackets", format!("{line}Host: [{NAME}]\r\n\r\n"), Malformed),
        ("more behind brackets", format!("{line}Host: [::1].example\r\n\r\n"), Malformed),
        ("an address without brackets", format!("{line}Host: ::1\r\n\r\n"), Malformed),
        ("a tunnel", format!("CONNECT {NAME}:443 HTTP/1.1\r\n{host}:443\r\n\r\n"), Malformed),
        ("a tunnel without a host", format!("CONNECT {NAME}:443 HTTP/1.1\r\n\r\n"), Malformed),
        ("a tunnel to a path", format!("CONNECT / HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target that is an authority", format!("GET {NAME} HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("an asterisk for another method", format!("GET * HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("another scheme", format!("GET https://{NAME}/ HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target without a host", format!("GET http:///x HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target that ends early", format!("GET http:// HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target with user information", format!("GET http://a@{NAME}/ HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target with a backslash", format!("GET http://{NAME}\\@a/ HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target with a fragment", format!("GET http://{NAME}#a HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a target with another character early", format!("GET http:ü/{NAME} HTTP/1.1\r\n{host}\r\n\r\n"), Malformed),
        ("a bad host beside a good target", format!("GET http://{NAME}/ HTTP/1.1\r\nHost: a b\r\n\r\n"), Malformed),
        ("no host", format!("{line}Accept: */*\r\n\r\n"), NoName),
        ("no fields", "GET / HTTP/1.0\r\n\r\n".to_owned(), NoName),
        ("no host beside a target", format!("GET http://{NAME}/ HTTP/1.1\r\n\r\n"), NoName),
        ("an empty host", format!("{line}Host: \t\r\n\r\n"), NoName),
        ("an IPv4 address", format!("{line}Host: 10.1.0.4:80\r\n\r\n"), NoName),
        ("an IPv6 address", format!("{line}Host: [2001:db8::1]\r\n\r\n"), NoName),
        ("an IPv6 address and a port", format!("{line}Host: [::ffff:10.1.0.4]:80\r\n\r\n"), NoName),
        ("an address as the target", format!("GET http://10.1.0.4/ HTTP/1.1\r\n{host}\r\n\r\n"), NoName),
        ("129 fields", format!("{line}{host}\r\n{}\r\n", "A:\r\n".repeat(128)), TooLong),
        ("a head beyond the limit", format!("{line}{host}\r\nA: {}\r\n\r\n", "a".repeat(NameReader::LIMIT)), TooLong),
    ] {
        assert_unnamed(Application::Http, what, request.as_bytes(), reason);
    }
    assert_unnamed(
        Application::Http,
        "a target that is not UTF-8",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        Malformed,
    );
}

#[test]
fn a_flipped_byte_never_makes_another_name_in_the_request_count() {
    let other = "other.example";
    let request = format!(
        "GET /http://{other}/ HTTP/1.1\r\nXost: {other}\r\nHost:{NAME}:80\r\nX-Host: {other}\r\nReferer: http://{other}/\r\n\r\n"
    );
    let start = request.find(NAME).unwrap();
    let inside = start..start + NAME.len() + ":80".len();
    for at in 0..request.len() {
        for mask in 1..=u8::MAX {
            let mut flipped = request.clone().into_bytes();
            flipped[at] ^= mask;
            let Reading::Name(name) = read(Application::Http, &flipped) else { continue };
            assert!(name == NAME || inside.contains(&at), "byte {at} xor {mask:#x} makes {name}");
            assert_ne!(name, other);
        }
    }
}

#[test]
fn another_protocol_is_not_waited_for() {
    for (stream, taken) in [
        (&b"\x16\x03\x01\x02\x00"[..], 1),
        (b"GET\0", 4),
        (b"\r\nGET", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM", 16),
        (b"GET / HTTP/1.1\r\nA\0", 18),
        (b"GET / HTTP/1.1\r\n A: b", 17),
        (b"GET / HTTP/1.1\r\nA : b", 18),
        (b"GET / HTTP/1.1\nA", 15),
    ] {
        let endless = stream.iter().copied().chain(iter::repeat(b'a'));
        let (answer, pushed) = read_endless(Application::Http, endless);
        assert!(matches!(answer, Reading::Unnamed(Unnamed::NotTheProtocol | Unnamed::Malformed)));
        assert_eq!(pushed, taken, "{}", stream.escape_ascii());
    }
}

#[test]
fn a_head_without_end_is_given_up_in_linear_work() {
    for (start, over) in [
        ("", "A"),
        ("GET ", "/"),
        ("GET / HTTP/1.1\r\n", "A"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nA:", " "),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nA: ", "b"),
    ] {
        let (answer, pushed) = read_endless(Application::Http, start.bytes().chain(over.bytes().cycle()));
        assert_eq!(answer, Reading::Unnamed(Unnamed::TooLong), "{start}{over}...");
        assert_eq!(pushed, NameReader::LIMIT, "{start}{over}...");
    }
    let start = "GET / HTTP/1.1\r\nHost: a.example\r\n";
    let (answer, pushed) = read_endless(Application::Http, start.bytes().chain("A:\r\n".bytes().cycle()));
    assert_eq!(answer, Reading::Unnamed(Unnamed::TooLong));
    assert_eq!(pushed, start.len() + 127 * "A:\r\n".len() + 1, "the 129th field");
}

#[test]
fn the_longest_head_is_read() {
    let head = |padding| format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nA: {}\r\n\r\n", "a".repeat(padding));
    let room = NameReader::LIMIT - head(0).len();
    assert_eq!(read_cut(Application::Http, head(room).as_bytes(), &[1]), named(NAME));
    assert_eq!(read(Application::Http, head(room).as_bytes()), named(NAME));
    assert_unnamed(Application::Http, "one byte more", head(room + 1).as_bytes(), Unnamed::TooLong);
    let fields = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{}\r\n", "A:\r\n".repeat(127));
    assert_eq!(read(Application::Http, fields.as_bytes()), named(NAME));
}
