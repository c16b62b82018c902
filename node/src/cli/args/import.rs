//! The verbs that make configuration files from other documents.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use quorumgate_model::resource::Name;

#[derive(Debug, Subcommand)]
pub enum ImportVerb {
    /// Make routes, auth and a contract from an OpenAPI document (3.0 or 3.1) and print them as a file for `apply`.
    Openapi(Box<ImportOpenapi>),
}

#[derive(Debug, Args)]
pub struct ImportOpenapi {
    /// The document, YAML or JSON; - reads standard input.
    pub spec: PathBuf,
    /// What the objects are named after; the document's title if left out.
    #[arg(long, value_name = "NAME")]
    pub name: Option<Name>,
    /// The upstream that answers: the name of one that there is, or http(s)://HOST[:PORT]; the document's first server if left out.
    #[arg(long, value_name = "NAME|URL")]
    pub upstream: Option<String>,
    /// A host that the routes take; may be repeated. Any host if left out.
    #[arg(long = "host", value_name = "H")]
    pub hosts: Vec<String>,
    /// What stands before the paths as clients ask for them; the path of the document's first server if left out.
    #[arg(long, value_name = "P")]
    pub base_path: Option<String>,
    /// NAME: every operation asks for this auth. SCHEME=NAME: operations ask for it where the document says SCHEME; may be
    /// repeated.
    #[arg(long = "auth", value_name = "[SCHEME=]NAME")]
    pub auth: Vec<String>,
    /// No operation asks who calls, whatever the document says.
    #[arg(long, conflicts_with_all = ["auth", "open"])]
    pub no_auth: bool,
    /// Operations for which the document wants no credential are open to anybody.
    #[arg(long)]
    pub open: bool,
    /// Who tokens of OpenID providers in the document are for; may be repeated.
    #[arg(long = "audience", value_name = "A")]
    pub audience: Vec<String>,
    /// Scopes are not asked for.
    #[arg(long)]
    pub no_scopes: bool,
    /// What becomes of requests that are not as the document says.
    #[arg(long, value_name = "MODE", default_value = "enforce")]
    pub mode: ContractMode,
    /// What becomes of answers that are not as the document says.
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub responses: ContractMode,
    /// An earlier version of the document: what breaks its clients is told, and nothing is printed.
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,
    /// Changes that break clients of --against are told, and the file is printed all the same.
    #[arg(long, requires = "against")]
    pub allow_breaking: bool,
    /// Leave out what cannot be checked, and say so, instead of refusing the document.
    #[arg(long)]
    pub lossy: bool,
}

#[derive(Debug, Args)]
pub struct Convert {
    /// Whose configuration it is.
    #[arg(long, value_name = "WHOSE")]
    pub from: ConvertFrom,
    /// YAML or JSON files, directories of them, or - for standard input; they are read as one configuration.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The file to write, which only its owner may read; standard output if left out.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Exit 1, and write nothing, when something was not translated.
    #[arg(long)]
    pub strict: bool,
    /// Who JSON Web Tokens are for, where the other gateway does not ask; may be repeated.
    #[arg(long = "audience", value_name = "A")]
    pub audience: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConvertFrom {
    /// Declarative configuration of Kong, as deck writes it (_format_version 1.1, 2.1 or 3.0).
    Kong,
    /// apisix.yaml, or what the Admin API of APISIX answers.
    Apisix,
    /// Manifests of the Kubernetes Gateway API, with the services in them.
    GatewayApi,
}

#[derive(Debug, Subcommand)]
pub enum ContractVerb {
    /// Ask an upstream the examples of an OpenAPI document, and whether its answers are as the document says.
    Verify(VerifyContract),
}

#[derive(Debug, Args)]
pub struct VerifyContract {
    /// The document, YAML or JSON; - reads standard input.
    pub spec: PathBuf,
    /// http://HOST[:PORT].
    #[arg(long, value_name = "URL")]
    pub upstream: String,
    /// What stands before the paths; the path of the document's first server if left out.
    #[arg(long, value_name = "P")]
    pub base_path: Option<String>,
    /// A header field of every request, name:value, such as a credential; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "K:V")]
    pub headers: Vec<String>,
    /// Other methods than GET and HEAD too: they may change something.
    #[arg(long)]
    pub all_methods: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ContractMode {
    Enforce,
    Detect,
    Off,
}

impl ContractMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Detect => "detect",
            Self::Off => "off",
        }
    }
}
