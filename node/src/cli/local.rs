//! The verbs that make and run a node on this machine.

use std::path::{Path, PathBuf};

use quorumgate_model::command::{Reason, Role};
use quorumgate_model::timing::MAX_RTT_RANGE;
use quorumgate_model::units::Span;

use super::{
    args::{Init, Join, NewNode, NodeRole, Run},
    failure::{Exit, Failure, Outcome},
    input,
};
use crate::{
    boot,
    init::{self, Occupied},
    join::{self, JoinToken, NotAdmitted},
    settings::{self, Settings},
};

pub fn init(verb: Init) -> Outcome {
    if !MAX_RTT_RANGE.contains(&verb.max_rtt.0) {
        let (least, most) = (Span(*MAX_RTT_RANGE.start()), Span(*MAX_RTT_RANGE.end()));
        return Err(Failure::usage(format!("--max-rtt: found {}; allowed: {least} to {most}", verb.max_rtt)));
    }
    let settings = settings_of(&verb.node)?;
    let dir = &verb.node.data_dir;
    if let Some(settings) = prepared(verb.run, &verb.node) {
        return run_in(dir.clone(), settings);
    }
    init::init(dir, &settings, verb.max_rtt.0).map_err(refused)?;
    eprintln!("{} is prepared in {}: the first node of a new cluster.", verb.node.name, dir.display());
    match verb.run {
        true => run_in(dir.clone(), settings),
        false => {
            eprintln!("run it:             quorumgate run --data-dir {}", dir.display());
            eprintln!("let others join:    quorumgate --endpoint unix:{}/admin.sock join-token create", dir.display());
            let seed = settings.peer_address();
            eprintln!("and on each of them: quorumgate join {seed} --token-file F --name N --region R --data-dir D");
            Ok(())
        }
    }
}

/// `--run` may be repeated, as containers do: a directory that was prepared for this node is run.
fn prepared(run: bool, node: &NewNode) -> Option<Settings> {
    let is_ready = run && init::check_prepared(&node.data_dir).is_ok();
    let settings = Settings::read(&node.data_dir).ok().filter(|_| is_ready)?;
    (settings.node.name == node.name).then_some(settings)
}

pub fn join(verb: Join) -> Outcome {
    if let Some(settings) = prepared(verb.run, &verb.node) {
        return run_in(verb.node.data_dir.clone(), settings);
    }
    let token: JoinToken = input::secret(&verb.token_file)?
        .parse()
        .map_err(|error: anyhow::Error| Failure::usage(format!("--token-file: {error:#}")))?;
    let settings = settings_of(&verb.node)?;
    let dir = &verb.node.data_dir;
    let role = verb.role.map(|role| match role {
        NodeRole::Voter => Role::Voter,
        NodeRole::Replica => Role::Replica,
    });
    let runtime = super::runtime()?;
    let id = runtime.block_on(join::join(&verb.seeds, &token, dir, &settings, role)).map_err(refused)?;
    eprintln!("{} is in the cluster as node {id}, prepared in {}.", verb.node.name, dir.display());
    drop(runtime);
    match verb.run {
        true => run_in(dir.clone(), settings),
        false => {
            eprintln!("run it: quorumgate run --data-dir {}", dir.display());
            Ok(())
        }
    }
}

/// Who refused, by type; the words are for people.
pub(super) fn refused(error: anyhow::Error) -> Failure {
    let exit = match error.downcast_ref::<NotAdmitted>() {
        Some(NotAdmitted::Refused { reason: Some(Reason::NameTaken | Reason::AlreadyExists), .. }) => Exit::Conflict,
        Some(NotAdmitted::Refused { reason: Some(Reason::LimitReached), .. }) => Exit::Conflict,
        Some(NotAdmitted::Refused { .. } | NotAdmitted::AnotherCluster(_)) => Exit::Forbidden,
        Some(NotAdmitted::NoSeed(_)) => Exit::Unavailable,
        None if error.is::<Occupied>() => Exit::Usage,
        None => Exit::Internal,
    };
    Failure::new(exit, format!("{error:#}"))
}

pub fn run(verb: Run) -> Outcome {
    let wrong = |error: anyhow::Error| Failure::new(Exit::Settings, format!("{error:#}"));
    let file = match (&verb.config, &verb.data_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(dir)) => dir.join(settings::FILE),
        (None, None) => return Err(Failure::usage("run needs --data-dir or --config")),
    };
    let mut settings = Settings::read_file(&file).map_err(wrong)?;
    if let Some(workers) = verb.proxy_workers {
        settings.proxy.workers = workers;
    }
    let beside = || file.parent().unwrap_or(Path::new(".")).to_owned();
    run_in(verb.data_dir.clone().unwrap_or_else(beside), settings)
}

pub(super) fn run_in(dir: PathBuf, settings: Settings) -> Outcome {
    boot::run(boot::Run { dir, settings }).map_err(|error| match error.is::<settings::Bad>() {
        true => Failure::new(Exit::Settings, format!("{error:#}")),
        false => Failure::internal(error),
    })
}

pub(super) fn settings_of(node: &NewNode) -> Outcome<Settings> {
    if node.peer_listen.ip().is_unspecified() && node.advertise.is_none() {
        return Err(Failure::usage(format!("other nodes cannot dial {}", node.peer_listen))
            .help("say how they reach this one: --advertise HOST:PORT"));
    }
    Ok(Settings {
        node: settings::Node { name: node.name.clone(), region: node.region.clone() },
        proxy: settings::Proxy {
            listeners: vec![settings::Listener {
                address: node.proxy_listen,
                certificate_file: None,
                key_file: None,
                client_auth: settings::ClientAuth::None,
                merge_slashes: true,
            }],
            workers: 0,
            access_log: false,
            access_log_file: None,
            trusted_proxies: Vec::new(),
            trusted_field: Default::default(),
            name_servers: Vec::new(),
            geo: settings::Geo::default(),
            grace: Span::secs(30),
            lame_duck: Span::default(),
            buffered_max: settings::buffered_default(),
            queue_delay_max: settings::queue_delay_default(),
            rate_limit_headers: Default::default(),
            redact: Vec::new(),
            redact_values: settings::redact_values_default(),
        },
        peer: settings::Peer { listen: node.peer_listen, advertise: node.advertise.clone() },
        admin: settings::Admin { listen: node.admin_listen, oidc: None },
        telemetry: settings::Telemetry::at(node.telemetry_listen),
        audit: settings::Audit::default(),
    })
}
