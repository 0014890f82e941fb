//! Names from TLS: real hellos by rustls, which also judges what became of changed ones, and hellos made by hand.

use std::io;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use sidestep::packet::server_name::{Application, NameReader, Reading, Unnamed};

use crate::server_name::{assert_only_whole, assert_unnamed, names, read, read_cut, read_endless, sizes};

const NAME: &str = "account.blob.core.windows.net";

/// What rustls sends first.
fn real(to: &str, sni: bool, versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = sni;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let to = ServerName::try_from(to.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), to).unwrap();
    let mut stream = Vec::new();
    client.write_tls(&mut stream).unwrap();
    stream
}

/// The name that rustls as a server reads, `None` where it refuses the hello or reads no name.
fn judge(stream: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        acceptor.read_tls(&mut io::Read::by_ref(&mut rest)).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}

/// A hello's parts, each of which a test may replace.
#[derive(Debug, Clone)]
struct Hello {
    version: u16,
    session_id: Vec<u8>,
    cipher_suites: Vec<u8>,
    compression_methods: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    fn with(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self {
            version: 0x0303,
            session_id: vec![7; 32],
            cipher_suites: vec![0x13, 1, 0x13, 2, 0xc0, 0x2b],
            compression_methods: vec![0],
            extensions: Some(extensions),
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = [&self.version.to_be_bytes()[..], &[0x5a; 32]].concat();
        body.push(self.session_id.len() as u8);
        body.extend(&self.session_id);
        body.extend(vector16(&self.cipher_suites));
        body.push(self.compression_methods.len() as u8);
        body.extend(&self.compression_methods);
        if let Some(extensions) = &self.extensions {
            let list = extensions.iter().map(|(kind, data)| [&kind.to_be_bytes()[..], &vector16(data)].concat());
            body.extend(vector16(&list.collect::<Vec<_>>().concat()));
        }
        body
    }

    fn message(&self) -> Vec<u8> {
        message(1, &self.body())
    }

    /// The whole in one record.
    fn stream(&self) -> Vec<u8> {
        record(22, 0x0301, &self.message())
    }
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 | u32::from(kind) << 24;
    [&length.to_be_bytes()[..], body].concat()
}

fn record(kind: u8, version: u16, fragment: &[u8]) -> Vec<u8> {
    [&[kind][..], &version.to_be_bytes(), &vector16(fragment)].concat()
}

/// A message in records of the given sizes, over and over.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut rest = message;
    for &size in sizes.iter().cycle() {
        let (fragment, behind) = rest.split_at(size.min(rest.len()));
        stream.extend(record(22, 0x0301 + (size % 3) as u16, fragment));
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    stream
}

/// The data of a `server_name` extension.
fn entries(entries: &[(u8, &[u8])]) -> Vec<u8> {
    vector16(&entries.iter().map(|(kind, name)| [&[*kind][..], &vector16(name)].concat()).collect::<Vec<_>>().concat())
}

fn sni(name: &str) -> (u16, Vec<u8>) {
    (0, entries(&[(0, name.as_bytes())]))
}

/// The key share of X25519MLKEM768, alone longer than most segments' room beside the rest.
fn post_quantum_share() -> (u16, Vec<u8>) {
    (51, vector16(&[&[0x11, 0xec][..], &vector16(&[0xa5; 1216])].concat()))
}

fn supported_versions() -> (u16, Vec<u8>) {
    (43, vec![4, 3, 4, 3, 3])
}

#[test]
fn real_hellos_tell_their_name() {
    let both = [&version::TLS13, &version::TLS12];
    for versions in [&both[..], &both[..1], &both[1..]] {
        let stream = real(NAME, true, versions);
        assert_only_whole(Application::Tls, &stream, NAME);
        assert_eq!(judge(&stream).as_deref(), Some(NAME), "else the judge is blind");
        assert_eq!(read(Application::Tls, &real(NAME, false, versions)), Reading::Unnamed(Unnamed::NoName));
        assert_eq!(read(Application::Tls, &real("10.1.0.4", true, versions)), Reading::Unnamed(Unnamed::NoName));
    }
}

#[test]
fn a_hello_beyond_one_segment_tells_its_name() {
    let hello = Hello::with(vec![(0x0a0a, vec![]), post_quantum_share(), supported_versions(), sni(NAME)]);
    let stream = hello.stream();
    assert!(stream.len() > 1340, "{} bytes", stream.len());
    assert_only_whole(Application::Tls, &stream, NAME);
    let reading = read_cut(Application::Tls, &stream, &[1340]);
    assert_eq!(reading, Reading::Name(NAME.to_owned()));
}

#[test]
fn what_follows_the_hello_does_not_matter() {
    let hello = Hello::with(vec![sni(NAME)]).stream();
    for behind in
        [record(23, 0x0303, &[1; 100]), record(20, 0x0303, &[1]), b"\x16\x03\x01\0\0".to_vec(), vec![0xff; 70_000]]
    {
        let stream = [&hello[..], &behind].concat();
        assert_eq!(read(Application::Tls, &stream), Reading::Name(NAME.to_owned()));
        assert_eq!(read_cut(Application::Tls, &stream, &[1]), Reading::Name(NAME.to_owned()));
    }
}

/// Extensions of different types around the name.
fn hellos() -> impl Strategy<Value = (Hello, String)> {
    let others = proptest::collection::btree_map(1_u16..0xfe00, vec(any::<u8>(), 0..40), 0..12);
    let parts = (vec(any::<u8>(), 0..33), 1_usize..40, 0x0301_u16..0x0304, any::<bool>());
    (others, names(), any::<prop::sample::Index>(), parts).prop_map(|(others, (written, name), at, parts)| {
        let (session_id, suites, version, post_quantum) = parts;
        let mut extensions: Vec<(u16, Vec<u8>)> = others.into_iter().filter(|(kind, _)| *kind != 51).collect();
        if post_quantum {
            extensions.push(post_quantum_share());
        }
        extensions.insert(at.index(extensions.len() + 1), sni(&written));
        let mut hello = Hello::with(extensions);
        hello.session_id = session_id;
        hello.cipher_suites = vec![0x13; 2 * suites];
        hello.version = version;
        (hello, name)
    })
}

proptest! {
    #[test]
    fn any_cut_into_records_and_pushes_gives_the_same_name(
        (hello, name) in hellos(), of_records in sizes(), of_pushes in sizes(),
    ) {
        prop_assert_eq!(read(Application::Tls, &hello.stream()), Reading::Name(name.clone()));
        let stream = records(&hello.message(), &of_records);
        prop_assert_eq!(read(Application::Tls, &stream), Reading::Name(name.clone()));
        prop_assert_eq!(read_cut(Application::Tls, &stream, &of_pushes), Reading::Name(name));
    }

    #[test]
    fn no_part_of_a_hello_tells_a_name(
        (hello, _) in hellos(), of_records in sizes(), of_pushes in sizes(), end: prop::sample::Index,
    ) {
        let stream = records(&hello.message(), &of_records);
        let part = &stream[..end.index(stream.len())];
        prop_assert_eq!(read_cut(Application::Tls, part, &of_pushes), Reading::More);
    }

    #[test]
    fn a_hello_shorter_or_longer_than_it_says_is_none((hello, _) in hellos(), change in -3_isize..4) {
        prop_assume!(change != 0);
        let mut body = hello.body();
        body.resize(body.len().saturating_add_signed(change), 0);
        let stream = record(22, 0x0301, &message(1, &body));
        prop_assert_eq!(read(Application::Tls, &stream), Reading::Unnamed(Unnamed::Malformed));
    }

    #[test]
    fn damage_makes_no_name_that_a_server_reads_differently(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut stream = real(NAME, true, &[&version::TLS13, &version::TLS12]);
        for (at, value) in changes {
            let at = at.index(stream.len());
            stream[at] = value;
        }
        if let (Reading::Name(name), Some(judged)) = (read(Application::Tls, &stream), judge(&stream)) {
            prop_assert_eq!(name, judged.to_ascii_lowercase());
        }
    }
}

#[test]
fn a_flipped_byte_makes_another_name_only_inside_the_name() {
    let masks = (0..8).map(|bit| 1 << bit).chain([0x0f, 0x55, 0xaa, 0xff]);
    let mut judged = 0;
    let made = Hello::with(vec![supported_versions(), sni(NAME), post_quantum_share()]).stream();
    for stream in [real(NAME, true, &[&version::TLS13, &version::TLS12]), made] {
        let start = stream.windows(NAME.len()).position(|window| window == NAME.as_bytes()).unwrap();
        let inside = start..start + NAME.len();
        for at in 0..stream.len() {
            for mask in masks.clone() {
                let mut flipped = stream.clone();
                flipped[at] ^= mask;
                let Reading::Name(name) = read(Application::Tls, &flipped) else { continue };
                if let Some(by_rustls) = judge(&flipped) {
                    judged += 1;
                    assert_eq!(name, by_rustls.to_ascii_lowercase(), "byte {at} xor {mask:#x}");
                }
                if inside.contains(&at) {
                    assert_eq!(name.len(), NAME.len());
                } else {
                    assert_eq!(name, NAME, "byte {at} xor {mask:#x}");
                }
            }
        }
    }
    assert!(judged > 1000, "rustls read {judged} of them");
}

#[test]
fn hellos_without_a_name_that_counts() {
    let unnamed = |what: &str, stream: &[u8], reason| assert_unnamed(Application::Tls, what, stream, reason);
    let with = |extensions| Hello::with(extensions).stream();
    let with_name = |name: &[u8]| with(vec![(0, entries(&[(0, name)]))]);
    let part = |change: &dyn Fn(&mut Hello)| {
        let mut hello = Hello::with(vec![sni(NAME)]);
        change(&mut hello);
        hello.stream()
    };
    let whole = Hello::with(vec![sni(NAME)]).message();

    use Unnamed::{EncryptedHello, Malformed, NoName, NotTheProtocol, TooLong};
    unnamed("HTTP", b"GET / HTTP/1.1\r\n", NotTheProtocol);
    unnamed("SSH", b"SSH-2.0-OpenSSH_9.9\r\n", NotTheProtocol);
    unnamed("SSL 2 hello", &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10], NotTheProtocol);
    unnamed("SSL 3 record", &record(22, 0x0300, &whole), NotTheProtocol);
    unnamed("TLS 1.3 as the record's version", &record(22, 0x0304, &whole), NotTheProtocol);
    unnamed("other major version", &record(22, 0x0201, &whole), NotTheProtocol);
    unnamed("alert first", &record(21, 0x0301, &[1, 0]), NotTheProtocol);
    unnamed("application data first", &record(23, 0x0303, &[0; 40]), NotTheProtocol);

