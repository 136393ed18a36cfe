//! What the machine uses, as the kernel's files tell it.

use runtime::stats::{InterfaceUsage, Pressure, Stall};
use std::collections::BTreeMap;

/// `USER_HZ`: what the kernel counts in for user space, on every machine we know.
pub(crate) const TICKS_PER_SECOND: u64 = 100;

/// The machine as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Unix time in seconds.
    pub(crate) boot_s: i64,
    pub(crate) cpu_ns: u64,
    pub(crate) memory: Memory,
    pub(crate) swap_total_bytes: u64,
    pub(crate) swap_free_bytes: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) interfaces: Vec<InterfaceUsage>,
    pub(crate) processes: u64,
    pub(crate) max_processes: u64,
    pub(crate) cpu_pressure: Option<Pressure>,
    pub(crate) memory_pressure: Option<Pressure>,
    pub(crate) io_pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    pub(crate) usage_bytes: u64,
    /// Without file pages that were not used lately.
    pub(crate) working_set_bytes: u64,
    pub(crate) rss_bytes: u64,
}

impl Memory {
    pub(crate) fn available_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.working_set_bytes)
    }
}

pub(crate) fn observe() -> Host {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, info, faults) = (read("/proc/stat"), read("/proc/meminfo"), words(&read("/proc/vmstat")));
    let amounts = amounts(&info);
    let amount = |name: &str| amounts.get(name).copied().unwrap_or_default();
    let (processes, max_processes) = processes(&read("/proc/loadavg"), &read);
    Host {
        boot_s: stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or_default(),
        cpu_ns: cpu_ns(&stat),
        memory: memory(&info),
        swap_total_bytes: amount("SwapTotal"),
        swap_free_bytes: amount("SwapFree"),
        page_faults: faults.get("pgfault").copied().unwrap_or_default(),
        major_page_faults: faults.get("pgmajfault").copied().unwrap_or_default(),
        interfaces: interfaces(&read("/proc/net/dev")),
        processes,
        max_processes,
        cpu_pressure: pressure(&read("/proc/pressure/cpu")),
        memory_pressure: pressure(&read("/proc/pressure/memory")),
        io_pressure: pressure(&read("/proc/pressure/io")),
    }
}

pub(crate) fn memory_now() -> Memory {
    memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// How many tasks there are and may be (upstream `pidlimit`): threads count as processes do.
pub(crate) fn processes_now() -> (u64, u64) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    processes(&read("/proc/loadavg"), &read)
}

fn processes(loadavg: &str, read: &dyn Fn(&str) -> String) -> (u64, u64) {
    let running = loadavg.split_whitespace().nth(3).and_then(|part| part.split_once('/')?.1.parse().ok());
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let limit = limits.iter().filter_map(|path| read(path).trim().parse().ok()).min();
    (running.unwrap_or_default(), limit.unwrap_or_default())
}

/// All that the processors did but idle and wait.
fn cpu_ns(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, n)| n).sum();
    busy * (1_000_000_000 / TICKS_PER_SECOND)
}

/// `MemTotal:  123 kB` in bytes.
fn amounts(info: &str) -> BTreeMap<&str, u64> {
    let line = |line: &'_ str| -> Option<u64> { line.split_whitespace().next()?.parse::<u64>().ok() };
    let pairs = info.lines().filter_map(|text| text.split_once(':'));
    pairs.filter_map(|(name, rest)| Some((name, line(rest)? * 1024))).collect()
}

/// As the root cgroup counts: what is not free, file pages included.
fn memory(info: &str) -> Memory {
    let amounts = amounts(info);
    let amount = |name: &str| amounts.get(name).copied().unwrap_or_default();
    let usage = amount("MemTotal").saturating_sub(amount("MemFree"));
    Memory {
        total_bytes: amount("MemTotal"),
        usage_bytes: usage,
        working_set_bytes: usage.saturating_sub(amount("Inactive(file)")),
        rss_bytes: amount("AnonPages"),
    }
}

/// Lines of a name and a number.
fn words(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?))).collect()
}

/// `/proc/net/dev` without loopback.
fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let interface = |(name, rest): (&str, &str)| {
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
        InterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: number(0),
            rx_errors: number(2),
            tx_bytes: number(8),
            tx_errors: number(10),
        }
    };
    lines.map(interface).filter(|interface| interface.name != "lo").collect()
}

/// `some avg10=0.00 avg60=0.12 avg300=0.00 total=123`
fn pressure(text: &str) -> Option<Pressure> {
    let stall = |name: &str| -> Option<Stall> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let hundredths = |key: &str| value(key)?.replace('.', "").parse().ok();
        Some(Stall {
            total_us: value("total")?.parse().ok()?,
            averages: [hundredths("avg10")?, hundredths("avg60")?, hundredths("avg300")?],
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kernels_files() {
        assert_eq!(cpu_ns("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 9\n"), 21 * 10_000_000);
        let info = "MemTotal:       1000 kB\nMemFree:         300 kB\nInactive(file):  100 kB\nAnonPages: 50 kB\nHugePages_Total: 0\n";
        let memory = memory(info);
        assert_eq!((memory.usage_bytes, memory.working_set_bytes), (700 << 10, 600 << 10));
        assert_eq!((memory.available_bytes(), memory.rss_bytes), (400 << 10, 50 << 10));
        let net = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 0 0 0 0 0 20 4 5 0 0 0 0 0\n";
        let interfaces = interfaces(net);
        assert_eq!(interfaces.len(), 1);
        let eth = &interfaces[0];
        assert_eq!(
            (eth.name.as_str(), eth.rx_bytes, eth.rx_errors, eth.tx_bytes, eth.tx_errors),
            ("eth0", 10, 3, 20, 5)
        );
        let text = "some avg10=1.25 avg60=0.00 avg300=0.03 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = pressure(text).unwrap();
        assert_eq!((pressure.some.averages, pressure.some.total_us, pressure.full.total_us), ([125, 0, 3], 77, 5));
        let read = |path: &str| if path.ends_with("pid_max") { "4194304\n".to_owned() } else { "1000\n".to_owned() };
        assert_eq!(processes("0.1 0.2 0.3 2/345 6789\n", &read), (345, 1000));
        assert!(observe().memory.total_bytes > 0);
    }
}
