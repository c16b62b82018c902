//! Upstreams between model types and messages. What is not set stays absent in a message, so that what was stored before a
//! field existed keeps its bytes.

use quorumgate_proto::admin::v1 as admin;

use super::resource::{listed, meta_to, name_from, optional, optional_name, span_from, span_to, word};
use crate::{
    invalid::Invalid,
    resource::{
        Authority, Balance, BalancePolicy, Breaker, HashOn, HealthCheck, Name, Outlier, Protocol, ProxyProtocol,
        Retries, RetryOn, StatusRange, Target, Upstream, UpstreamTimeouts, UpstreamTls, UpstreamWords, Weight,
    },
};

pub fn upstream_from(it: admin::Upstream) -> Result<Upstream, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let words = UpstreamWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        targets: listed("targets", it.targets, target_from)?,
        protocol: word("protocol", &it.protocol, &Protocol::ALL, Protocol::word)?.unwrap_or_default(),
        balance: balance_from(it.balance.unwrap_or_default()).map_err(|invalid| invalid.under("balance"))?,
        health: it.health.map(health_from).transpose().map_err(|invalid| invalid.under("health"))?,
        retries: retries_from(it.retries.unwrap_or_default()).map_err(|invalid| invalid.under("retries"))?,
        timeouts: timeouts_from(it.timeouts.unwrap_or_default()).map_err(|invalid| invalid.under("timeouts"))?,
        auth: optional_name("auth", &it.auth)?,
        outlier: outlier_from(it.outlier.unwrap_or_default()).map_err(|invalid| invalid.under("outlier"))?,
        breaker: it.breaker.map(breaker_from).transpose().map_err(|invalid| invalid.under("breaker"))?,
        slow_start: span_from("slow_start", it.slow_start)?.unwrap_or_else(UpstreamWords::slow_start_default),
        proxy_protocol: word("proxy_protocol", &it.proxy_protocol, &ProxyProtocol::ALL, ProxyProtocol::word)?,
        tls: it.tls.map(tls_from).transpose().map_err(|invalid| invalid.under("tls"))?,
    };
    words.try_into()
}

fn target_from(it: admin::Target) -> Result<Target, Invalid> {
    let address: Authority = it.address.parse().map_err(|_| {
        let allowed = "host:port, such as 10.1.0.4:9000, orders.internal:80 or [::1]:80";
        Invalid::field("address").found(format!("{:?}", it.address)).allowed(allowed)
    })?;
    let weight = match it.weight {
        0 => Weight::default(),
        weight => Weight::try_from(weight).map_err(|_| Invalid::field("weight").found(weight).allowed("1 to 1000"))?,
    };
    Ok(Target { address, weight, priority: it.priority, zone: optional(it.zone) })
}

fn balance_from(it: admin::Balance) -> Result<Balance, Invalid> {
    use admin::hash_on::Key;
    let policy = word("policy", &it.policy, &BalancePolicy::ALL, BalancePolicy::word)?;
    let hash_on = match it.hash_on.and_then(|it| it.key) {
        None => None,
        Some(Key::Ip(_)) => Some(HashOn::Ip),
        Some(Key::Consumer(_)) => Some(HashOn::Consumer),
        Some(Key::Header(name)) => Some(HashOn::Header(name.to_ascii_lowercase())),
        Some(Key::Cookie(name)) => Some(HashOn::Cookie(name)),
    };
    Ok(Balance { policy: policy.unwrap_or_default(), hash_on })
}

fn health_from(it: admin::HealthCheck) -> Result<HealthCheck, Invalid> {
    let or = |count: u32, default: u32| if count == 0 { default } else { count };
    let expect = match it.expect.as_str() {
        "" => StatusRange::default(),
        text => text.parse().map_err(|_| {
            let allowed = "a status or a range within 100-599, such as 200-399";
            Invalid::field("expect").found(format!("{text:?}")).allowed(allowed)
        })?,
    };
    Ok(HealthCheck {
        path: it.path,
        interval: span_from("interval", it.interval)?.unwrap_or_else(HealthCheck::interval_default),
        timeout: span_from("timeout", it.timeout)?.unwrap_or_else(HealthCheck::timeout_default),
        unhealthy_after: or(it.unhealthy_after, HealthCheck::unhealthy_after_default()),
        healthy_after: or(it.healthy_after, HealthCheck::healthy_after_default()),
        expect,
    })
}

fn retries_from(it: admin::Retries) -> Result<Retries, Invalid> {
    let default = Retries::default();
    let mut on = Vec::new();
    for (place, text) in it.on.iter().enumerate() {
        on.push(text.parse::<RetryOn>().map_err(|invalid| invalid.under(format!("on[{place}]")))?);
    }
    Ok(Retries {
        attempts: it.attempts.unwrap_or(default.attempts),
        on: if on.is_empty() { default.on } else { on },
        budget_percent: it.budget_percent.unwrap_or(default.budget_percent),
        hedge: it.hedge,
    })
}

