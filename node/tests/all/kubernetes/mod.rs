//! The controller of the Gateway API between an API server of ours and a node: what is created there is served here, and
//! what became of it stands in its status.

mod server;

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use self::server::{GATEWAY_API, Server};
use crate::{
    addresses::address,
    cli_node::{Node, program},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It is a child of this test and has nothing to lose.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    server: Server,
    node: Node,
    at: std::net::SocketAddr,
    _controller: Running,
}

fn list(plural: &str) -> String {
    format!("{GATEWAY_API}/{plural}")
}

impl World {
    /// A Gateway for everybody at one port, and a service whose one endpoint says `hello`.
    async fn new() -> Self {
        let lists = ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "backendtlspolicies"].map(list);
        let mut lists: Vec<&str> = lists.iter().map(String::as_str).collect();
        lists.extend([
            "/apis/gateway.networking.k8s.io/v1beta1/referencegrants",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/api/v1/services",
            "/api/v1/secrets",
            "/api/v1/configmaps",
            "/api/v1/namespaces",
        ]);
        let server = Server::start(&lists).await;
        let (node, at, origin) = (tokio::task::spawn_blocking(Node::start).await.unwrap(), address(), origin().await);
        server.put(
            &list("gatewayclasses"),
            json!({ "metadata": { "name": "qg" }, "spec": { "controllerName": "quorumgate.io/gateway-controller" } }),
        );
        let listener = json!({ "name": "http", "port": at.port(), "protocol": "HTTP",
                               "allowedRoutes": { "namespaces": { "from": "All" } } });
        server.put(
            &list("gateways"),
            json!({ "metadata": { "name": "gw", "namespace": "infra", "creationTimestamp": "2026-01-01T00:00:00Z" },
                    "spec": { "gatewayClassName": "qg", "listeners": [listener] } }),
        );
        server.put(
            "/api/v1/services",
            json!({ "metadata": { "name": "orders", "namespace": "shop" }, "spec": { "ports": [{ "port": 80 }] } }),
        );
        server.put(
            "/apis/discovery.k8s.io/v1/endpointslices",
            json!({ "metadata": { "name": "orders-1", "namespace": "shop",
                                  "labels": { "kubernetes.io/service-name": "orders" } },
                    "addressType": "IPv4", "endpoints": [{ "addresses": [origin.ip().to_string()] }],
                    "ports": [{ "port": origin.port() }] }),
        );
        let config = node.dir.path().join("kubeconfig");
        let port = server.port;
        let words = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        );
        std::fs::write(&config, words).unwrap();
        let mut controller = program();
        controller.env("QUORUMGATE_ENDPOINT", node.endpoint()).args(["kubernetes", "--kubeconfig"]).arg(&config);
        controller.args(["--bind", &at.ip().to_string(), "--log", "debug"]);
        let log = std::fs::File::create(node.dir.path().join("controller.log")).unwrap();
        controller.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let controller = Running(controller.spawn().unwrap());
        Self { server, node, at, _controller: controller }
    }

    fn route(&self, name: &str, spec: Value) {
        let mut whole = json!({ "parentRefs": [{ "name": "gw", "namespace": "infra" }] });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let meta = json!({ "name": name, "namespace": "shop", "creationTimestamp": "2026-01-02T00:00:00Z" });
        self.server.put(&list("httproutes"), json!({ "metadata": meta, "spec": whole }));
    }

    /// `host`: all of it goes to `orders`.
    fn forward(&self, name: &str, host: &str) {
        let rule = json!({ "backendRefs": [{ "name": "orders", "port": 80 }] });
        self.route(name, json!({ "hostnames": [host], "rules": [rule] }));
    }

    /// Waits until something is said of the newest words: its status and its reason.
    async fn said(&self, plural: &str, key: &str, condition: &str) -> (String, String) {
        let what = format!("{plural} {key}: {condition}");
        let found = self.server.until(&what, |server| {
            let object = server.get(&list(plural), key);
            let conditions = match plural {
                "httproutes" => object["status"]["parents"][0]["conditions"].clone(),
                _ => object["status"]["conditions"].clone(),
            };
            let it = conditions.as_array()?.iter().find(|it| it["type"] == condition).cloned()?;
            let is_new = it["observedGeneration"] == object["metadata"]["generation"];
            (is_new && it["status"] != "Unknown").then_some(it)
        });
        let it = found.await;
        (it["status"].as_str().unwrap().to_owned(), it["reason"].as_str().unwrap().to_owned())
    }

    async fn accepted(&self, name: &str) {
        let said = self.said("httproutes", &format!("shop/{name}"), "Accepted").await;
        assert_eq!(said, ("True".into(), "Accepted".into()), "{name}: {}", self.log());
    }

    async fn attached(&self, routes: u64) {
        let told = self.server.until("attachedRoutes", |server| {
            let gateway = server.get(&list("gateways"), "infra/gw");
            (gateway["status"]["listeners"][0]["attachedRoutes"] == routes).then_some(())
        });
        told.await;
    }

    async fn ask(&self, host: &str) -> String {
        let answer = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        answer.await.unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.node.dir.path().join("controller.log")).unwrap()
    }
}

