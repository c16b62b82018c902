//! `kubernetes`: the controller of the Gateway API, until it is stopped.

use std::collections::BTreeMap;

use quorumgate_kubernetes::{
    admin::Admin,
    api::Id,
    client::{Access, Client as Server},
    control::Controller,
    translate::Settings,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{
        args::{Global, Kubernetes},
        client::Client,
        failure::{Exit, Failure, Outcome},
    },
    telemetry::logs,
};

pub async fn run(global: &Global, verb: Kubernetes) -> Outcome {
    let access = match &verb.kubeconfig {
        Some(file) => Access::from_kubeconfig(file, verb.kube_context.as_deref()),
        None => Access::in_cluster(),
    };
    let access = access.map_err(|error| {
        Failure::usage(format!("{error:#}")).help("in a pod its service account is used; elsewhere give --kubeconfig F")
    })?;
    let mut ports = BTreeMap::new();
    for (from, to) in &verb.ports {
        if ports.insert(*from, *to).is_some() {
            return Err(Failure::usage(format!("--port: found {from} twice; allowed: each port of Gateways once")));
        }
    }
    logs::start(&verb.log).map_err(|error| Failure::usage(format!("--log: {error:#}")))?;
    let client = Client::connect(global).await?;
    let controller = Controller {
        client: Server::new(access),
        admin: Admin { client: client.config(), authorization: client.token(), timeout: global.timeout() },
        settings: Settings {
            bind: verb.bind,
            ports,
            service: verb.service.map(|(space, name)| Id::new(&space, &name)),
        },
    };
    let mut term = signal(SignalKind::terminate()).map_err(Failure::internal)?;
    tokio::select! {
        ended = controller.run() => match ended {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(Exit::Forbidden, format!("{error:#}"))),
        },
        _ = term.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::internal),
    }
}
