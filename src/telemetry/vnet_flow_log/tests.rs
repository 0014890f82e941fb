use std::io::{Read, Seek, SeekFrom, Write};

use super::file::{BEGIN, BETWEEN, Place, append_to};
use super::folders::FILE;
use super::*;

/// 2026-06-09 07:00 UTC.
const SEVEN: u64 = 1_780_988_400_000;

fn socket(address: &str, port: u16) -> Option<Socket> {
    Some(Socket { address: address.parse().unwrap(), port })
}

fn record(event: FlowEvent, time: u64) -> FlowRecord {
    let json = serde_json::json!({
        "time": time, "event": event, "protocol": 6, "packets": [0, 0], "bytes": [0, 0], "began": time,
        "generation": 1, "worker": 0, "ingress": "vm1", "egress": "gateway",
    });
    FlowRecord {
        source: socket("10.1.1.4", 40_000),
        destination: socket("20.60.1.10", 443),
        presented: socket("10.1.1.4", 40_000),
        reached: socket("20.60.1.10", 443),
        from_subnet: Some(SubnetSeen { network: "spoke".to_owned(), subnet: "workload".to_owned() }),
        outbound: Some(RuleSeen {
            group: "workload-nsg".to_owned(),
            rule: Some("defaultSecurityRules/AllowInternetOutBound".to_owned()),
            allowed: true,
        }),
        ..serde_json::from_value(json).unwrap()
    }
}

fn log(folder: &Path, targets: Vec<Target>) -> VnetFlowLog {
    let mut log = VnetFlowLog::new(folder.to_owned(), targets, None);
    log.add_regions(HashMap::from([("spoke".to_owned(), "westeurope".to_owned())]));
    log
}

/// Every file below a folder with what is in it.
fn files(folder: &Path) -> BTreeMap<String, serde_json::Value> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                found.insert(name, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
            }
        }
    }
    found
}

#[test]
fn a_flow_is_a_file_of_its_hour_in_azures_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), vec![]);
    log.add(&record(FlowEvent::Begin, SEVEN + 5));
    let going_on = FlowRecord { packets: [7, 9], bytes: [700, 9_000], ..record(FlowEvent::Continue, SEVEN + 300_005) };
    log.add(&going_on);
    log.add(&record(FlowEvent::Reply, SEVEN + 6));
    log.flush(SEVEN + 301_000).unwrap();
    let files = files(folder.path());
    let (name, content) = files.iter().next().unwrap();
    let mac = mac_address("vm1");
    assert_eq!(
        *name,
        format!(
            "insights-logs-flowlogflowevent/flowLogResourceID=/00000000-0000-0000-0000-000000000000_NETWORKWATCHERRG/\
             NETWORKWATCHER_WESTEUROPE_SPOKE-WORKLOAD-FLOWLOG/y=2026/m=06/d=09/h=07/m=00/macAddress={mac}/PT1H.json"
        )
    );
    assert_eq!(
        *content,
        serde_json::json!({ "records": [ {
            "time": "2026-06-09T07:05:01.0000000Z",
            "flowLogVersion": 4,
            "flowLogGUID": guid("/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_WESTEUROPE/FLOWLOGS/SPOKE-WORKLOAD-FLOWLOG"),
            "macAddress": mac,
            "category": "FlowLogFlowEvent",
            "flowLogResourceID": "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_WESTEUROPE/FLOWLOGS/SPOKE-WORKLOAD-FLOWLOG",
            "targetResourceID": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/sidestep/providers/Microsoft.Network/virtualNetworks/spoke/subnets/workload",
            "operationName": "FlowLogFlowEvent",
            "flowRecords": { "flows": [ {
                "aclID": guid("workload-nsg"),
                "flowGroups": [ {
                    "rule": "DefaultRule_AllowInternetOutBound",
                    "flowTuples": [
                        "1780988400005,10.1.1.4,20.60.1.10,40000,443,6,O,B,NX,0,0,0,0",
                        "1780988700005,10.1.1.4,20.60.1.10,40000,443,6,O,C,NX,7,700,9,9000",
                    ],
                } ],
            } ] },
        } ] })
    );
}

