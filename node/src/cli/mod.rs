//! The command line: one verb a file, one write path (ApplyConfig), stable JSON on stdout, messages on stderr.

mod args;
mod client;
pub(crate) mod config;
mod contexts;
mod convert;
mod demo;
pub(crate) mod diff;
mod failure;
mod input;
mod local;
pub(crate) mod openapi;
mod output;
pub mod relay;
pub(crate) mod shape;
mod status;
pub(crate) mod verbs;
mod write;

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};
use quorumgate_model::resource::Kind;

use self::{
    args::{Backup, Cli, Cluster, Command, ContractVerb, Explain, Form, Global, ImportVerb},
    failure::{Failure, Outcome},
    verbs::{
        ai, anomalies, apis, approvals, audit, backup, bans, cache, cluster, doctor, exchanges, files, history, keys,
        limits, logs, nodes, objects, revocations, tokens, top, watch,
    },
};

/// Parses the arguments, runs the command, and maps its error to an exit code (docs/OPERATING.md).
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed cannot be reported either.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => failure::Exit::Usage.into(),
            };
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.problems.is_empty() {
                eprintln!("{failure}");
            }
            failure.exit.into()
        }
    }
}

fn dispatch(mut cli: Cli) -> Outcome {
    let global = &mut cli.global;
    if global.output == Form::Nagios && !matches!(cli.command, Command::Doctor | Command::Cluster(Cluster::Health)) {
        return Err(Failure::usage("--output nagios is for `doctor` and `cluster health`"));
    }
    match cli.command {
        Command::Demo(it) => demo::run(global, &it),
        Command::Init(it) => local::init(it),
        Command::Join(it) => local::join(it),
        Command::Run(it) => local::run(it),
        Command::Import(ImportVerb::Openapi(it)) => openapi::import(&it),
        Command::Convert(it) => convert::run(&it),
        Command::Contract(ContractVerb::Verify(it)) => block_on(openapi::verify(global, &it)),
        Command::Validate(it) => files::validate(global, &it),
        Command::Fmt(it) => files::fmt(global, &it),
        Command::Schema => output::stdout(&output::pretty(&config::schema::schema())),
        Command::Context(it) => verbs::contexts::run(global, it),
        Command::Completion { shell } => completion(shell),
        Command::Man { dir } => man(dir),
        Command::Version => version(global),
        Command::Explain(Explain { what: None, code }) => exchanges::code(global, code.as_deref()),
        Command::Cluster(Cluster::Backup(Backup::Inspect { file })) => backup::inspect(global, &file),
        Command::Cluster(Cluster::Restore(it)) => backup::restore(global, *it),
        Command::Cluster(Cluster::Recover(it)) => backup::recover(global, &it),
        command => {
            contexts::settle(global)?;
            block_on(ask(global, command))
        }
    }
}

async fn ask(global: &Global, command: Command) -> Outcome {
    match command {
        Command::JoinToken(it) => tokens::join(global, it).await,
        Command::AdminToken(it) => tokens::admin(global, it).await,
        Command::Key(it) => keys::run(global, it).await,
        Command::Token(it) => revocations::run(global, it).await,
        Command::Node(it) => nodes::run(global, it).await,
        Command::Cluster(it) => cluster::run(global, it).await,
        Command::Apply(it) => files::apply(global, it).await,
        Command::Diff(it) => files::diff(global, it).await,
        Command::Confirm(it) => files::confirm(global, it).await,
        Command::Abort(it) => files::abort(global, it).await,
        Command::Export(it) => files::export(global, it).await,
        Command::History(it) => history::run(global, it).await,
        Command::Rollback(it) => history::rollback(global, it).await,
        Command::Watch(it) => watch::run(global, it).await,
        Command::Route(it) => objects::route(global, it).await,
        Command::Upstream(it) => objects::upstream(global, it).await,
        Command::Consumer(it) => objects::consumer(global, it).await,
        Command::Auth(it) => objects::of_kind(global, Kind::Auth, it).await,
        Command::CertificateAuthority(it) => objects::of_kind(global, Kind::CertificateAuthority, it).await,
        Command::Limit(it) => limits::run(global, it).await,
        Command::Api(it) => apis::run(global, it).await,
        Command::Ai(it) => ai::run(global, it).await,
        Command::Approval(it) => approvals::run(global, it).await,
        Command::Ban(it) => bans::run(global, it).await,
        Command::Anomaly(it) => anomalies::run(global, it).await,
        Command::Cache(it) => cache::run(global, it).await,
        Command::Certificate(it) => objects::of_kind(global, Kind::Certificate, it).await,
        Command::Listener(it) => objects::of_kind(global, Kind::Listener, it).await,
        Command::Policy(it) => objects::of_kind(global, Kind::Policy, it).await,
        Command::Tenant(it) => objects::of_kind(global, Kind::Tenant, it).await,
        Command::Guardrail(it) => objects::of_kind(global, Kind::Guardrail, it).await,
        Command::Audit(it) => audit::run(global, it).await,
        Command::Doctor => doctor::run(global).await,
        Command::Explain(it) => exchanges::explain(global, it).await,
        Command::Tap(it) => exchanges::tap(global, it).await,
        Command::Top(it) => top::run(global, it).await,
        Command::Logs(it) => logs::run(global, it).await,
        #[cfg(feature = "kubernetes")]
        Command::Kubernetes(it) => verbs::kubernetes::run(global, it).await,
        _ => unreachable!("dispatch has run every command that asks no node"),
    }
}

fn version(global: &Global) -> Outcome {
    output::Answer {
        text: Some(format!("quorumgate {}\n", crate::VERSION)),
        json: serde_json::json!({ "version": crate::VERSION }),
        names: vec![crate::VERSION.to_owned()],
        ..output::Answer::default()
    }
    .print(global.output)
}

/// One thread: the command line waits for one answer at a time.
fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::internal)
}

fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    runtime()?.block_on(command)
}

fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "quorumgate", &mut script);
    output::stdout(&String::from_utf8_lossy(&script))
}

fn man(dir: Option<std::path::PathBuf>) -> Outcome {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::internal)?;
        return output::stdout(&String::from_utf8_lossy(&page));
    };
    let failed = |error: std::io::Error| Failure::new(failure::Exit::Internal, format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(&dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &dir).map_err(failed)
}
