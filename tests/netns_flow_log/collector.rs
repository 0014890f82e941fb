//! An IPFIX collector over TCP, as slow and plain as can be: it knows nothing but RFC 7011, and reads what templates say.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A data record: values by element number, with the enterprise that the element is of (0: IANA).
pub(crate) type DataRecord = BTreeMap<(u32, u16), Vec<u8>>;

/// A number, as long as it may be.
pub(crate) fn number(record: &DataRecord, element: u16) -> u64 {
    value(record, (0, element))
}

/// A number of the other direction (RFC 5103).
pub(crate) fn reverse(record: &DataRecord, element: u16) -> u64 {
    value(record, (29_305, element))
}

fn value(record: &DataRecord, element: (u32, u16)) -> u64 {
    record[&element].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A text.
pub(crate) fn text(record: &DataRecord, element: u16) -> String {
    String::from_utf8(record[&(0, element)].clone()).expect("text")
}

/// What a collector was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Data records in their order, with the template that they are by.
    pub(crate) records: Vec<(u16, DataRecord)>,
    /// The names of interfaces.
    pub(crate) interfaces: BTreeMap<u64, String>,
}

/// A collector that listens until its exporter ends.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut bytes = [0; 16 << 10];
            loop {
                let length = stream.read(&mut bytes).expect("read");
                if length == 0 {
                    return;
                }
                hearing.lock().expect("bytes").extend_from_slice(&bytes[..length]);
            }
        });
        Self { address, heard, thread }
    }

    /// What was told so far, in whole messages.
    #[allow(dead_code, reason = "shared with a test that asks at the end only")]
    pub(crate) fn told(&self) -> Told {
        let heard = self.heard.lock().expect("bytes");
        let mut whole = 0;
        while heard.len() >= whole + 4 {
            let next = whole + usize::from(u16_at(&heard, whole + 2));
            if next > heard.len() {
                break;
            }
            whole = next;
        }
        read(&heard[..whole])
    }

    /// What was told until the exporter closed its connection.
    pub(crate) fn finish(self) -> Told {
        self.thread.join().expect("collector");
        read(&self.heard.lock().expect("bytes"))
    }
}

fn read(mut bytes: &[u8]) -> Told {
    let mut templates: BTreeMap<u16, Vec<(u32, u16, u16)>> = BTreeMap::new();
    let mut told = Told::default();
    while !bytes.is_empty() {
        let (version, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        assert_eq!(version, 10, "a message begins here");
        let sequence = u32::from_be_bytes(bytes[8..12].try_into().expect("four"));
        assert_eq!(sequence as usize, told.records.len() + told.interfaces.len(), "no data record is missing before");
        let (message, rest) = bytes.split_at(length);
        bytes = rest;
        let mut sets = &message[16..];
        while !sets.is_empty() {
            let (id, length) = (u16_at(sets, 0), usize::from(u16_at(sets, 2)));
            let (set, rest) = sets.split_at(length);
            sets = rest;
            let set = &set[4..];
            match id {
                2 | 3 => read_templates(set, id == 3, &mut templates),
                _ => {
                    let template = templates.get(&id).expect("a template that was told before");
                    for record in read_records(set, template) {
                        if id == 512 {
                            told.interfaces.insert(number(&record, 10), text(&record, 82));
                        } else {
                            told.records.push((id, record));
                        }
                    }
                }
            }
        }
    }
    told
}

fn read_templates(mut set: &[u8], options: bool, templates: &mut BTreeMap<u16, Vec<(u32, u16, u16)>>) {
    while set.len() >= 4 {
        let (id, count) = (u16_at(set, 0), u16_at(set, 2));
        set = &set[if options { 6 } else { 4 }..];
        let mut elements = Vec::new();
        for _ in 0..count {
            let (number, length) = (u16_at(set, 0), u16_at(set, 2));
            set = &set[4..];
            let mut enterprise = 0;
            if number & 0x8000 != 0 {
                enterprise = u32::from_be_bytes(set[..4].try_into().expect("four"));
                set = &set[4..];
            }
            elements.push((enterprise, number & 0x7fff, length));
        }
        templates.insert(id, elements);
    }
}

fn read_records(mut set: &[u8], template: &[(u32, u16, u16)]) -> Vec<DataRecord> {
    let mut records = Vec::new();
    while !set.is_empty() {
        let mut record = DataRecord::new();
        for (enterprise, element, length) in template {
            let mut length = usize::from(*length);
            if length == 65_535 {
                length = usize::from(set[0]);
                set = &set[1..];
            }
            record.insert((*enterprise, *element), set[..length].to_vec());
            set = &set[length..];
        }
        records.push(record);
    }
    records
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes([bytes[place], bytes[place + 1]])
}
