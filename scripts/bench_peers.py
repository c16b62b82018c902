"""How each peer of `scripts/bench` is set up to do the same work, and what they all need for it: certificates, a token."""
import base64
import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
HOST = "bench.test"
ISSUER, AUDIENCE = "https://idp.bench.test", "bench"
OPEN_FILES = min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
# Never reached: what is measured is the counting.
LIMIT = 1_000_000_000


@dataclass(frozen=True)
class Setup:
    """What a peer does beside forwarding."""
    tls: bool = False
    http3: bool = False
    grpc: bool = False
    key: bool = False
    jwt: bool = False
    limit: bool = False
    log: bool = False
    routes: int = 0


class Skipped(Exception):
    """This peer cannot do that, or is not here; the words say which."""


@dataclass
class Running:
    process: subprocess.Popen
    port: int
    home: Path
    setup: Setup
    # What requests need to be let in.
    fields: tuple = ()
    reload: object = None


def free_port() -> int:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return port


def wait_port(port: int, process: subprocess.Popen, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}: {' '.join(map(str, process.args))}")


def run(*command: str, **words) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **words)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}{done.stdout}")
    return done.stdout


class Materials:
    """An authority, a certificate for bench.test, an RSA key of an issuer and a token of it."""

    def __init__(self, work: Path):
        self.ca, self.chain, self.key, self.both = (work / n for n in ("ca.pem", "chain.pem", "key.pem", "both.pem"))
        ca_key, request, names = work / "ca.key", work / "request.pem", work / "names"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        run("openssl", "req", "-x509", *curve, "-keyout", str(ca_key), "-out", str(self.ca), "-days", "30",
            "-subj", "/CN=bench CA", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
        run("openssl", "req", *curve, "-keyout", str(self.key), "-out", str(request), "-subj", f"/CN={HOST}")
        names.write_text(f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        run("openssl", "x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(ca_key), "-CAcreateserial",
            "-out", str(self.chain), "-days", "20", "-extfile", str(names))
        self.both.write_text(self.chain.read_text() + self.key.read_text())

        issuer, self.issuer_public = work / "issuer.pem", work / "issuer-public.pem"
        run("openssl", "genrsa", "-out", str(issuer), "2048")
        run("openssl", "rsa", "-in", str(issuer), "-pubout", "-out", str(self.issuer_public))
        modulus = bytes.fromhex(run("openssl", "rsa", "-in", str(issuer), "-noout", "-modulus").strip().split("=")[1])
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k", "n": plain64(modulus), "e": "AQAB"}
        self.jwks = work / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key]}))
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bench", "iat": now, "exp": now + 6 * 3600}
        head = {"alg": "RS256", "typ": "JWT", "kid": "k"}
        signed = ".".join(plain64(json.dumps(part).encode()) for part in (head, claims))
        words = work / "words"
        words.write_text(signed)
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(issuer), str(words)], check=True, capture_output=True)
        self.token = f"{signed}.{plain64(signature.stdout)}"
        self.api_key = "bench-" + hashlib.sha256(signed.encode()).hexdigest()[:32]

    def fields(self, setup: Setup, api_key: str | None = None) -> tuple:
        key = (("x-api-key", api_key or self.api_key),) if setup.key else ()
        return key + ((("authorization", f"Bearer {self.token}"),) if setup.jwt else ())


def plain64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def nginx(bench, home: Path, setup: Setup, upstream: int) -> Running:
    need("nginx")
    if setup.jwt:
        raise Skipped("nginx has no JWT in its open version")
    if setup.http3:
        raise Skipped("this nginx has no HTTP/3")
    port, stuff = free_port(), bench.materials
    tls = f"ssl http2; ssl_certificate {stuff.chain}; ssl_certificate_key {stuff.key}; ssl_protocols TLSv1.3" if setup.tls else ""
    keyed = 'if ($key_ok = 0) { return 401; }' if setup.key else ""
    limited = "limit_req zone=everyone burst=1000000 nodelay;" if setup.limit else ""
    forward = "grpc_pass grpc://u;" if setup.grpc else "proxy_pass http://u;"
    prefixes = [f"/v{n}" for n in range(setup.routes)] or ["/"]
    locations = "\n".join(f"location {prefix} {{ {keyed} {limited} {forward} }}" for prefix in prefixes)
    log = f"{home}/access.log json" if setup.log else "off"
    (home / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; worker_rlimit_nofile {OPEN_FILES}; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections {OPEN_FILES - 100}; }}