#[test]
fn each_nic_has_its_file_and_sees_its_own_side() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), vec![Target::Network("spoke".to_owned()), Target::Nic("vm2".to_owned())]);
    let between = FlowRecord {
        egress: Some("vm2".to_owned()),
        to_subnet: Some(SubnetSeen { network: "spoke".to_owned(), subnet: "other".to_owned() }),
        reached: socket("10.1.2.4", 443),
        ..record(FlowEvent::End, SEVEN)
    };
    log.add(&between);
    let elsewhere = SubnetSeen { network: "hub".to_owned(), subnet: "workload".to_owned() };
    log.add(&FlowRecord { from_subnet: Some(elsewhere), ..record(FlowEvent::End, SEVEN) });
    log.flush(SEVEN).unwrap();
    let files = files(folder.path());
    let tuples: Vec<_> = files
        .iter()
        .map(|(name, content)| {
            let flow = &content["records"][0]["flowRecords"]["flows"][0]["flowGroups"][0];
            let log = name.split('/').nth(3).unwrap();
            (log, flow["rule"].as_str().unwrap(), flow["flowTuples"][0].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        tuples,
        [
            (
                "NETWORKWATCHER_WESTEUROPE_SPOKE-FLOWLOG",
                "DefaultRule_AllowInternetOutBound",
                "1780988400000,10.1.1.4,20.60.1.10,40000,443,6,O,E,NX,0,0,0,0"
            ),
            (
                "NETWORKWATCHER_WESTEUROPE_VM2-FLOWLOG",
                "unspecified",
                "1780988400000,10.1.1.4,10.1.2.4,40000,443,6,I,E,NX,0,0,0,0"
            ),
        ]
    );
}

#[test]
fn a_denied_packet_has_the_rule_that_denied_it_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), vec![]);
    let denier =
        RuleSeen { group: "workload-nsg".to_owned(), rule: Some("securityRules/deny-web".to_owned()), allowed: false };
    let denied = FlowRecord { packets: [1, 0], bytes: [60, 0], ..record(FlowEvent::Denied, SEVEN) };
    log.add(&FlowRecord { outbound: Some(denier), ..denied.clone() });
    log.add(&denied);
    log.flush(SEVEN).unwrap();
    let files = files(folder.path());
    let flows = &files.values().next().unwrap()["records"][0]["flowRecords"]["flows"];
    let tuple = "1780988400000,10.1.1.4,20.60.1.10,40000,443,6,O,D,NX,0,0,0,0";
    assert_eq!(
        *flows,
        serde_json::json!([
            { "aclID": guid("workload-nsg"), "flowGroups": [{ "rule": "UserRule_deny-web", "flowTuples": [tuple] }] },
            { "aclID": "unspecified", "flowGroups": [{ "rule": "unspecified", "flowTuples": [tuple] }] },
        ])
    );
}

#[test]
fn a_file_is_whole_after_every_write_and_mended_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/PT1H.json");
    let numbers = |path: &Path| -> Vec<u64> {
        let content: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        content["records"].as_array().unwrap().iter().map(|record| record["n"].as_u64().unwrap()).collect()
    };
    for n in 0..3 {
        append(&path, format!("{{\"n\":{n}}}").as_bytes()).unwrap();
        assert_eq!(numbers(&path), (0..=n).collect::<Vec<_>>());
    }
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        append(&path, b"{\"n\":9}").unwrap();
        let found = numbers(&path);
        let (last, before) = found.split_last().unwrap();
        assert_eq!(*last, 9);
        // A record that is whole is kept wherever the file was cut behind it.
        let expected = (0..3).filter(|n| cut >= BEGIN.len() + 7 * (n + 1) + BETWEEN.len() * n).map(|n| n as u64);
        assert_eq!(before, expected.collect::<Vec<_>>(), "cut at {cut}");
    }
}

/// A file of which only so much more can be written, as on a disk that is full.
struct Full {
    file: std::io::Cursor<Vec<u8>>,
    left: usize,
}

impl Read for Full {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Full {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.file.seek(place)
    }
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What the file has can be written over.
        let there = self.file.get_ref().len() - self.file.position() as usize;
        let end = bytes.len().min(there + self.left);
        if end == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= end.saturating_sub(there);
        self.file.write(&bytes[..end])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Place for Full {
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.left += self.file.get_ref().len().saturating_sub(length as usize);
        self.file.get_mut().truncate(length as usize);
        Ok(())
    }
}

#[test]
fn a_record_that_finds_no_room_on_the_disk_leaves_nothing_of_itself() {
    for records in 0..3 {
        let mut before = Full { file: Default::default(), left: usize::MAX / 2 };
        for n in 0..records {
            append_to(&mut before, format!("{{\"n\":{n}}}").as_bytes()).unwrap();
        }
        let before = before.file.into_inner();
        let mut after = Full { file: std::io::Cursor::new(before.clone()), left: usize::MAX / 2 };
        append_to(&mut after, b"{\"n\":9}").unwrap();
        let after = after.file.into_inner();
        for left in 0..after.len() - before.len() {
            let mut full = Full { file: std::io::Cursor::new(before.clone()), left };
            append_to(&mut full, b"{\"n\":9}").unwrap_err();
            assert_eq!(full.file.get_ref(), &before, "{left} bytes of room");
            full.left = usize::MAX / 2;
            append_to(&mut full, b"{\"n\":9}").unwrap();
            assert_eq!(full.file.get_ref(), &after, "{left} bytes of room");
        }
    }
}

