//! The key that secrets are sealed under is replaced while the nodes serve: nothing that anybody sees changes, and nobody
//! holds the old one afterwards.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use quorumgate_node::pki;
use serde_json::{Value, json};

use super::apply_file;
use crate::{Cluster, cluster::until, load::Connection};

const HOST: &str = "sealed.test";
/// Longer than all of this takes, shorter than an auth allows.
const TOKEN_LIFE_S: u64 = 3_600;
const SECRET: &str = "a secret of thirty-two bytes, or more";

/// What a client and an operator see, and must go on seeing.
struct Seen {
    key: String,
    token: String,
    exported: String,
    revision: u64,
}

/// Wants a cluster of three; leaves one of one that was restored. How many secrets were sealed anew the first time.
pub async fn rotate(cluster: &mut Cluster) -> anyhow::Result<u64> {
    let seen = prepare(cluster).await?;
    let mut old = vec![key_of(cluster, 0)?];

    // A node that is down holds the first step up, which the next leader goes on with.
    let leader = cluster.leader().await?;
    let down = (0..3).find(|at| *at != leader).context("three nodes")?;
    let name = cluster.members[down].name.clone();
    cluster.members[down].kill();
    let asked = cluster.members[leader].cli_output(&["cluster", "rotate-sealing-key", "--yes", "--within", "1s"])?;
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    ensure!(asked.status.code() == Some(7) && told.contains(&format!("waits for {name}")), "{told}");
    let status: Value = serde_json::from_str(&cluster.members[leader].cli(&["cluster", "status", "-o", "json"])?)?;
    ensure!(status["under_way"][0].as_str().is_some_and(|it| it.contains(&name)), "{status}");
    let left = progress(cluster, leader)?["left"].as_u64().context("no count")?;
    cluster.members[leader].cli(&["cluster", "transfer-leader"])?;
    cluster.members[down].run()?;
    over(cluster).await?;
    check(cluster, &seen, &old).await?;

    // Killed after that, each comes back; another joins, and gets what it needs.
    old.push(key_of(cluster, 0)?);
    for at in 0..3 {
        cluster.members[at].kill();
        cluster.members[at].run()?;
        cluster.members[at].wait_ready().await?;
    }
    cluster.grow("r1", &["--role", "replica"]).await?;
    check(cluster, &seen, &old[..1]).await?;

    let leader = cluster.leader().await?;
    cluster.follower(leader).cli(&["cluster", "rotate-sealing-key", "--yes"])?;
    check(cluster, &seen, &old).await?;

    // The way back in the history leads past both.
    let words = json!({ "auth": [{ "name": "later", "api_key": {}, "description": "more" }] });
    apply_file(cluster, &words).await?;
    cluster.members[0].cli(&["rollback", "--previous", "--yes"])?;
    ensure!(cluster.members[0].cli(&["export"])? == seen.exported, "a rollback leads elsewhere");
    cluster.members[0].cli(&["rollback", &seen.revision.to_string(), "--yes"])?;
    everywhere(cluster, &seen).await?;
    cluster.check_same_state().await?;
    for member in &cluster.members {
        let log = std::fs::read_to_string(member.log_file())?;
        ensure!(!log.contains("cannot be opened") && !log.contains("does not go on"), "{}: {log}", member.name);
    }

    let backup = cluster.dir.path().join("sealed.backup");
    let backup = backup.to_str().context("a path in UTF-8")?;
    cluster.members[1].cli(&["cluster", "backup", "save", backup])?;
    cluster.members.iter_mut().for_each(crate::cluster::Member::kill);
    cluster.restore(backup, &[]).await?;
    cluster.members.drain(..4);
    everywhere(cluster, &seen).await?;
    Ok(left)
}

