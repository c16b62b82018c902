//! What a token costs, the first time and from then on: `cargo bench -p quorumgate-proxy --bench tokens`.

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use futures_util::FutureExt;
use quorumgate_proxy::identity::{
    algorithm::Algorithm,
    jwks::KeySet,
    jwt::{JwtPlan, PlanId, verify},
    verified::{Keys, Verified},
};
use serde_json::json;

#[path = "../tests/all/tokens/mod.rs"]
mod tokens;

use tokens::{Signer, jwks};

const NOW: u64 = 1_800_000_000;
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

fn main() {
    divan::main();
}

fn case(algorithm: &str) -> (JwtPlan, Arc<KeySet>, String) {
    let signer = match algorithm {
        "RS256" => Signer::rsa("k1"),
        "ES256" => Signer::es256("k1"),
        _ => Signer::ed25519("k1"),
    };
    let plan = JwtPlan {
        id: PlanId::next(),
        issuer: "https://idp.test".into(),
        audience: vec!["orders".into()],
        algorithms: Algorithm::ALL.to_vec(),
        consumer_claim: Some("azp".into()),
        groups_claim: Some("groups".into()),
        scopes_claim: "scope".into(),
        skew_s: 30,
        max_lifetime_s: 86_400,
        typ: None,
    };
    let token = signer.token(&json!({
        "iss": "https://idp.test", "aud": ["orders", "account"], "exp": NOW + 300, "iat": NOW, "sub": "f3b4c5d6-1",
        "azp": "acme", "jti": "0198c3f0-0000-7000-8000-000000000000", "sid": "0198c3f0", "groups": ["partners"],
        "scope": "openid profile orders:read orders:write", "email": "someone@example.test", "email_verified": true,
    }));
    (plan, Arc::new(KeySet::parse(jwks(&[&signer]).as_bytes()).unwrap()), token)
}

#[divan::bench(args = ALGORITHMS)]
fn first(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (plan, keys, token) = case(algorithm);
    bencher.bench(|| verify(&plan, &keys, &token, NOW).unwrap());
}

#[divan::bench(args = ALGORITHMS, threads = [1, 4])]
fn again(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (plan, keys, token) = case(algorithm);
    let (verified, keys) = (Verified::default(), Keys::Fixed(keys));
    bencher
        .counter(ItemsCount::new(1usize))
        .bench(|| verified.verify(&plan, &keys, &token, NOW).now_or_never().unwrap().unwrap());
}