    unnamed("empty record", &record(22, 0x0301, &[]), Malformed);
    unnamed("record beyond 2^14", &[22, 3, 1, 0x40, 1], Malformed);
    unnamed("server hello", &record(22, 0x0303, &message(2, &[0; 40])), Malformed);
    unnamed("empty hello", &record(22, 0x0301, &message(1, &[])), Malformed);
    let (ahead, behind) = whole.split_at(20);
    let between =
        |record_between: &[u8]| [&record(22, 0x0301, ahead), record_between, &record(22, 0x0301, behind)].concat();
    assert_eq!(read(Application::Tls, &between(&[])), Reading::Name(NAME.to_owned()));
    unnamed("empty record between", &between(&record(22, 0x0301, &[])), Malformed);
    unnamed("alert between", &between(&record(21, 0x0301, &[1, 0])), Malformed);
    unnamed("change_cipher_spec between", &between(&record(20, 0x0303, &[1])), Malformed);
    unnamed("application data between", &between(&record(23, 0x0303, &[1])), Malformed);
    unnamed("HTTP between", &between(b"GET / HTTP/1.1\r\n"), Malformed);
    unnamed("SSL 3 record between", &between(&record(22, 0x0300, &[1])), Malformed);
    unnamed("more in the hello's record", &record(22, 0x0301, &[&whole[..], &whole].concat()), Malformed);
    unnamed("one byte more in the hello's record", &record(22, 0x0301, &[&whole[..], &[1]].concat()), Malformed);

