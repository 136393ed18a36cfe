//! Five hundred seeds, and the same seed twice.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that show a fault that is known and not mended yet; one that passes must go from here.
const KNOWN: &[u64] = &[];

/// `SIM_SEED=N` runs that one, `SIM_SEEDS=N` so many.
#[test]
fn seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, last) = match number("SIM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SIM_SEEDS").unwrap_or(500)),
    };
    let next = AtomicU64::new(first);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return failures;
            }
            match sim::run(seed) {
                // What a start writes alone is about 75.
                Ok(report) if report.acknowledged == 0 => failures.push(format!("seed {seed} did nothing: {report:?}")),
                Ok(_) if KNOWN.contains(&seed) => failures.push(format!("seed {seed} passes: take it from KNOWN")),
                Err(_) if KNOWN.contains(&seed) && number("SIM_SEED").is_none() => {}
                Ok(_) => {}
                Err(error) => failures.push(error.to_string()),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|_| vec!["a run panicked".to_owned()]))
            .collect()
    });
    assert!(failures.is_empty(), "{} of {} seeds fail\n{}", failures.len(), last - first, failures.join("\n"));
}

#[test]
fn same_seed_same_trace() {
    for seed in 0..10 {
        let (first, second) = (sim::run(seed), sim::run(seed));
        assert_eq!(first.ok(), second.ok(), "seed {seed}");
    }
}
