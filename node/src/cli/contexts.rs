//! Named ways to clusters, so that an operator need not repeat --endpoint and --ca: one YAML file of the user's own.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use quorumgate_model::resource::Name;
use serde::{Deserialize, Serialize};

use super::{
    args::{ENDPOINT_DEFAULT, Global},
    failure::{Exit, Failure, Outcome},
};

/// Names the file, in place of `$XDG_CONFIG_HOME/quorumgate/contexts.yaml`.
const FILE_VARIABLE: &str = "QUORUMGATE_CONTEXTS";
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that counts where neither --context nor --endpoint is given.
    #[serde(default)]
    pub current: Option<Name>,
    #[serde(default)]
    pub contexts: Vec<Context>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub name: Name,
    pub endpoint: String,
    #[serde(default)]
    pub ca: Option<PathBuf>,
    #[serde(default)]
    pub admin_token_file: Option<PathBuf>,
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    #[serde(default)]
    pub client_key: Option<PathBuf>,
}

impl Contexts {
    /// A user without the file has no contexts.
    pub fn read() -> Outcome<Self> {
        let Some(file) = file() else { return Ok(Self::default()) };
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("{}: {error}", file.display()))
                .help("the file is written by `quorumgate context set`")
        };
        let mut text = String::new();
        match File::open(&file).and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(|error| wrong(&error))?,
        };
        serde_saphyr::from_str(&text).map_err(|error| wrong(&error))
    }

    /// Whole or not at all: another command may read at the same time.
    pub fn write(&self) -> Outcome {
        let file = file().ok_or_else(|| {
            Failure::usage("there is no home directory to keep contexts in")
                .help(format!("name a file by {FILE_VARIABLE}"))
        })?;
        let failed = |error: std::io::Error| Failure::new(Exit::Internal, format!("{}: {error}", file.display()));
        let directory = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let text = serde_saphyr::to_string(self).map_err(Failure::internal)?;
        let begun = file.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&begun, text).and_then(|()| std::fs::rename(&begun, &file)).map_err(failed)
    }

    pub fn find(&self, name: &str) -> Outcome<&Context> {
        self.contexts.iter().find(|it| *it.name == *name).ok_or_else(|| {
            let names: Vec<_> = self.contexts.iter().map(|it| &*it.name).collect();
            let allowed = if names.is_empty() { "none is set".to_owned() } else { names.join(", ") };
            Failure::new(Exit::NotFound, format!("--context: found {name:?}; allowed: {allowed}"))
                .help("make one: quorumgate --endpoint E context set NAME")
        })
    }
}

/// Fills what flags and the environment leave open from the context that is asked for, or else the current one.
pub fn settle(global: &mut Global) -> Outcome {
    if global.context.is_none() && global.endpoint.is_some() {
        return Ok(());
    }
    let contexts = Contexts::read()?;
    let named = global.context.as_deref().or(contexts.current.as_deref());
    let Some(named) = named else { return Ok(()) };
    let context = contexts.find(named)?;
    global.endpoint.get_or_insert_with(|| context.endpoint.clone());
    fill(&mut global.ca, &context.ca);
    // One proof is enough: a token on the command line is not to be sent beside the context's certificate.
    if global.admin_token_file.is_none() && global.client_cert.is_none() {
        fill(&mut global.admin_token_file, &context.admin_token_file);
        fill(&mut global.client_cert, &context.client_cert);
        fill(&mut global.client_key, &context.client_key);
    }
    Ok(())
}

fn fill(open: &mut Option<PathBuf>, from: &Option<PathBuf>) {
    if open.is_none() {
        open.clone_from(from);
    }
}

impl Context {
    /// As the global options say, with whole paths: a context is used from any directory.
    pub fn of(name: Name, global: &Global) -> Outcome<Self> {
        let whole =
            |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose().map_err(Failure::internal);
        let endpoint = global.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT);
        let endpoint = match endpoint.strip_prefix("unix:").map(|path| path.trim_start_matches("//")) {
            Some(path) if !path.is_empty() => {
                format!("unix:{}", std::path::absolute(path).map_err(Failure::internal)?.display())
            }
            _ => endpoint.to_owned(),
        };
        if global.admin_token_file.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage("--admin-token-file: found -; allowed: a file, since contexts are used again"));
        }
        Ok(Self {
            name,
            endpoint,
            ca: whole(&global.ca)?,
            admin_token_file: whole(&global.admin_token_file)?,
            client_cert: whole(&global.client_cert)?,
            client_key: whole(&global.client_key)?,
        })
    }
}

fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(FILE_VARIABLE).or_else(|| {
        let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(home.join("quorumgate/contexts.yaml"))
    })
}