    unnamed("hello of SSL 3", &part(&|hello| hello.version = 0x0300), Malformed);
    unnamed("hello of TLS 1.3 by its old field", &part(&|hello| hello.version = 0x0304), Malformed);
    unnamed("session id of 33 bytes", &part(&|hello| hello.session_id = vec![0; 33]), Malformed);
    unnamed("no cipher suites", &part(&|hello| hello.cipher_suites = vec![]), Malformed);
    unnamed("half a cipher suite", &part(&|hello| hello.cipher_suites = vec![0x13, 1, 0x13]), Malformed);
    unnamed("no compression methods", &part(&|hello| hello.compression_methods = vec![]), Malformed);
    unnamed("no extensions", &part(&|hello| hello.extensions = None), NoName);
    unnamed("an empty list of extensions", &with(vec![]), NoName);
    unnamed("extensions but the name", &with(vec![supported_versions(), post_quantum_share()]), NoName);
    let mut body = Hello::with(vec![sni(NAME)]).body();
    body.push(0);
    unnamed("a byte behind the extensions", &record(22, 0x0301, &message(1, &body)), Malformed);
    let mut hello = Hello::with(vec![]);
    hello.extensions = None;
    let body = [hello.body(), vector16(&[0, 0, 0, 9, 0])].concat();
    unnamed("an extension beyond the list", &record(22, 0x0301, &message(1, &body)), Malformed);
    let body = [hello.body(), vector16(&[0, 43, 0])].concat();
    unnamed("half an extension", &record(22, 0x0301, &message(1, &body)), Malformed);

