use serde_json::{Value, json};

use super::*;
use crate::identity::{
    algorithm::Algorithm,
    tokens::{Signer, jwks},
};

const NOW: u64 = 1_800_000_000;

fn plan() -> JwtPlan {
    JwtPlan {
        id: PlanId::next(),
        issuer: "i".into(),
        audience: vec!["a".into()],
        algorithms: vec![Algorithm::ES256, Algorithm::HS256],
        consumer_claim: None,
        groups_claim: None,
        scopes_claim: "scope".into(),
        skew_s: 30,
        max_lifetime_s: 86_400,
        typ: None,
    }
}

fn claims(id: usize) -> Value {
    json!({"iss": "i", "aud": "a", "exp": NOW + 60, "jti": id.to_string()})
}

fn keys(signer: &Signer) -> Keys {
    Keys::Fixed(Arc::new(KeySet::parse(jwks(&[signer]).as_bytes()).unwrap()))
}

async fn ask(
    verified: &Verified,
    plan: &JwtPlan,
    keys: &Keys,
    token: &str,
    now_s: u64,
) -> Result<Arc<VerifiedToken>, AuthFailure> {
    verified.verify(plan, keys, token, now_s).await
}

#[tokio::test]
async fn a_token_is_verified_once_and_expires_all_the_same() {
    let (signer, plan, verified) = (Signer::es256("k"), plan(), Verified::default());
    let keys = keys(&signer);
    let token = signer.token(&claims(0));
    let first = ask(&verified, &plan, &keys, &token, NOW).await.unwrap();
    let second = ask(&verified, &plan, &keys, &token, NOW + 89).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(ask(&verified, &plan, &keys, &token, NOW + 90).await, Err(AuthFailure::Expired));
    assert_eq!(verified.len(), 0);
}

#[tokio::test]
async fn another_plan_or_other_keys_look_again() {
    let (signer, other, verified) = (Signer::es256("k"), Signer::es256("k"), Verified::default());
    let (ours, strict) = (plan(), JwtPlan { audience: vec!["b".into()], ..plan() });
    let token = signer.token(&claims(0));
    ask(&verified, &ours, &keys(&signer), &token, NOW).await.unwrap();
    let wrong = AuthFailure::Invalid("the token is for another audience");
    assert_eq!(ask(&verified, &strict, &keys(&signer), &token, NOW).await, Err(wrong));
    assert_eq!(ask(&verified, &ours, &keys(&other), &token, NOW).await, Err(AuthFailure::SignatureInvalid));
}

#[tokio::test]
async fn what_was_not_taken_is_not_remembered() {
    let (signer, verified) = (Signer::es256("k"), Verified::default());
    let token = Signer::es256("k").token(&claims(0));
    ask(&verified, &plan(), &keys(&signer), &token, NOW).await.unwrap_err();
    assert_eq!(verified.len(), 0);
}

#[tokio::test]
async fn a_forgotten_token_is_gone() {
    let (signer, plan, verified) = (Signer::es256("k"), plan(), Verified::default());
    let keys = keys(&signer);
    let token = signer.token(&claims(0));
    let first = ask(&verified, &plan, &keys, &token, NOW).await.unwrap();
    verified.forget(&first.marks.sha256);
    assert_eq!(verified.len(), 0);
    let second = ask(&verified, &plan, &keys, &token, NOW).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn many_tokens_and_long_ones_stay_within_the_bounds() {
    let (signer, verified) = (Signer::es256("k"), Verified::default());
    let token = ask(&verified, &plan(), &keys(&signer), &signer.token(&claims(0)), NOW).await.unwrap();
    let shard_max = TOKENS_MAX / SHARDS;
    let check = |text_bytes: usize| {
        let entry = Entry { plan: PlanId::next(), keys: 1, text_bytes, token: token.clone() };
        let mut shard = Shard::default();
        for id in 0..4 * shard_max as u64 {
            let mut sha256 = [0; 32];
            sha256[..8].copy_from_slice(&id.to_be_bytes());
            shard.insert(sha256, entry.clone());
            // The same again takes no more room.
            shard.insert(sha256, entry.clone());
        }
        shard.young.len() + shard.old.len()
    };
    assert!((shard_max / 2..=shard_max).contains(&check(500)));
    let longest = 16 * 1024;
    assert!((1..=TEXT_BYTES_MAX / SHARDS / longest).contains(&check(longest)));
}

#[tokio::test]
async fn who_comes_back_often_enough_is_not_forgotten() {
    let (signer, plan, verified) = (Signer::es256("k"), plan(), Verified::default());
    let keys = keys(&signer);
    let text = signer.token(&claims(0));
    let first = ask(&verified, &plan, &keys, &text, NOW).await.unwrap();
    let sha256 = first.marks.sha256;
    for _ in 0..3 {
        {
            let mut shard = verified.shard(&sha256);
            shard.old = std::mem::take(&mut shard.young);
        }
        assert!(Arc::ptr_eq(&first, &ask(&verified, &plan, &keys, &text, NOW).await.unwrap()));
    }
    assert_eq!(verified.len(), 1);
}
