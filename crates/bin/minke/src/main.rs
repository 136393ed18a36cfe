//! minke: Kubernetes in one binary, built around the Pod. Here: from the command line to a server that is built, or to the
//! command that talks to one.

mod admin;
mod agent;
mod certificates;
mod contexts;
mod crictl;
mod down;
mod host;
mod in_process;
mod instance;
mod join;
mod kubelet_flags;
mod life;
mod node;
mod places;
mod preflight;
mod run;
mod server;
mod status;
mod supervisor;
mod token;
mod up;
mod version;

use anyhow::Result;
use clap::Parser;
use cli::arguments::{Arguments, Command};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

/// At rest, after much use, the process is a fifth smaller than with glibc's, whose arenas give little back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if shim::is_shim() {
        return ExitCode::from(u8::try_from(shim::main()).unwrap_or(1));
    }
    let arguments = Arguments::parse();
    match start(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<ExitCode> {
    if let Command::Server(settings) = &command
        && std::env::var_os(supervisor::DETACHED).is_some()
    {
        supervisor::run(&settings.instance.data_dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Server(settings) => {
                log_to_standard_error();
                server::run(&settings).await?;
            }
            Command::Agent(agent) => {
                log_to_standard_error();
                agent::run(&agent).await?;
            }
            Command::Token(token) => cli::token::run(&token).await?,
            Command::Up(settings) => up::run(&settings).await?,
            Command::Down(down) => down::run(&down).await?,
            Command::Run(run) => return run::run(&run).await,
            Command::Why(why) => {
                let fine = cli::why::run(&why).await?;
                return Ok(if fine || !why.exit_code { ExitCode::SUCCESS } else { ExitCode::from(3) });
            }
            Command::Status(status) => cli::status::run(status).await?,
            Command::Image(image) => cli::image::run(image).await?,
            Command::Completion { shell } => cli::completion::run(shell),
            Command::Kubectl(passed) => {
                let kubeconfig = data_directory()?.join("admin.kubeconfig");
                return Err(become_program("kubectl", &passed.arguments, &["KUBECONFIG"], kubeconfig.as_os_str()));
            }
            Command::Crictl(passed) => {
                let endpoint = crictl::endpoint(&data_directory()?);
                let names = ["CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT"];
                return Err(become_program("crictl", &passed.arguments, &names, endpoint.as_ref()));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `MINKE_LOG` as tracing reads it: `debug`, `node=trace`.
fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MINKE_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// The instance that a command passed on is meant for.
fn data_directory() -> Result<PathBuf> {
    let directory = std::env::var_os("MINKE_DATA_DIR").unwrap_or_else(|| "/var/lib/minke".into());
    Ok(std::path::absolute(directory)?)
}

/// Becomes the program, with these variables set; returns only when that fails.
fn become_program(program: &str, arguments: &[String], variables: &[&str], value: &OsStr) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let variables = variables.iter().map(|name| (name, value));
    let error = std::process::Command::new(program).args(arguments).envs(variables).exec();
    anyhow::Error::new(error).context(format!("cannot run {program} from PATH"))
}

/// The last line that `up` looks for.
#[allow(clippy::print_stderr)]
fn report(error: &anyhow::Error) {
    eprintln!("Error: {error:#}");
}
