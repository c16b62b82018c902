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
    // Auths of one issuer share its keys.
    let shared = keys(&signer);
    ask(&verified, &ours, &shared, &token, NOW).await.unwrap();
    assert_eq!(ask(&verified, &strict, &shared, &token, NOW).await, Err(wrong));
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
