//! How long it takes to load a catalogue and to look an address up in it: Azure's weekly file where it is there, and the
//! built-in one.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use sidestep::tags::Catalogue;

fn catalogues(c: &mut Criterion) {
    let weekly = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    let small = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
    for (name, path) in [("weekly", weekly), ("small", small)] {
        if !path.exists() {
            println!("{name}: skipped, {} is missing", path.display());
            continue;
        }
        c.bench_function(&format!("load {name}"), |b| b.iter(|| Catalogue::load(black_box(&path)).unwrap()));
        let catalogue = Catalogue::load(&path).unwrap();
        for address in ["20.60.1.10", "2603:1020:206:100::10", "198.51.100.80"] {
            let address: IpAddr = address.parse().unwrap();
            c.bench_function(&format!("lookup {name} {address}"), |b| b.iter(|| catalogue.lookup(black_box(address))));
        }
    }
}

criterion_group!(benches, catalogues);
criterion_main!(benches);