http {{
  log_format json escape=json '{{"time":"$time_iso8601","request_id":"$request_id","client_ip":"$remote_addr",'
    '"method":"$request_method","host":"$host","path":"$uri","protocol":"$server_protocol","status":$status,'
    '"received":$request_length,"sent":$bytes_sent,"took":"$request_time","upstream":"$upstream_addr","ttfb":"$upstream_header_time"}}';
  access_log {log};
  map $http_x_api_key $key_ok {{ default 0; "{stuff.api_key}" 1; }}
  limit_req_zone $server_name zone=everyone:1m rate=1000000r/s;
  keepalive_requests 1000000000; keepalive_timeout 3600s; client_max_body_size 0; proxy_max_temp_file_size 0;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_request_buffering off;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} {tls}; {locations} }}
}}""")
    process = bench.start(bench.proxy_core, "nginx", "-p", str(home), "-c", str(home / "nginx.conf"))
    wait_port(port, process)
    return Running(process, port, home, setup, stuff.fields(setup), lambda _: process.send_signal(1))


def haproxy(bench, home: Path, setup: Setup, upstream: int) -> Running:
    need("haproxy")
    if setup.http3:
        raise Skipped("this HAProxy has no QUIC")
    port, stuff, rules = free_port(), bench.materials, []
    if setup.key:
        rules.append(f"http-request deny deny_status 401 unless {{ req.hdr(x-api-key) -m str {stuff.api_key} }}")
    if setup.jwt:
        bearer = "http_auth_bearer"
        for check in (f"{bearer},jwt_verify('RS256','{stuff.issuer_public}') -m int 1",
                      f"{bearer},jwt_payload_query('$.iss') -m str {ISSUER}", f"{bearer},jwt_payload_query('$.aud') -m str {AUDIENCE}"):
            rules.append(f"http-request deny deny_status 401 unless {{ {check} }}")
        rules += [f"http-request set-var(txn.exp) {bearer},jwt_payload_query('$.exp','int')",
                  "http-request set-var(txn.left) date(),neg,add(txn.exp)",
                  "http-request deny deny_status 401 if { var(txn.left) -m int lt 0 }"]
    if setup.limit:
        rules += ["stick-table type integer size 1 expire 1m store http_req_rate(1m)", "http-request track-sc0 int(1)",
                  f"http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {LIMIT} }}"]
    if setup.log:
        rules += ["log stdout format raw daemon", 'log-format \'{"time":"%t","client_ip":"%ci","method":"%HM","path":"%HPO",'
                  '"protocol":"%HV","status":%ST,"received":%U,"sent":%B,"took":%Ta,"upstream":"%si:%sp","ttfb":%Tr}\'']
    where = "default_backend b"
    if setup.routes:
        (home / "routes.map").write_text("".join(f"/v{n} b\n" for n in range(setup.routes)))
        where = f"use_backend %[path,map_beg({home}/routes.map)] if {{ path,map_beg({home}/routes.map) -m found }}"
    tls = f"ssl crt {stuff.both} alpn h2,http/1.1 ssl-min-ver TLSv1.3" if setup.tls else ""
    (home / "haproxy.cfg").write_text("\n  ".join([f"""
global
  nbthread 1
  maxconn 30000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{port} {tls}""", *rules, where]) + f"""
backend b
  server u 127.0.0.1:{upstream} {"proto h2" if setup.grpc else ""}