/// Says `hello` to every request.
#[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
async fn origin() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn is_hello(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_created_is_served_once_its_status_says_so_and_a_bad_one_blocks_nothing() {
    let it = World::new().await;
    assert_eq!(it.said("gatewayclasses", "qg", "Accepted").await.0, "True");
    assert_eq!(it.said("gateways", "infra/gw", "Programmed").await.0, "True");
    it.forward("good", "a.test");
    it.accepted("good").await;
    let answer = it.ask("a.test").await;
    assert!(is_hello(&answer), "{answer}");
    assert!(it.ask("b.test").await.starts_with("HTTP/1.1 404 "));
    it.attached(1).await;

    // Beside a bad one of each sort: not understood, and without what it refers to.
    it.route("bad", json!({ "hostnames": ["b.test"], "rules": [{ "retry": { "attempts": 2 } }] }));
    it.route(
        "lost",
        json!({ "hostnames": ["c.test"], "rules": [{ "backendRefs": [{ "name": "none", "port": 80 }] }] }),
    );
    it.forward("next", "d.test");
    it.accepted("next").await;
    let bad = it.said("httproutes", "shop/bad", "Accepted").await;
    assert_eq!(bad, ("False".into(), "UnsupportedValue".into()));
    let lost = it.said("httproutes", "shop/lost", "ResolvedRefs").await;
    assert_eq!(lost, ("False".into(), "BackendNotFound".into()));
    assert!(is_hello(&it.ask("a.test").await) && is_hello(&it.ask("d.test").await));
    assert!(it.ask("b.test").await.starts_with("HTTP/1.1 404 "));
    assert!(it.ask("c.test").await.starts_with("HTTP/1.1 500 "));

    // Everything is of one owner, and the history says whose it is.
    let listed: Value = serde_json::from_str(&it.node.check(&["export", "-o", "json"], "", 0, &[])).unwrap();
    let routes = listed["routes"].as_array().unwrap();
    assert!(routes.len() == 3 && routes.iter().all(|it| it["owner"] == "k8s"), "{routes:#?}");

    // Put right, it is served; deleted, it is gone, and the others stay.
    it.forward("bad", "b.test");
    it.accepted("bad").await;
    assert!(is_hello(&it.ask("b.test").await));
    it.server.delete(&list("httproutes"), "shop/good");
    it.attached(3).await;
    assert!(it.ask("a.test").await.starts_with("HTTP/1.1 404 "));
    assert!(is_hello(&it.ask("b.test").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_cut_go_on_and_those_that_are_too_old_begin_anew() {
    let it = World::new().await;
    it.forward("first", "a.test");
    it.accepted("first").await;

    // Cut in the middle: what happens meanwhile comes when they are back.
    let before = it.server.watches();
    it.server.cut();
    it.forward("second", "b.test");
    it.accepted("second").await;
    assert!(is_hello(&it.ask("b.test").await));
    assert!(it.server.watches() > before && it.server.gone() == 0);

    // What the server has forgotten is listed anew: also that something is gone.
    it.server.delete_unseen(&list("httproutes"), "shop/first");
    it.server.forget();
    it.forward("third", "c.test");
    it.accepted("third").await;
    it.attached(2).await;
    assert!(it.server.gone() > 0, "{}", it.log());
    assert!(is_hello(&it.ask("c.test").await) && is_hello(&it.ask("b.test").await));
    assert!(it.ask("a.test").await.starts_with("HTTP/1.1 404 "));

    // An API server that starts does not know all kinds at once: nothing goes for that.
    let revisions = || {
        let history: Value = serde_json::from_str(&it.node.check(&["history", "-o", "json"], "", 0, &[])).unwrap();
        history["revisions"].as_array().unwrap().len()
    };
    let before = revisions();
    it.server.lose(&list("httproutes"), 2);
    it.server.forget();
    it.server.until("the kind is known again", |server| server.is_whole().then_some(())).await;
    it.forward("again", "g.test");
    it.accepted("again").await;
    assert_eq!(revisions(), before + 1, "{}", it.log());
    assert!(is_hello(&it.ask("b.test").await) && is_hello(&it.ask("g.test").await));

    // A status that somebody else has written in between is told again.
    it.server.conflict_once();
    it.forward("fourth", "d.test");
    it.accepted("fourth").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_refuses_is_told_and_the_others_go_on() {
    let it = World::new().await;
    it.forward("first", "a.test");
    it.accepted("first").await;
    // Somebody's own: one takes what a route is going to ask for, the other uses an upstream of ours.
    let listener = format!("k8s-{}", it.at.port());
    let own = json!({ "routes": [
        { "name": "own", "match": { "hosts": ["b.test"], "path_prefix": "/", "listeners": [listener] },
          "respond": { "status": 204 } },
        { "name": "uses", "match": { "hosts": ["u.test"] }, "upstream": "k8s.shop.orders.80" },
    ] });
    it.node.check(&["apply", "-f", "-"], &own.to_string(), 0, &[]);
    it.forward("taken", "b.test");
    it.forward("next", "c.test");
    it.accepted("next").await;
    let taken = it.said("httproutes", "shop/taken", "Accepted").await;
    assert_eq!(taken, ("False".into(), "UnsupportedValue".into()));
    let told = it.server.get(&list("httproutes"), "shop/taken");
    let why = told["status"]["parents"][0]["conditions"][0]["message"].as_str().unwrap();
    assert!(why.contains("the same match and priority as route \"own\""), "{why}");
    assert!(it.ask("b.test").await.starts_with("HTTP/1.1 204 "));
    assert!(is_hello(&it.ask("c.test").await));

    // The service is asked for no more, but somebody uses its upstream: it stays, and all else goes on.
    for name in ["first", "taken", "next"] {
        it.server.delete(&list("httproutes"), &format!("shop/{name}"));
    }
    let respond = json!({ "filters": [{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https" } }] });
    it.route("last", json!({ "hostnames": ["e.test"], "rules": [respond] }));
    it.accepted("last").await;
    assert!(it.ask("e.test").await.starts_with("HTTP/1.1 302 "));
    assert!(it.ask("c.test").await.starts_with("HTTP/1.1 404 "));
    assert!(is_hello(&it.ask("u.test").await));
}

#[test]
fn what_cannot_lead_to_an_api_server_is_usage() {
    let check = |args: &[&str], word: &str| {
        let mut command = program();
        command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").arg("kubernetes").args(args);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(word), "{args:?}: {said}");
    };
    check(&["--kubeconfig", "/nowhere"], "/nowhere");
    check(&["--port", "443"], "443=8443");
    check(&["--port", "0=1"], "443=8443");
    check(&["--service", "name"], "NAMESPACE/NAME");
    check(&[], "KUBERNETES_SERVICE_HOST");
}