    unnamed("the name twice", &with(vec![sni(NAME), sni(NAME)]), Malformed);
    unnamed("two names, far apart", &with(vec![sni(NAME), supported_versions(), sni("other.example")]), Malformed);
    unnamed("another extension twice", &with(vec![(43, vec![]), sni(NAME), (43, vec![])]), Malformed);
    unnamed("the last type twice", &with(vec![(0xffff, vec![]), sni(NAME), (0xffff, vec![])]), Malformed);
    unnamed("an empty server_name", &with(vec![(0, vec![])]), Malformed);
    unnamed("an empty list of names", &with(vec![(0, vec![0, 0])]), Malformed);
    let name = NAME.as_bytes();
    unnamed("two host names", &with(vec![(0, entries(&[(0, name), (0, b"other.example")]))]), Malformed);
    unnamed("another type first", &with(vec![(0, entries(&[(1, b"x"), (0, name)]))]), Malformed);
    unnamed("another type behind", &with(vec![(0, entries(&[(0, name), (1, b"x")]))]), Malformed);
    unnamed("only another type", &with(vec![(0, entries(&[(1, name)]))]), Malformed);
    unnamed("a byte behind the list", &with(vec![(0, [entries(&[(0, name)]), vec![0]].concat())]), Malformed);
    unnamed(
        "a byte behind the name",
        &with(vec![(0, vector16(&[&[0], &vector16(name)[..], &[0]].concat()))]),
        Malformed,
    );
    unnamed("a list longer than it is", &with(vec![(0, vec![0, 9, 0, 0, 1, b'a'])]), Malformed);
    unnamed("a name longer than it is", &with(vec![(0, vec![0, 4, 0, 0, 2, b'a'])]), Malformed);

    for name in [
        "",
        ".",
        "a.",
        "a..b",
        ".a",
        "-a.example",
        "a-.example",
        "a b.example",
        "a/b",
        "a:443",
        "*.example",
        "a\0.example",
        "münchen.example",
        "10.1.0.4",
        "10.260",
        "2130706433",
        "0x7f000001",
        "0X7F.0x1",
        "0x",
        "a.1",
        "::1",
        "[::1]",
    ] {
        unnamed(name, &with_name(name.as_bytes()), Malformed);
    }
    unnamed("not UTF-8", &with_name(b"a\xff.example"), Malformed);
    unnamed("a label of 64 bytes", &with_name(&[&[b'a'; 64][..], b".example"].concat()), Malformed);
    unnamed("a name of 254 bytes", &with_name(&[&b"a.".repeat(126)[..], b"bb"].concat()), Malformed);

