//! `node`: who is in the cluster, and who comes and goes.

use quorumgate_proto::admin::v1::{ListNodesRequest, NodeRequest, NodeStatus};
use serde_json::json;

use crate::cli::{
    args::{Global, Node, NodeName},
    client::Client,
    failure::{Exit, Failure, Outcome},
    input,
    output::Answer,
    shape, status,
    write::{self, Wrote},
};

const COLUMNS: [&str; 13] = [
    "name",
    "id",
    "region",
    "role",
    "state",
    "raft",
    "lag",
    "revision",
    "version",
    "peer_address",
    "applied_index",
    "certificate_not_after",
    "problems",
];
const WIDE_COLUMNS: usize = 4;

pub async fn run(global: &Global, verb: Node) -> Outcome {
    let client = Client::connect(global).await?;
    let mut cluster = client.cluster();
    let ask = |it: NodeName| client.ask(NodeRequest { node: it.node, force: false });
    let look = || status::or_look("look with `quorumgate node ls`; repeating it is safe");
    let (answer, wrote) = match verb {
        Node::Ls => return ls(global, &client).await,
        Node::Certs => return certs(global, &client).await,
        Node::Get(it) => return get(global, &client, &it.node).await,
        Node::Drain(it) => {
            (cluster.drain_node(ask(it)).await.map_err(look())?, "draining; undo: quorumgate node undrain")
        }
        Node::Undrain(it) => (cluster.undrain_node(ask(it)).await.map_err(look())?, "back in traffic"),
        Node::Promote(it) => {
            (cluster.promote_node(ask(it)).await.map_err(look())?, "it will vote once it has caught up")
        }
        Node::Demote(it) => (
            cluster.demote_node(ask(it)).await.map_err(look())?,
            "a replica from now on; undo: quorumgate node promote",
        ),
        Node::Leave(it) => {
            let what = "it drains, hands over and goes away for good; it comes back only with a new join token";
            confirm(global, &client, &it.node, what).await?;
            (cluster.leave_node(ask(it)).await.map_err(look())?, "leaving")
        }
        Node::Rm(it) => {
            let what = "it is removed and its certificate is shut out; it comes back only with a new join token";
            confirm(global, &client, &it.name.node, what).await?;
            let request = client.ask(NodeRequest { node: it.name.node, force: it.force });
            (cluster.remove_node(request).await.map_err(look())?, "removed")
        }
    };
    write::print(global.output, Wrote::Other(wrote), &answer.into_inner())
}

async fn nodes(client: &Client) -> Outcome<Vec<NodeStatus>> {
    Ok(client.cluster().list_nodes(client.ask(ListNodesRequest {})).await?.into_inner().nodes)
}

async fn find(client: &Client, name: &str) -> Outcome<NodeStatus> {
    let nodes = nodes(client).await?;
    let found = nodes.iter().find(|it| it.name == name || it.id.to_string() == name);
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = nodes.iter().map(|it| it.name.as_str()).collect();
        Failure::new(Exit::NotFound, format!("there is no node {name:?}")).help(format!("nodes: {}", known.join(", ")))
    })
}

async fn ls(global: &Global, client: &Client) -> Outcome {
    let nodes = nodes(client).await?;
    let shapes: Vec<_> = nodes.iter().map(shape::node).collect();
    Answer {
        header: COLUMNS.to_vec(),
        wide_columns: WIDE_COLUMNS,
        rows: shapes.iter().map(|it| shape::cells(it, &COLUMNS)).collect(),
        names: nodes.into_iter().map(|it| it.name).collect(),
        json: json!({ "nodes": shapes }),
        list: Some("nodes"),
        ..Answer::default()
    }
    .print(global.output)
}

async fn certs(global: &Global, client: &Client) -> Outcome {
    const COLUMNS: [&str; 4] = ["node", "state", "expires_in", "not_after"];
    let nodes = nodes(client).await?;
    let now = std::time::SystemTime::now();
    let shapes: Vec<_> = nodes
        .iter()
        .map(|node| {
            let not_after = node.certificate_not_after.filter(|it| it.seconds != 0);
            let left =
                not_after.and_then(|it| std::time::SystemTime::try_from(it).ok()).map(|it| it.duration_since(now));
            let state = match &left {
                None => "unknown",
                Some(Ok(_)) => "valid",
                Some(Err(_)) => "expired",
            };
            json!({
                "node": node.name,
                "state": state,
                "expires_in": shape::span(left.and_then(Result::ok).map(shape::to_proto).as_ref()),
                "not_after": shape::time(not_after.as_ref()),
            })
        })
        .collect();
    Answer {
        header: COLUMNS.to_vec(),
        rows: shapes.iter().map(|it| shape::cells(it, &COLUMNS)).collect(),
        names: nodes.into_iter().map(|it| it.name).collect(),
        json: json!({ "certificates": shapes }),
        list: Some("certificates"),
        ..Answer::default()
    }
    .print(global.output)
}

async fn get(global: &Global, client: &Client, name: &str) -> Outcome {
    let node = find(client, name).await?;
    let json = shape::node(&node);
    Answer {
        header: vec!["field", "value"],
        rows: COLUMNS.iter().map(|field| vec![(*field).to_owned(), shape::cell(&json[*field])]).collect(),
        names: vec![node.name],
        json,
        ..Answer::default()
    }
    .print(global.output)
}

async fn confirm(global: &Global, client: &Client, name: &str, what: &str) -> Outcome {
    if global.yes {
        return Ok(());
    }
    let node = find(client, name).await?;
    input::confirm(global, &format!("node {} (id {}, {}, {}): {what}", node.name, node.id, node.role, node.state))
}
