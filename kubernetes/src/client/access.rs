//! Where the API server is and by what this process proves itself to it: a pod's service account, or a kubeconfig.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use data_encoding::BASE64;
use http::{HeaderValue, Uri};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use tokio_rustls::TlsConnector;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Tokens of service accounts are exchanged in their files long before they end.
const TOKEN_READ_EVERY: Duration = Duration::from_secs(60);

pub struct Access {
    server: String,
    host: String,
    port: u16,
    /// Of the server's URL, without the slash behind it.
    prefix: String,
    tls: Option<(ServerName<'static>, TlsConnector)>,
    token: Token,
}

enum Token {
    None,
    Fixed(HeaderValue),
    File(PathBuf, Mutex<Option<(Instant, HeaderValue)>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Config {
    current_context: String,
    contexts: Vec<Named<ContextWords>>,
    clusters: Vec<Named<ClusterWords>>,
    users: Vec<Named<UserWords>>,
}

#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    words: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContextWords {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ClusterWords {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct UserWords {
    token: Option<String>,
    #[serde(alias = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<String>,
}

impl Access {
    /// As a pod of the cluster.
    pub fn in_cluster() -> anyhow::Result<Self> {
        let said = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: this is no pod"));
        let (host, port) = (said("KUBERNETES_SERVICE_HOST")?, said("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let root = Path::new(SERVICE_ACCOUNT);
        let ca = std::fs::read(root.join("ca.crt")).with_context(|| format!("{SERVICE_ACCOUNT}/ca.crt"))?;
        let token = Token::File(root.join("token"), Mutex::default());
        Self::new(&format!("https://{host}:{port}"), Some(&ca), None, None, token)
    }

    /// `context`: the file's current one, if none is named.
    pub fn from_kubeconfig(file: &Path, context: Option<&str>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::from_words(&text, file.parent().unwrap_or(Path::new("")), context)
            .with_context(|| file.display().to_string())
    }

    /// Paths in it begin in `root`.
    fn from_words(text: &str, root: &Path, context: Option<&str>) -> anyhow::Result<Self> {
        let config: Config = serde_saphyr::from_str(text)?;
        let wanted = context.unwrap_or(&config.current_context);
        let context = find("context", &config.contexts, wanted)?;
        let cluster = find("cluster", &config.clusters, &context.cluster)?;
        let user = find("user", &config.users, &context.user)?;
        if cluster.insecure_skip_tls_verify {
            bail!("insecure-skip-tls-verify: whoever is in between could be the API server");
        }
        if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
            bail!("user {:?}: allowed: token, tokenFile, client-certificate and client-key", context.user);
        }
        let bytes = |file: &Option<PathBuf>, data: &Option<String>| match (data, file) {
            (Some(data), _) => Ok(Some(BASE64.decode(data.as_bytes()).context("this is not base64")?)),
            (None, Some(file)) => {
                let file = root.join(file);
                Ok(Some(std::fs::read(&file).with_context(|| file.display().to_string())?))
            }
            (None, None) => anyhow::Ok(None),
        };
        let ca = bytes(&cluster.certificate_authority, &cluster.certificate_authority_data)?;
        let chain = bytes(&user.client_certificate, &user.client_certificate_data)?;
        let key = bytes(&user.client_key, &user.client_key_data)?;
        let client = match (chain, key) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => bail!("user {:?}: client-certificate and client-key go together", context.user),
        };
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) => Token::Fixed(bearer(token)?),
            (None, Some(file)) => Token::File(root.join(file), Mutex::default()),
            (None, None) => Token::None,
        };
        Self::new(&cluster.server, ca.as_deref(), cluster.tls_server_name.as_deref(), client, token)
    }