    let outer = (0xfe0d, [&[0, 0, 1, 0, 1, 9, 0, 32][..], &[1; 32], &[0, 64], &[2; 64]].concat());
    unnamed("an encrypted hello", &with(vec![sni(NAME), outer.clone()]), EncryptedHello);
    unnamed("an encrypted hello ahead of the name", &with(vec![outer.clone(), sni(NAME)]), EncryptedHello);
    unnamed("an encrypted hello without a name", &with(vec![outer.clone()]), EncryptedHello);
    unnamed("two encrypted hellos", &with(vec![outer.clone(), sni(NAME), outer.clone()]), Malformed);
    unnamed("an encrypted hello with a bad name", &with(vec![outer, sni("10.1.0.4")]), Malformed);
    unnamed("an empty encrypted hello", &with(vec![sni(NAME), (0xfe0d, vec![])]), Malformed);
    unnamed("an unknown type of encrypted hello", &with(vec![sni(NAME), (0xfe0d, vec![2])]), Malformed);
    unnamed("an inner hello with more", &with(vec![sni(NAME), (0xfe0d, vec![1, 0])]), Malformed);

    unnamed("a hello beyond the limit", &record(22, 0x0301, &[1, 0, 0x3f, 0xfd]), TooLong);
    unnamed("a hello of 16 MiB", &record(22, 0x0301, &[1, 0xff, 0xff, 0xff]), TooLong);
}

#[test]
fn unusual_names_that_are_names() {
    for (written, name) in [
        ("A.BLOB.Core.Windows.NET", "a.blob.core.windows.net"),
        ("localhost", "localhost"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("_under_.score_d.example", "_under_.score_d.example"),
        ("10.1.0.4.example", "10.1.0.4.example"),
        ("0x7f.0xg", "0x7f.0xg"),
        (&format!("{}.example", "a".repeat(63)), &format!("{}.example", "a".repeat(63))),
        (&format!("{}b", "a.".repeat(126)), &format!("{}b", "a.".repeat(126))),
    ] {
        let stream = Hello::with(vec![sni(written)]).stream();
        assert_eq!(read(Application::Tls, &stream), Reading::Name(name.to_owned()));
    }
    let inner = Hello::with(vec![sni(NAME), (0xfe0d, vec![1])]).stream();
    assert_eq!(read(Application::Tls, &inner), Reading::Name(NAME.to_owned()), "a hello that was inside another");
}

#[test]
fn the_longest_hello_is_read_in_linear_work() {
    let room = NameReader::LIMIT - Hello::with(vec![sni(NAME), (21, vec![])]).message().len();
    let hello = |padding| Hello::with(vec![(21, vec![0; padding]), sni(NAME)]).message();
    assert_eq!(hello(room).len(), NameReader::LIMIT);
    let (answer, pushed) = read_endless(Application::Tls, records(&hello(room), &[1]).into_iter());
    assert_eq!(answer, Reading::Name(NAME.to_owned()));
    assert_eq!(pushed, NameReader::LIMIT * 6, "a header of five bytes for each");
    let (answer, pushed) = read_endless(Application::Tls, records(&hello(room + 1), &[1]).into_iter());
    assert_eq!(answer, Reading::Unnamed(Unnamed::TooLong));
    assert_eq!(pushed, 4 * 6, "the message's length is enough to tell");

    let (ahead, behind) = (&hello(room)[..100], [&hello(room)[100..], &[0]].concat());
    let stream = [record(22, 0x0301, ahead), record(22, 0x0301, &behind)].concat();
    assert_unnamed(Application::Tls, "one byte more in the last record", &stream, Unnamed::Malformed);
}

#[test]
fn a_hello_of_nothing_but_extensions_is_read() {
    let extensions = (1..4000).map(|kind| (kind, vec![]));
    let stream = Hello::with(extensions.clone().chain([sni(NAME)]).collect()).stream();
    assert_eq!(read(Application::Tls, &stream), Reading::Name(NAME.to_owned()));
    let stream = Hello::with(extensions.chain([sni(NAME), (1, vec![])]).collect()).stream();
    assert_eq!(read(Application::Tls, &stream), Reading::Unnamed(Unnamed::Malformed));
}
