//! Certificates and listeners.

use super::{Content, DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static CERTIFICATE: Object = Object {
    about: "What the gateway shows to clients: a chain, and its key, which is sealed in the cluster.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new(
            "hosts",
            Form::List(&Form::Text),
            "The server names that it is shown for, or *.parent for one label; the default for all others if left out.",
        )
        .default("[]"),
        Field::new("chain_file", Form::FileOf("chain", Content::Text), "A file with the chain, in place of chain."),
        Field::new("chain", Form::Text, "The certificate as PEM, then those between it and a root.").required(),
        Field::new(
            "key_file",
            Form::FileOf("key", Content::Secret),
            "A file with the private key as PEM; it is sealed in the cluster.",
        ),
        Field::new("key", Form::Secret, "The private key, as an export shows it.").required(),
        Field::new(
            "ocsp_file",
            Form::FileOf("ocsp", Content::Base64),
            "A file with an OCSP response (DER) that is stapled, in place of ocsp.",
        ),
        Field::new("ocsp", Form::Text, "The OCSP response as base64.").default("null"),
    ],
};

pub static LISTENER: Object = Object {
    about: "What every node opens for clients, beside the listeners of its own settings.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("address", Form::Text, "An IP address and a port, such as 0.0.0.0:8443.").required(),
        Field::new(
            "protocol",
            Form::Enum(&["http", "https", "tls_passthrough", "tcp"]),
            "What clients speak; https with certificates, else http, if left out.",
        ),
        Field::new("certificates", Form::List(&Form::Name), "With https: one of them is chosen by the server name.")
            .default("[]"),
        Field::new("client_ca", Form::Name, "The certificate authority that clients' certificates come from.")
            .default("null"),
        Field::new(
            "client_auth",
            Form::Enum(&["none", "request", "require"]),
            "Whether clients are asked for a certificate; require with a client_ca, else none, if left out.",
        ),
        Field::new("http3", Form::Bool, "With https: HTTP/3 on the UDP port of the same number.").default("false"),
        Field::new(
            "proxy_protocol_from",
            Form::List(&Form::Cidr),
            "Networks of balancers whose connections begin with a PROXY header (v1 or v2).",
        )
        .default("[]"),
        Field::new(
            "upstream",
            Form::Name,
            "With tcp, where connections go; with tls_passthrough, where those go that no route takes by its sni.",
        )
        .default("null"),
        Field::new("merge_slashes", Form::Bool, "Whether // in a path counts as /.").default("true"),
    ],
};