    fn new(
        server: &str,
        ca: Option<&[u8]>,
        name: Option<&str>,
        client: Option<(Vec<u8>, Vec<u8>)>,
        token: Token,
    ) -> anyhow::Result<Self> {
        let wrong = || format!("server: found {server:?}; allowed: https://HOST:PORT, http:// for loopback");
        let uri: Uri = server.parse().with_context(wrong)?;
        let host = uri.host().with_context(wrong)?.trim_matches(['[', ']']).to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(name.unwrap_or(&host).to_owned()).with_context(wrong)?;
                Some((name, TlsConnector::from(Arc::new(tls_config(ca, client)?))))
            }
            Some("http") if is_loopback(&host) => None,
            _ => bail!(wrong()),
        };
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { server: server.to_owned(), host, port, prefix, tls, token })
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub fn tls(&self) -> Option<(ServerName<'static>, TlsConnector)> {
        self.tls.clone()
    }

    pub async fn authorization(&self) -> anyhow::Result<Option<HeaderValue>> {
        match &self.token {
            Token::None => Ok(None),
            Token::Fixed(value) => Ok(Some(value.clone())),
            Token::File(file, known) => {
                let mut known = known.lock().await;
                if let Some((at, value)) = &*known
                    && at.elapsed() < TOKEN_READ_EVERY
                {
                    return Ok(Some(value.clone()));
                }
                let text = tokio::fs::read_to_string(file).await.with_context(|| file.display().to_string())?;
                let value = bearer(text.trim())?;
                *known = Some((Instant::now(), value.clone()));
                Ok(Some(value))
            }
        }
    }
}

fn find<'c, T>(what: &str, list: &'c [Named<T>], name: &str) -> anyhow::Result<&'c T> {
    let names = || list.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = list.iter().find(|it| it.name == name);
    found.map(|it| &it.words).with_context(|| format!("{what}: found {name:?}; allowed: {}", names()))
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).context("this is not a token")?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn tls_config(ca: Option<&[u8]>, client: Option<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<rustls::ClientConfig> {
    let ca = ca.context("certificate-authority: there is none, by which the API server could be known")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca).context("certificate-authority")? {
        roots.add(certificate).context("certificate-authority")?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match client {
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).context("client-key")?;
            builder
                .with_client_auth_cert(certificates(&chain).context("client-certificate")?, key)
                .context("client-certificate")?
        }
        None => builder.with_no_client_auth(),
    })
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    match chain.is_empty() {
        true => bail!("there is no certificate in it"),
        false => Ok(chain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(server: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{{server}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n"
        )
    }

    #[track_caller]
    fn check(server: &str, user: &str, expected: Result<&str, &str>) {
        let access = Access::from_words(&words(server, user), Path::new("/nowhere"), None);
        match (access, expected) {
            (Ok(access), Ok(authority)) => assert_eq!(access.authority(), authority),
            (Err(error), Err(word)) => assert!(format!("{error:#}").contains(word), "{error:#}"),
            (access, expected) => panic!("{:#?}, expected {expected:?}", access.map(|it| it.authority())),
        }
    }

    #[test]
    fn a_kubeconfig_says_where_and_who() {
        check("server: 'http://127.0.0.1:8001'", "token: t", Ok("127.0.0.1:8001"));
        check("server: 'http://localhost/prefix/'", "tokenFile: t", Ok("localhost:80"));
        check("server: 'http://[::1]:1'", "", Ok("[::1]:1"));
        check("server: 'http://10.0.0.1:80'", "token: t", Err("allowed: https"));
        check("server: 'https://10.0.0.1'", "token: t", Err("certificate-authority"));
        check("server: 'https://10.0.0.1', insecure-skip-tls-verify: true", "", Err("insecure-skip-tls-verify"));
        check("server: 'http://[::1]:1'", "exec: {command: aws}", Err("allowed: token"));
        check("server: 'http://[::1]:1'", "client-key-data: ''", Err("go together"));
        check("server: 'https://a', certificate-authority: ca.pem", "", Err("/nowhere/ca.pem"));
        let other = Access::from_words(&words("server: 'http://[::1]:1'", ""), Path::new(""), Some("other"));
        assert!(format!("{:#}", other.err().unwrap()).contains("allowed: c"));
    }
}