""")
    process = bench.start(bench.proxy_core, "haproxy", "-f", str(home / "haproxy.cfg"), "-db", log=home / "access.log")
    wait_port(port, process)
    return Running(process, port, home, setup, stuff.fields(setup))


def envoy_binary() -> str | None:
    places = [os.environ.get("ENVOY"), shutil.which("envoy"), *sorted(TARGET.glob("bench-peers/lib/*/site-packages/envoy/_bin/envoy"))]
    return next((str(place) for place in places if place), None)


def envoy(bench, home: Path, setup: Setup, upstream: int) -> Running:
    binary = envoy_binary()
    if binary is None:
        raise Skipped("envoy is not installed (--install fetches it)")
    port, stuff = free_port(), bench.materials
    of = lambda kind: f"type.googleapis.com/envoy.{kind}"
    filters = lambda name, kind, **words: {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": of(f"extensions.filters.http.{name}.v3.{kind}"), **words}}
    chain = []
    if setup.key:
        chain.append(filters("api_key_auth", "ApiKeyAuth", credentials=[{"key": stuff.api_key, "client": "bench"}], key_sources=[{"header": "x-api-key"}]))
    if setup.jwt:
        provider = {"issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": {"inline_string": stuff.jwks.read_text()}}
        rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}
        chain.append(filters("jwt_authn", "JwtAuthentication", providers={"p": provider}, rules=[rule]))
    if setup.limit:
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        bucket = {"max_tokens": LIMIT, "tokens_per_fill": LIMIT, "fill_interval": "60s"}
        chain.append(filters("local_ratelimit", "LocalRateLimit", stat_prefix="l", token_bucket=bucket,
                             filter_enabled=always | {"runtime_key": "on"}, filter_enforced=always | {"runtime_key": "enforced"}))
    chain.append(filters("router", "Router"))
    to = {"cluster": "u", "timeout": "0s"}
    matches = [{"path_separated_prefix": f"/v{n}"} for n in range(setup.routes)] or [{"prefix": "/"}]
    routes = [{"match": match, "route": to} for match in matches]
    manager = {
        "@type": of("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "h", "codec_type": "HTTP3" if setup.http3 else "AUTO", "use_remote_address": True, "http_filters": chain,
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}}
    if setup.log:
        line = {"time": "%START_TIME%", "request_id": "%REQ(X-REQUEST-ID)%", "client_ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "method": "%REQ(:METHOD)%", "host": "%REQ(:AUTHORITY)%", "path": "%REQ(:PATH)%", "protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%",
                "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "took": "%DURATION%", "upstream": "%UPSTREAM_HOST%", "ttfb": "%RESPONSE_DURATION%"}
        file = {"@type": of("extensions.access_loggers.file.v3.FileAccessLog"), "path": f"{home}/access.log", "log_format": {"json_format": line}}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": file}]
    place = lambda p, udp=False: {"socket_address": {"address": "127.0.0.1", "port_value": p, "protocol": "UDP" if udp else "TCP"}}
    listener = {"name": "l", "address": place(port, setup.http3)}
    inbound = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    pair = [{"certificate_chain": {"filename": str(stuff.chain)}, "private_key": {"filename": str(stuff.key)}}]
    if setup.http3:
        context = {"@type": of("extensions.transport_sockets.quic.v3.QuicDownstreamTransport"),
                   "downstream_tls_context": {"common_tls_context": {"tls_certificates": pair}}}
        inbound["transport_socket"] = {"name": "envoy.transport_sockets.quic", "typed_config": context}
        listener["udp_listener_config"] = {"quic_options": {}}
    elif setup.tls:
        common = {"tls_certificates": pair, "alpn_protocols": ["h2", "http/1.1"],
                  "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}}
        context = {"@type": of("extensions.transport_sockets.tls.v3.DownstreamTlsContext"), "common_tls_context": common}
        inbound["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    listener["filter_chains"] = [inbound]
    many = {"priority": "DEFAULT", "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    end = {"endpoint": {"address": place(upstream)}}
    cluster = {"name": "u", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [many]},
               "load_assignment": {"cluster_name": "u", "endpoints": [{"lb_endpoints": [end]}]}}
    if setup.grpc:
        options = {"@type": of("extensions.upstreams.http.v3.HttpProtocolOptions"), "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    (home / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    process = bench.start(bench.proxy_core, binary, "-c", str(home / "envoy.json"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    if setup.http3:
        time.sleep(3)
    else:
        wait_port(port, process)
    return Running(process, port, home, setup, stuff.fields(setup))


def quorumgate(bench, home: Path, setup: Setup, upstream: int) -> Running:
    binary, stuff = str(bench.binaries / "quorumgate"), bench.materials
    ports = [free_port() for _ in range(5)]
    flags = ("--proxy-listen", "--peer-listen", "--admin-listen", "--telemetry-listen")
    listen = [word for flag, port in zip(flags, ports) for word in (flag, f"127.0.0.1:{port}")]
    node = home / "node"
    run(binary, "init", "--data-dir", str(node), "--name", "bench", "--region", "local", *listen)
    if setup.log:
        settings = node / "settings.toml"
        lines = [line for line in settings.read_text().splitlines() if not line.startswith("access_log")]
        at = lines.index("[proxy]") + 1
        lines[at:at] = ["access_log = true", f'access_log_file = "{home}/access.log"']
        settings.write_text("\n".join(lines) + "\n")
    process = bench.start(bench.proxy_core, binary, "run", "--data-dir", str(node), "--proxy-workers", "1")
    wait_port(ports[0], process)
    cli = lambda *words: run(binary, "--endpoint", f"unix:{node}/admin.sock", *words)
    route = {"upstream": "u", "body": {"max": "0"}}
    config = {"upstreams": [{"name": "u", "targets": [f"127.0.0.1:{upstream}"], "protocol": "grpc" if setup.grpc else "http1"}]}
    if setup.key or setup.jwt:
        route["auth"] = {"any_of": ["who"]}
        words = {"issuer": ISSUER, "audience": [AUDIENCE], "jwks_file": str(stuff.jwks)}
        config["auth"] = [{"name": "who", "api_key": {}} if setup.key else {"name": "who", "jwt": words}]
        config["consumers"] = [{"name": "bench"}]
    if setup.limit:
        route["limits"] = ["everyone"]
        config["limits"] = [{"name": "everyone", "per": "global", "limit": LIMIT, "window": "1m"}]
    prefixes = [f"/v{n}" for n in range(setup.routes)] or ["/"]
    config["routes"] = [route | {"name": f"r{n}", "match": {"path_prefix": prefix}} for n, prefix in enumerate(prefixes)]
    if setup.tls:
        config["certificates"] = [{"name": "c", "chain_file": str(stuff.chain), "key_file": str(stuff.key)}]
        config["listeners"] = [{"name": "https", "address": f"127.0.0.1:{ports[4]}", "protocol": "https", "certificates": ["c"], "http3": setup.http3}]
    file = home / "config.json"

    def apply(words: dict) -> None:
        file.write_text(json.dumps(words))
        cli("apply", "-f", str(file))

    end = time.monotonic() + 60
    while "true" not in ready(ports[3]) and time.monotonic() < end:
        time.sleep(0.05)
    apply(config)
    key = cli("key", "create", "bench", "-q").strip() if setup.key else None
    port = ports[4] if setup.tls else ports[0]
    wait_port(port, process)

    def change(n: int) -> None:
        other = {"name": "other", "match": {"path_prefix": f"/other-{n}"}, "upstream": "u"}
        apply(config | {"routes": [*config["routes"], other]})

    return Running(process, port, home, setup, stuff.fields(setup, key), change)


def ready(telemetry: int) -> str:
    with socket.create_connection(("127.0.0.1", telemetry), 5) as stream:
        stream.sendall(b"GET /readyz HTTP/1.1\r\nhost: bench.test\r\nconnection: close\r\n\r\n")
        stream.settimeout(5)
        return "true" if b" 200 " in stream.recv(1024) else "false"


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        raise Skipped(f"{tool} is not installed (--install fetches it)")


PEERS = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy, "quorumgate": quorumgate}
