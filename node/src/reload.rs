//! What of the settings may change while the node runs: SIGHUP reads the file again. The rest waits for a restart, and it is
//! said what.

use std::path::PathBuf;

use quorumgate_model::units::Span;
use quorumgate_proxy::Proxy;
use tracing::{info, warn};

use crate::{
    settings::{self, Geo, Settings},
    telemetry::logs,
};

/// The file, and the settings that the process was started with (flags and environment above the file).
pub struct Reload {
    dir: PathBuf,
    /// As the file was when the process started: what waits for a restart differs from that.
    first: Option<Settings>,
    /// As it was when it was read last.
    last: Option<Settings>,
}

impl Reload {
    pub fn new(dir: PathBuf) -> Self {
        let last = Settings::read(&dir).ok();
        Self { dir, first: last.clone(), last }
    }

    /// A file that cannot be read changes nothing.
    pub fn reload(&mut self, proxy: &Proxy) {
        proxy.reopen_access_log();
        let settings = match Settings::read(&self.dir) {
            Ok(settings) => settings,
            Err(error) => return warn!(error = format!("{error:#}"), "the settings are not taken: nothing is changed"),
        };
        let before = self.last.as_ref().unwrap_or(&settings);
        if settings.telemetry.log != before.telemetry.log
            && let Some(logs) = logs::of_process()
        {
            match logs.change(&settings.telemetry.log) {
                Ok(before) => info!(filter = settings.telemetry.log, before, "the log's filter is changed"),
                Err(error) => warn!(error = format!("{error:#}"), "telemetry.log is not taken"),
            }
        }
        // The files may be new under their old names.
        if settings.proxy.geo != Geo::default() || before.proxy.geo != Geo::default() {
            match proxy.directory().geo.load(&settings.proxy.geo.files()) {
                Ok(()) => info!("the files of proxy.geo are read again"),
                Err(error) => warn!(error = format!("{error:#}"), "proxy.geo is not taken: what was known stays"),
            }
        }
        let waiting = self.waiting(&settings);
        match waiting.is_empty() {
            true => info!("settings read again, the access log opened anew"),
            false => warn!(?waiting, "settings read again; these wait for a restart"),
        }
        self.last = Some(settings);
    }

    fn waiting(&self, now: &Settings) -> Vec<&'static str> {
        self.first.as_ref().map(|first| needs_restart(first, now)).unwrap_or_default()
    }
}

/// The tables that differ in something that is only read at the start.
fn needs_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    let differs = [
        ("node", before.node != after.node),
        ("proxy", without_geo(&before.proxy) != without_geo(&after.proxy)),
        ("peer", before.peer != after.peer),
        ("admin", before.admin != after.admin),
        ("telemetry.listen", before.telemetry.listen != after.telemetry.listen),
        ("audit", before.audit != after.audit),
        ("telemetry.otlp", otlp(before) != otlp(after)),
    ];
    waiting.extend(differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name));
    waiting
}

fn without_geo(proxy: &settings::Proxy) -> settings::Proxy {
    settings::Proxy { geo: Geo::default(), ..proxy.clone() }
}

fn otlp(settings: &Settings) -> (&Option<String>, f64, Span, bool) {
    let telemetry = &settings.telemetry;
    (&telemetry.otlp_endpoint, telemetry.trace_ratio, telemetry.otlp_metrics_every, telemetry.otlp_audit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_named() {
        let text = r#"
            node = { name = "n1", region = "eu" }
            proxy = { listeners = [{ address = "127.0.0.1:0" }] }
            peer = { listen = "127.0.0.1:0" }
            admin = { listen = "127.0.0.1:0" }
            telemetry = { listen = "127.0.0.1:0" }
        "#;
        let before: Settings = toml::from_str(text).unwrap();
        let mut after = before.clone();
        after.telemetry.log = "debug".into();
        after.proxy.geo.country = Some("geo.mmdb".into());
        assert_eq!(needs_restart(&before, &after), [""; 0]);
        after.proxy.workers = 3;
        after.node.region = "us".into();
        assert_eq!(needs_restart(&before, &after), ["node", "proxy"]);
        // However often it is read, until it is as at the start again.
        let mut reload = Reload { dir: PathBuf::new(), first: Some(before.clone()), last: Some(after.clone()) };
        assert_eq!(reload.waiting(&after), ["node", "proxy"]);
        reload.last = Some(after);
        assert_eq!(reload.waiting(&before), [""; 0]);
    }
}
