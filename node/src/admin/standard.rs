//! The services that every gRPC tool expects: health, and reflection in both its versions.

use quorumgate_proto::admin::v1::{
    cluster_server::ClusterServer, config_server::ConfigServer, observe_server::ObserveServer,
};
use tokio::sync::watch;
use tonic::{server::NamedService, service::RoutesBuilder};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tonic_reflection::server::Builder;

use super::{cluster, config, observe};
use crate::tasks::Tasks;

/// "" is the node itself; NOT_SERVING until it is ready.
const SERVICES: [&str; 4] = [
    "",
    <ConfigServer<config::Service> as NamedService>::NAME,
    <ClusterServer<cluster::Service> as NamedService>::NAME,
    <ObserveServer<observe::Service> as NamedService>::NAME,
];

pub fn add_health(routes: &mut RoutesBuilder, ready: watch::Receiver<bool>, tasks: &Tasks) {
    let (reporter, server) = health_reporter();
    routes.add_service(server);
    let stop = tasks.stop();
    tasks.start("admin health", async move {
        stop.run_until_cancelled(follow(ready, &reporter)).await;
        report(&reporter, ServingStatus::NotServing).await;
        Ok(())
    });
}

pub fn add_reflection(routes: &mut RoutesBuilder) -> anyhow::Result<()> {
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(quorumgate_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(described().build_v1()?).add_service(described().build_v1alpha()?);
    Ok(())
}

async fn follow(mut ready: watch::Receiver<bool>, reporter: &HealthReporter) {
    loop {
        let status = match *ready.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        report(reporter, status).await;
        if ready.changed().await.is_err() {
            // Nobody will say otherwise any more: the last word stands.
            std::future::pending::<()>().await;
        }
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
