//! The verb that follows a Kubernetes cluster.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use clap::Args;

#[derive(Debug, Args)]
pub struct Kubernetes {
    /// A kubeconfig; left out, the pod's service account.
    #[arg(long, env = "KUBECONFIG", value_name = "F")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; left out, its current one.
    #[arg(long, requires = "kubeconfig", value_name = "C")]
    pub kube_context: Option<String>,
    /// The address that nodes open the listeners of Gateways on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    pub bind: IpAddr,
    /// A port of Gateways and the one that nodes open for it, such as 443=8443; may be repeated. Others stay as they are.
    #[arg(long = "port", value_name = "N=N", value_parser = port)]
    pub ports: Vec<(u16, u16)>,
    /// The Service in front of the nodes, whose addresses Gateways have.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = service)]
    pub service: Option<(String, String)>,
    /// What to log: a level, or targets with levels.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log: String,
}

fn port(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|it| *it != 0);
    let pair = text.split_once('=').and_then(|(from, to)| Some((number(from)?, number(to)?)));
    pair.ok_or_else(|| format!("found {text:?}; allowed: a port of Gateways = a port of the nodes, such as 443=8443"))
}

fn service(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("found {text:?}; allowed: NAMESPACE/NAME")),
    }
}