async fn prepare(cluster: &Cluster) -> anyhow::Result<Seen> {
    let route = |name: &str, auth: &str| {
        json!({ "name": name, "match": { "hosts": [HOST], "path_exact": format!("/{name}") }, "auth": { "any_of": [auth] },
                "respond": { "status": 200 } })
    };
    let words = json!({
        "consumers": [{ "name": "acme" }],
        "auth": [
            { "name": "keys", "api_key": {} },
            { "name": "tokens", "jwt": { "issuer": "https://idp.test", "audience": ["orders"], "algorithms": ["HS256"],
                                         "secret": format!("plain:{SECRET}") } },
        ],
        "routes": [route("by-key", "keys"), route("by-token", "tokens")],
    });
    apply_file(cluster, &words).await?;
    let key = cluster.members[0].cli(&["key", "create", "acme", "-q"])?.trim().to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims =
        json!({ "iss": "https://idp.test", "aud": "orders", "sub": "ann", "iat": now - 60, "exp": now + TOKEN_LIFE_S });
    let token =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?;
    let exported = cluster.members[0].cli(&["export"])?;
    ensure!(exported.contains("sealed:"), "no fingerprint in {exported}");
    let seen = Seen { key, token, exported, revision: revision(cluster)? };
    everywhere(cluster, &seen).await?;
    Ok(seen)
}

fn revision(cluster: &Cluster) -> anyhow::Result<u64> {
    let status: Value = serde_json::from_str(&cluster.members[0].cli(&["cluster", "status", "-o", "json"])?)?;
    status["revision"].as_u64().context("no revision")
}

fn key_of(cluster: &Cluster, at: usize) -> anyhow::Result<Vec<u8>> {
    let keys = pki::Keys::from_bytes(&std::fs::read(cluster.members[at].dir.join(pki::CLUSTER_KEY))?)?;
    let number = keys.numbers().pop().context("no key")?;
    Ok(keys.get(number).context("no key")?.bytes().to_vec())
}

fn progress(cluster: &Cluster, at: usize) -> anyhow::Result<Value> {
    let told = cluster.members[at].cli(&["cluster", "rotate-sealing-key", "--status", "-o", "json"])?;
    Ok(serde_json::from_str(&told)?)
}

async fn over(cluster: &Cluster) -> anyhow::Result<()> {
    until("the end of the replacement", async || {
        let told = progress(cluster, 0)?;
        let alone = told["nodes"].as_array().is_some_and(|all| all.iter().all(|it| it["alone"] == true));
        ensure!(told["stage"] == "none" && alone, "{told}");
        Ok(())
    })
    .await
}

/// Everything is as it was, but for the key.
async fn check(cluster: &Cluster, seen: &Seen, old: &[Vec<u8>]) -> anyhow::Result<()> {
    everywhere(cluster, seen).await?;
    ensure!(revision(cluster)? == seen.revision, "a revision was made");
    let member = &cluster.members[0];
    ensure!(member.cli(&["export"])? == seen.exported, "the export has changed");
    let file = cluster.dir.path().join("exported.yaml");
    std::fs::write(&file, &seen.exported)?;
    member.cli(&["apply", "-f", file.to_str().context("a path in UTF-8")?])?;
    ensure!(revision(cluster)? == seen.revision, "an export does not apply back unchanged");
    let held = cluster.members.iter().map(|it| Ok(std::fs::read(it.dir.join(pki::CLUSTER_KEY))?));
    let held: Vec<Vec<u8>> = held.collect::<anyhow::Result<_>>()?;
    ensure!(held.iter().all(|it| *it == held[0]), "the nodes hold different keys");
    for old in old {
        ensure!(!held[0].windows(old.len()).any(|it| it == old), "an old key is there still");
    }
    cluster.check_same_state().await
}

async fn everywhere(cluster: &Cluster, seen: &Seen) -> anyhow::Result<()> {
    let bearer = format!("Bearer {}", seen.token);
    for member in &cluster.members {
        let mut connection = Connection::open(member.proxy).await?;
        for (path, field, expected) in [
            ("/by-key", ("x-api-key", seen.key.as_str()), 200),
            ("/by-key", ("x-api-key", "another"), 401),
            ("/by-token", ("authorization", bearer.as_str()), 200),
            ("/by-token", ("authorization", "Bearer x"), 401),
        ] {
            let answer = connection.get_with(HOST, path, &[field]).await?;
            ensure!(answer.status == expected, "{} {path}: {}: {}", member.name, answer.status, answer.body);
        }
    }
    Ok(())
}