#[test]
fn what_cannot_be_written_waits_and_is_counted_where_it_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(BELOW), "in the way").unwrap();
    let mut log = log(folder.path(), vec![]);
    let error = log.check().unwrap_err().to_string();
    assert!(error.contains(BELOW), "{error}");
    for n in 0..5 {
        log.add(&record(FlowEvent::Begin, SEVEN + n));
    }
    let error = log.flush(SEVEN).unwrap_err();
    assert!(error.path.ends_with("PT1H.json"), "{error}");
    assert_eq!((log.waiting(), log.unwritten()), (5, 0));
    fs::remove_file(folder.path().join(BELOW)).unwrap();
    log.check().unwrap();
    log.flush(SEVEN).unwrap();
    assert_eq!((log.waiting(), log.unwritten()), (0, 0));
    let content = files(folder.path()).into_values().next().unwrap();
    assert_eq!(
        content["records"][0]["flowRecords"]["flows"][0]["flowGroups"][0]["flowTuples"].as_array().unwrap().len(),
        5
    );
    log.add(&record(FlowEvent::End, SEVEN));
    log.give_up();
    assert_eq!((log.waiting(), log.unwritten()), (0, 1));
}

#[test]
fn what_waits_is_bounded_between_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), vec![]);
    let denied = record(FlowEvent::Denied, SEVEN);
    let mut added = 0;
    while log.unwritten() < 10 {
        log.add(&denied);
        added += 1;
        assert!(log.bytes <= MOST_WAITING + 200);
        assert_eq!(log.is_large(), log.bytes >= MANY_WAITING);
    }
    assert_eq!(log.waiting() + log.unwritten(), added);
    // One text for all of them, which is no more than twice what it has to be.
    let text = &log.nics["vm1"][0].hours.values().next().unwrap()[0].text;
    assert!(text.capacity() <= 2 * MOST_WAITING + 200);
}

#[test]
fn tuples_of_a_network_that_is_gone_are_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), vec![]);
    log.add(&record(FlowEvent::End, SEVEN));
    log.add_regions(HashMap::from([("hub".to_owned(), "northeurope".to_owned())]));
    log.flush(SEVEN).unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert!(names[0].contains("NETWORKWATCHER_WESTEUROPE_SPOKE"), "{names:?}");
}

#[test]
fn files_are_deleted_when_they_are_old_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let day = 24 * 3_600_000;
    let mut log = log(folder.path(), vec![]);
    for days in [0, 1, 2, 40] {
        log.add(&record(FlowEvent::Begin, SEVEN - days * day));
    }
    log.flush(SEVEN).unwrap();
    let written = files(folder.path()).len();
    assert_eq!(written, 4);
    // Others' files, which have the same shape but for something.
    let mac = format!("macAddress={}", mac_address("vm1"));
    let base = folder.path().join(BELOW).join(RESOURCE);
    let hour =
        |log: &str, hour: &str, mac: &str| base.join(log).join("y=2020/m=01/d=02").join(hour).join("m=00").join(mac);
    let ours = "NETWORKWATCHER_WESTEUROPE_SPOKE-WORKLOAD-FLOWLOG";
    let others = [
        hour("mine", "h=00", &mac).join(FILE),
        hour(ours, "h=24", &mac).join(FILE),
        hour(ours, "h=0", &mac).join(FILE),
        hour(ours, "h=01", "macAddress=vm1").join(FILE),
        hour(ours, "h=01", &mac).join("notes.txt"),
        base.join(ours).join("y=2020").join(FILE),
        folder.path().join(FILE),
    ];
    for path in &others {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("h=00/m=00").join(&mac);
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join(FILE), "{}").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), base.join(ours).join("y=2020/m=01/d=03")).unwrap();

    assert_eq!(log.delete_old(SEVEN).unwrap(), 0, "they are kept for ever");
    log.retention = Some(1);
    assert_eq!(log.delete_old(SEVEN).unwrap(), 2);
    let left = files(folder.path());
    assert_eq!(left.keys().filter(|name| name.contains("y=2026")).count(), 2);
    assert!(others.iter().all(|path| path.exists()) && target.join(FILE).exists(), "{left:?}");
    assert!(!base.join(ours).join("y=2026/m=04").exists(), "folders that are empty are gone");
    log.retention = Some(365 * 3);
    assert_eq!(log.delete_old(SEVEN).unwrap(), 0);
}

#[test]
fn what_is_made_from_names_is_the_same_in_every_release() {
    assert_eq!(mac_address("vm1"), "02E69DE9B0EB");
    assert_eq!(mac_address("workload-nsg"), "02434B6C795B");
    assert_eq!(guid("vm1"), "7b650286-d666-8f9c-9dae-d87b873a62e8");
    assert_eq!(guid("workload-nsg"), "ca28f901-bea8-8fe9-97e5-5d6089c77eaa");
}

#[test]
fn names_of_targets_and_files_are_safe() {
    let is_network = |name: &str| name == "spoke";
    assert_eq!(Target::named("spoke", is_network), Target::Network("spoke".to_owned()));
    assert_eq!(Target::named("vm1", is_network), Target::Nic("vm1".to_owned()));
    assert_eq!(Target::named("a/b", is_network), Target::Subnet("a".to_owned(), "b".to_owned()));
    assert_eq!(Target::Nic("../x y".to_owned()).log_name(), ".._X_Y-FLOWLOG");
    assert_eq!(timestamp(SEVEN + 61_007), "2026-06-09T07:01:01.0070000Z");
    assert!(mac_address("vm1").starts_with("02") && mac_address("vm1").len() == 12);
    assert_ne!(mac_address("vm1"), mac_address("vm2"));
}
