//! How long a plan and its snapshot take: fifty subnets, each with nine endpoints and a route table of its own, under
//! Azure's weekly file, which `SIDESTEP_TAGS` names or `../shared/data` has, else under invented tags of the same sizes.

#[path = "inputs/endpoints.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod endpoints;
#[path = "inputs/tags.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod tags;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sidestep::plan::Plan;

use endpoints::network;

fn plan(criterion: &mut Criterion) {
    let catalogue = Arc::new(tags::catalogue_of_nine());
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for (name, distinct) in [("50 subnets, one route table", false), ("50 subnets, 50 route tables", true)] {
        let network = Arc::new(network(&catalogue, distinct));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let plan = Plan::new(network.clone(), catalogue.clone());
                black_box(plan.compile(1, None).expect("the network compiles"))
            });
        });
    }
    let network = Arc::new(network(&catalogue, true));
    let subnet = network.find_subnet("net/s0").expect("the subnet is there");
    group.bench_function("effective routes of one subnet", |bencher| {
        bencher.iter_batched(
            || Plan::new(network.clone(), catalogue.clone()),
            |plan| black_box(plan.effective_routes(subnet).len()),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