fn timeouts_from(it: admin::UpstreamTimeouts) -> Result<UpstreamTimeouts, Invalid> {
    let default = UpstreamTimeouts::default();
    Ok(UpstreamTimeouts {
        connect: span_from("connect", it.connect)?.unwrap_or(default.connect),
        response_header: span_from("response_header", it.response_header)?.unwrap_or(default.response_header),
        idle: span_from("idle", it.idle)?.unwrap_or(default.idle),
        total: span_from("total", it.total)?.unwrap_or(default.total),
    })
}

fn outlier_from(it: admin::Outlier) -> Result<Outlier, Invalid> {
    let default = Outlier::default();
    Ok(Outlier {
        consecutive_errors: it.consecutive_errors.unwrap_or(default.consecutive_errors),
        ejection: span_from("ejection", it.ejection)?.unwrap_or(default.ejection),
        max_ejected_percent: it.max_ejected_percent.unwrap_or(default.max_ejected_percent),
    })
}

fn breaker_from(it: admin::Breaker) -> Result<Breaker, Invalid> {
    let default = Breaker::default();
    Ok(Breaker {
        error_percent: it.error_percent.unwrap_or(default.error_percent),
        window: span_from("window", it.window)?.unwrap_or(default.window),
        min_requests: it.min_requests.unwrap_or(default.min_requests),
        open: span_from("open", it.open)?.unwrap_or(default.open),
        max_in_flight: it.max_in_flight,
    })
}

fn tls_from(it: admin::UpstreamTls) -> Result<UpstreamTls, Invalid> {
    Ok(UpstreamTls {
        server_name: optional(it.server_name),
        ca: optional_name("ca", &it.ca)?,
        client_certificate: optional_name("client_certificate", &it.client_certificate)?,
        verify: it.verify.unwrap_or(true),
    })
}

pub fn upstream_to(it: &Upstream) -> admin::Upstream {
    admin::Upstream {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        targets: it.targets.iter().map(target_to).collect(),
        protocol: it.protocol.word().to_owned(),
        balance: Some(balance_to(&it.balance)),
        health: it.health.as_ref().map(health_to),
        retries: Some(admin::Retries {
            attempts: Some(it.retries.attempts),
            on: it.retries.on.iter().map(|on| on.word().into_owned()).collect(),
            budget_percent: Some(it.retries.budget_percent),
            hedge: it.retries.hedge,
        }),
        timeouts: Some(admin::UpstreamTimeouts {
            connect: span_to(it.timeouts.connect),
            response_header: span_to(it.timeouts.response_header),
            idle: span_to(it.timeouts.idle),
            total: span_to(it.timeouts.total),
        }),
        auth: it.auth.as_ref().map(Name::to_string).unwrap_or_default(),
        outlier: Some(&it.outlier).filter(|it| **it != Outlier::default()).map(|it| admin::Outlier {
            consecutive_errors: Some(it.consecutive_errors),
            ejection: span_to(it.ejection),
            max_ejected_percent: Some(it.max_ejected_percent),
        }),
        breaker: it.breaker.as_ref().map(|it| admin::Breaker {
            error_percent: Some(it.error_percent),
            window: span_to(it.window),
            min_requests: Some(it.min_requests),
            open: span_to(it.open),
            max_in_flight: it.max_in_flight,
        }),
        slow_start: Some(it.slow_start).filter(|it| *it != UpstreamWords::slow_start_default()).and_then(span_to),
        proxy_protocol: it.proxy_protocol.map(ProxyProtocol::word).unwrap_or_default().to_owned(),
        tls: it.tls.as_ref().map(tls_to),
    }
}

fn target_to(it: &Target) -> admin::Target {
    admin::Target {
        address: it.address.to_string(),
        weight: it.weight.value(),
        priority: it.priority,
        zone: it.zone.clone().unwrap_or_default(),
    }
}

fn balance_to(it: &Balance) -> admin::Balance {
    use admin::hash_on::Key;
    let key = it.hash_on.as_ref().map(|on| match on {
        HashOn::Ip => Key::Ip(true),
        HashOn::Consumer => Key::Consumer(true),
        HashOn::Header(name) => Key::Header(name.clone()),
        HashOn::Cookie(name) => Key::Cookie(name.clone()),
    });
    let hash_on = key.map(|key| admin::HashOn { key: Some(key) });
    admin::Balance { policy: it.policy.word().to_owned(), hash_on }
}

fn tls_to(it: &UpstreamTls) -> admin::UpstreamTls {
    let name = |name: &Option<Name>| name.as_ref().map(Name::to_string).unwrap_or_default();
    admin::UpstreamTls {
        server_name: it.server_name.clone().unwrap_or_default(),
        ca: name(&it.ca),
        client_certificate: name(&it.client_certificate),
        verify: Some(it.verify),
    }
}

fn health_to(it: &HealthCheck) -> admin::HealthCheck {
    admin::HealthCheck {
        path: it.path.clone(),
        interval: span_to(it.interval),
        timeout: span_to(it.timeout),
        unhealthy_after: it.unhealthy_after,
        healthy_after: it.healthy_after,
        expect: it.expect.to_string(),
    }
}
