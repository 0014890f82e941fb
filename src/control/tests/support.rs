//! What a node tells for a support bundle.

use super::*;

#[test]
fn hashes_are_of_what_is_in_force() {
    let setup = Setup::new();
    let told = setup.node.support();
    // As `sha256sum` has it: printf 'abc' | sha256sum
    let hash = |bytes: &[u8]| -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(told.document_sha256, hash(DOCUMENT.as_bytes()));
    assert_eq!(told.catalogue_sha256, Some(hash(&fs::read(setup.path("tags.json")).unwrap())));
    assert_eq!((told.generation, told.poll.as_str()), (1, "sleep"));
    assert_eq!(told.host_names, ["data.blob.example"]);
    assert_eq!((told.queues[0].port.as_str(), told.queues[0].device.as_str()), ("vm1", "memory"));
    assert!(told.metrics.contains("sidestep_snapshot_generation 1.0\n"), "{}", told.metrics);

    // A switch is another snapshot of the same document.
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let switched = setup.node.support();
    assert_eq!((switched.generation, &switched.document_sha256), (2, &told.document_sha256));
    assert_ne!(switched.snapshot_sha256, told.snapshot_sha256);
    // And back it is the same as before.
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, false).unwrap();
    assert_eq!(setup.node.support().snapshot_sha256, told.snapshot_sha256);
}

#[test]
fn a_catalogue_whose_file_has_changed_has_no_hash() {
    let setup = Setup::new();
    fs::write(setup.path("tags.json"), "broken").unwrap();
    setup.node.reload_catalogue();
    let told = setup.node.support();
    assert_eq!(told.catalogue_sha256, None);
    assert_eq!(told.snapshot_sha256.len(), 64);
}
