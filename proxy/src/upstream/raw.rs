//! A connection to an upstream for bytes that are not HTTP's.

use std::{net::SocketAddr, time::Instant};

use http::HeaderMap;
use tokio::net::TcpStream;

use super::{Caller, Failure, Pools, balance::Choice, pool::InFlight, send};

/// Counts against its target while it is held.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    _in_flight: InFlight,
}

impl Pools {
    /// A fresh connection to the target whose turn it is, for the client at `whom`; one that refuses gives way to the next,
    /// as often as the upstream's retries say.
    pub(crate) async fn connect(&self, upstream: &str, whom: SocketAddr) -> Result<Raw, Failure> {
        let view = self.view(upstream).await?;
        let config = &view.origin.config;
        // Of what a caller can be kept by, only its address is seen.
        let key = send::key(config, &Caller { address: whom, consumer: None }, &HeaderMap::new());
        let mut tried = Vec::new();
        let mut failure = Failure::NoHealthyTarget;
        for _ in 0..=config.retries.attempts {
            let started = Instant::now();
            let (slots, origin) = (&view.slots, &view.origin);
            let choice = Choice { slots, origin, tried: &tried, now: started, key, random: self.random() };
            let Some(slot) = view.balancer.choose(&choice) else { break };
            let pool = &view.slots[slot].pool;
            let Some(in_flight) = InFlight::new(pool, origin.in_flight_max()) else {
                tried.push(slot);
                continue;
            };
            match pool.connect_raw(whom, config.timeouts.connect.0).await {
                Ok(stream) => {
                    pool.endpoint.answered(Instant::now(), started.elapsed());
                    pool.endpoint.went_well();
                    return Ok(Raw { stream, _in_flight: in_flight });
                }
                Err(error) => {
                    pool.endpoint.failed(Instant::now(), started.elapsed());
                    view.gauge.attempt_failed(&error);
                    if origin.failed(&pool.endpoint, Instant::now()) {
                        view.gauge.ejected();
                    }
                    failure = error;
                    tried.push(slot);
                }
            }
        }
        Err(failure)
    }
}
