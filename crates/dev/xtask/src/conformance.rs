//! Upstream's own end-to-end tests against minke. They are built as dependencies of the Go module in `conformance/`, which only
//! this command needs; their images are made of those programs and Debian packages, so that nothing is pulled.

mod build;
mod images;
mod report;
mod results;

use crate::{process, setup};
use anyhow::{Context, Result, bail, ensure};
use build::Programs;
use results::{Gaps, Results};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) const USAGE: &str = "\
usage: cargo xtask conformance [OPTIONS]

  --label-filter FILTER  tests by label, as ginkgo reads it [Conformance]
  --focus REGEX          only tests whose name matches; may stand several times
  --skip REGEX           none whose name matches; may stand several times
  --procs N              tests at a time [2]
  --shards N             parts, each merged into the results when it ends [1 per 40 tests]
  --resume               keep the results there are, run what is missing
  --results FILE         a line per test: name, state, seconds, first line of the failure [target/conformance/results.tsv]
  --minke FILE           this program rather than a release build of the checkout
  --list                 only print the tests' names";

/// The difference between upstream and minke as far as it is known: a line per test, with the reason.
const KNOWN_GAPS: &str = "conformance/known-gaps.txt";
const SHARD_TESTS: usize = 40;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    label_filter: String,
    focus: Vec<String>,
    skip: Vec<String>,
    procs: usize,
    shards: Option<usize>,
    resume: bool,
    results: Option<PathBuf>,
    minke: Option<PathBuf>,
    list: bool,
}

pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let Some(options) = options(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let target = setup::target_directory()?;
    let programs = build::programs(&target.join("tools/conformance"))?;
    let directory = target.join("conformance");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // Held to the end: the cluster, reports and results are one run's.
    let lock = std::fs::File::create(directory.join("lock"))?;
    ensure!(lock.try_lock().is_ok(), "another run is under way in {}", directory.display());
    let wanted = wanted(&programs, &directory, &options)?;
    if options.list {
        wanted.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    ensure!(!wanted.is_empty(), "no test is of this selection");
    let file = options.results.clone().unwrap_or_else(|| directory.join("results.tsv"));
    let mut results = if options.resume { read_results(&file)? } else { Results::default() };
    let missing = results.missing(&wanted);
    println!("{} tests, {} to run", wanted.len(), missing.len());
    if !missing.is_empty() {
        let cluster = Cluster::start(&directory, &programs, options.minke.as_deref())?;
        let ran = run_shards(&cluster, &programs, &directory, &options, &missing, |report| {
            results.merge(report);
            std::fs::write(&file, results.to_string()).with_context(|| format!("cannot write {}", file.display()))
        });
        let stopped = cluster.stop();
        ran?;
        stopped?;
    }
    let gaps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(KNOWN_GAPS);
    let gaps: Gaps = std::fs::read_to_string(&gaps).with_context(|| gaps.display().to_string())?.parse()?;
    let results = results.only(&wanted);
    print!("{}", results.summary(&gaps));
    println!("results: {}", file.display());
    let problems = results.problems(&wanted, &gaps);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// `None`: help is asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options {
        label_filter: "Conformance".to_owned(),
        focus: Vec::new(),
        skip: Vec::new(),
        procs: 2,
        shards: None,
        resume: false,
        results: None,
        minke: None,
        list: false,
    };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
        let number = |text: String| match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => bail!("{flag} needs a number above 0, not {text:?}"),
        };
        match flag.as_str() {
            "--label-filter" => options.label_filter = value()?,
            "--focus" => options.focus.push(value()?),
            "--skip" => options.skip.push(value()?),
            "--procs" => options.procs = number(value()?)?,
            "--shards" => options.shards = Some(number(value()?)?),
            "--resume" => options.resume = true,
            "--results" => options.results = Some(value()?.into()),
            "--minke" => options.minke = Some(value()?.into()),
            "--list" => options.list = true,
            "--help" | "-h" => return Ok(None),
            _ => bail!("no option {flag:?}\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

fn read_results(file: &Path) -> Result<Results> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.parse().with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::default()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// The names of the selected tests, as the test program itself chooses them.
fn wanted(programs: &Programs, directory: &Path, options: &Options) -> Result<Vec<String>> {
    let report = directory.join("selection.json");
    let mut command = Command::new(&programs.e2e);
    command.arg("--ginkgo.dry-run").arg(format!("--ginkgo.json-report={}", report.display()));
    command.arg(format!("--ginkgo.label-filter={}", options.label_filter));
    command.args(options.focus.iter().map(|focus| format!("--ginkgo.focus={focus}")));
    command.args(options.skip.iter().map(|skip| format!("--ginkgo.skip={skip}")));
    process::check(command.current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut names = report::read(&report)?.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    names.sort();
    names.dedup();
    Ok(names)
}

fn run_shards(
    cluster: &Cluster,
    programs: &Programs,
    directory: &Path,
    options: &Options,
    missing: &[String],
    mut merge: impl FnMut(Vec<(String, results::Outcome)>) -> Result<()>,
) -> Result<()> {
    let shards = options.shards.unwrap_or(missing.len().div_ceil(SHARD_TESTS));
    for (number, shard) in missing.chunks(missing.len().div_ceil(shards)).enumerate() {
        let began = Instant::now();
        let (report, log) = (format!("shard-{number}.json"), directory.join(format!("shard-{number}.log")));
        let mut command = Command::new(&programs.ginkgo);
        command.args(["--no-color", "--timeout=24h", &format!("--procs={}", options.procs)]);
        command.arg(format!("--json-report={report}")).arg(format!("--output-dir={}", directory.display()));
        command.args(shard.iter().map(|name| format!("--focus={}", results::exactly(name))));
        command.arg(&programs.e2e).arg("--").args(cluster.e2e_flags());
        let output = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Its code tells no more than the report does.
        let status = command.status().with_context(|| format!("cannot run {}", programs.ginkgo.display()))?;
        let report = report::read(&directory.join(report))
            .with_context(|| format!("ginkgo ended with {status}; see {}", log.display()))?;
        let failed = report.iter().filter(|(_, outcome)| outcome.has_failed()).count();
        let (tests, seconds) = (report.len(), began.elapsed().as_secs_f64());
        println!("shard {}: {tests} tests, {failed} failed, {seconds:.0} s; {}", number + 1, log.display());
        merge(report)?;
    }
    Ok(())
}

/// A minke of its own, with the test images in it.
struct Cluster {
    minke: PathBuf,
    kubectl: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Cluster {
    /// What an interrupted run left is taken away first.
    fn start(directory: &Path, programs: &Programs, minke: Option<&Path>) -> Result<Cluster> {
        let tools = setup::run()?;
        let minke = match minke {
            Some(minke) => minke.to_owned(),
            None => {
                println!("building minke (release)");
                process::run("cargo", ["build", "--quiet", "--release", "--package", "minke"])?;
                setup::target_directory()?.join("release/minke")
            }
        };
        let archive = images::make(programs)?;
        let (data, log) = (directory.join("minke"), directory.join("minke.log"));
        let cluster = Cluster { minke, kubectl: tools.kubectl, data, log };
        if cluster.data.exists() {
            cluster.minke(&["down", "--purge"])?;
        }
        // No registry is asked: where none can be reached, minke takes the imported image under every pull policy.
        let hosts = cluster.data.join("registries.d/_default");
        std::fs::create_dir_all(&hosts)?;
        std::fs::write(hosts.join("hosts.toml"), "server = \"http://127.0.0.1:1\"\n")?;
        cluster.minke(&["up"])?;
        cluster.minke(&["image", "import", &archive.to_string_lossy()])?;
        Ok(cluster)
    }

    /// Keeps the log, and nothing else.
    fn stop(&self) -> Result<()> {
        std::fs::copy(self.data.join("minke.log"), &self.log).context("minke's log")?;
        println!("minke's log: {}", self.log.display());
        self.minke(&["down", "--purge"])
    }

    fn minke(&self, arguments: &[&str]) -> Result<()> {
        process::check(Command::new(&self.minke).args(arguments).env("MINKE_DATA_DIR", &self.data))
    }

    fn e2e_flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--kubeconfig={}", self.data.join("admin.kubeconfig").display()),
            format!("--kubectl-path={}", self.kubectl.display()),
        ];
        // One node, and nothing in kube-system to wait for.
        let fixed = ["--provider=skeleton", "--num-nodes=1", "--minStartupPods=0", "--allowed-not-ready-nodes=0"];
        flags.extend(fixed.map(str::to_owned));
        flags.push("--disable-log-dump".to_owned());
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Options>> {
        options(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_read() {
        let options = parsed(&["--focus", "Pods", "--focus", "Probes", "--procs", "4", "--resume"]).unwrap().unwrap();
        assert_eq!(options.focus, ["Pods", "Probes"]);
        assert_eq!((options.procs, options.resume, options.label_filter.as_str()), (4, true, "Conformance"));
        assert_eq!(parsed(&["--help"]).unwrap(), None);
    }

    #[test]
    fn wrong_options_are_refused() {
        for (words, message) in [
            (&["--procs"][..], "--procs needs a value"),
            (&["--procs", "0"], "--procs needs a number above 0, not \"0\""),
            (&["--shards", "some"], "--shards needs a number above 0, not \"some\""),
            (&["--fokus", "x"], "no option \"--fokus\""),
        ] {
            let error = parsed(words).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
