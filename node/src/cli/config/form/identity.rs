//! Consumers, and by what they prove who they are.

use super::{Content, DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static CONSUMER: Object = Object {
    about: "One who may call, whatever it is proved with.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("groups", Form::List(&Form::Text), "Words that rules may ask for.").default("[]"),
        Field::new("plan", Form::Text, "A word that limits may select by.").default("null"),
    ],
};

pub static CERTIFICATE_AUTHORITY: Object = Object {
    about: "Whose certificates clients may come with.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("file", Form::FileOf("pem", Content::Text), "A file with the certificates as PEM, in place of pem."),
        Field::new("pem", Form::Text, "The certificates as PEM.").required(),
        Field::new("crl_file", Form::FileOf("crl", Content::Text), "A file with revocation lists, in place of crl."),
        Field::new("crl", Form::Text, "Revocation lists as PEM.").default("null"),
    ],
};

pub static AUTH: Object = Object {
    about: "By what callers prove who they are, or we to an upstream. Exactly one kind.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("api_key", Form::Object(&API_KEY), "Keys made by `key create`.").default("null"),
        Field::new("jwt", Form::Object(&JWT), "JSON Web Tokens of an issuer.").default("null"),
        Field::new("mtls", Form::Object(&MTLS), "Client certificates.").default("null"),
        Field::new("basic", Form::Object(&BASIC), "User and password; the users are credentials.").default("null"),
        Field::new("signature", Form::Object(&SIGNATURE), "Signed requests (RFC 9421).").default("null"),
        Field::new("introspection", Form::Object(&INTROSPECTION), "Opaque tokens that the issuer is asked about.")
            .default("null"),
        Field::new("oidc_login", Form::Object(&OIDC_LOGIN), "A browser's login: authorization code with PKCE.")
            .default("null"),
        Field::new(
            "client_credentials",
            Form::Object(&CLIENT_CREDENTIALS),
            "Tokens that the gateway gets for itself: for an upstream's auth.",
        )
        .default("null"),
        Field::new("upstream_key", Form::Object(&UPSTREAM_KEY), "A key of ours: for an upstream's auth.")
            .default("null"),
    ],
};

static API_KEY: Object = Object {
    about: "Keys made by `key create`; `Authorization: Bearer` and `ApiKey` are always read too.",
    fields: &[
        Field::new("header", Form::Text, "The header that holds the key.").default("\"x-api-key\""),
        Field::new("query", Form::Text, "The query parameter that may hold it.").default("null"),
    ],
};

const ALGORITHMS: Form = Form::List(&Form::Enum(&[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
]));

static JWT: Object = Object {
    about: "JSON Web Tokens. Exactly one of jwks_url, discovery, jwks_inline (or jwks_file) and secret (or secret_file).",
    fields: &[
        Field::new("issuer", Form::Text, "What iss must be.").required(),
        Field::new("audience", Form::List(&Form::Text), "One of them must be in aud.").required(),
        Field::new("algorithms", ALGORITHMS, "What tokens may be signed with; HS* needs a secret.")
            .default("[\"RS256\",\"ES256\"]"),
        Field::new("jwks_url", Form::Text, "Where the issuer's keys are.").default("null"),
        Field::new("discovery", Form::True, "The issuer says where its keys are (OpenID Connect Discovery).")
            .default("null"),
        Field::new("jwks_file", Form::FileOf("jwks_inline", Content::Json), "A file with the keys as a JWKS."),
        Field::new("jwks_inline", Form::Json, "The keys as a JWKS.").default("null"),
        Field::new("secret_file", Form::FileOf("secret", Content::Secret), "A file with the secret for HS*."),
        Field::new("secret", Form::Secret, "The secret, as an export shows it.").default("null"),
        Field::new("consumer_claim", Form::Text, "The claim that names the consumer.").default("null"),
        Field::new("groups_claim", Form::Text, "The claim that lists groups.").default("null"),
        Field::new("scopes_claim", Form::Text, "The claim that lists scopes.").default("\"scope\""),
        Field::new("skew", Form::Span, "How far the issuer's clock may be off.").default("\"30s\""),
        Field::new("max_lifetime", Form::Span, "Tokens that live longer from now on are refused.").default("\"1d\""),
        Field::new("typ", Form::Text, "What the header's typ must be, such as at+jwt.").default("null"),
        ALLOW_PRIVATE,
    ],
};

const ALLOW_PRIVATE: Field =
    Field::new("allow_private", Form::Bool, "Loopback and private addresses may be asked, and plain http.")
        .default("false");
const CLIENT_ID: Field = Field::new("client_id", Form::Text, "Who we are there.").required();
const CLIENT_SECRET_FILE: Field = Field::new(
    "client_secret_file",
    Form::FileOf("client_secret", Content::Secret),
    "A file with our secret there; it is sealed in the cluster.",
);
const CLIENT_SECRET: Field = Field::new("client_secret", Form::Secret, "The secret, as an export shows it.").required();
const CONSUMER_CLAIM: Field =
    Field::new("consumer_claim", Form::Text, "The claim that names the consumer.").default("null");

static MTLS: Object = Object {
    about: "Client certificates.",
    fields: &[
        Field::new("ca", Form::Name, "The certificate authority that they come from.").required(),
        Field::new(
            "consumer_from",
            Form::Enum(&["san_uri", "san_dns", "san_email", "subject_cn", "subject", "fingerprint"]),
            "What in the certificate names the consumer.",
        )
        .default("\"san_uri\""),
    ],
};

static BASIC: Object = Object {
    about: "User and password (RFC 7617).",
    fields: &[Field::new("realm", Form::Text, "What browsers show.").default("null")],
};

static SIGNATURE: Object = Object {
    about: "Signed requests (RFC 9421).",
    fields: &[
        Field::new("components", Form::List(&Form::Text), "What a signature must cover at least.")
            .default("[\"@method\",\"@target-uri\"]"),
        Field::new("max_age", Form::Span, "How old a signature may be.").default("\"5m\""),
        Field::new("keys", Form::List(&Form::Object(&SIGNATURE_KEY)), "Who may sign.").default("[]"),
    ],
};

static SIGNATURE_KEY: Object = Object {
    about: "One who may sign. Exactly one of public_key (or public_key_file) and secret (or secret_file).",
    fields: &[
        Field::new("id", Form::Text, "The signature's keyid.").required(),
        Field::new(
            "algorithm",
            Form::Enum(&["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "rsa-v1_5-sha256", "hmac-sha256"]),
            "The one algorithm that this key is for.",
        )
        .required(),
        Field::new("public_key_file", Form::FileOf("public_key", Content::Text), "A file with the public key as PEM."),
        Field::new("public_key", Form::Text, "The public key as PEM.").default("null"),
        Field::new("secret_file", Form::FileOf("secret", Content::Secret), "A file with the secret for hmac-sha256."),
        Field::new("secret", Form::Secret, "The secret, as an export shows it.").default("null"),
        Field::new("consumer", Form::Name, "Whose key it is.").required(),
    ],
};

static INTROSPECTION: Object = Object {
    about: "Opaque tokens that the issuer is asked about (RFC 7662).",
    fields: &[
        Field::new("endpoint", Form::Text, "Whom to ask.").required(),
        CLIENT_ID,
        CLIENT_SECRET_FILE,
        CLIENT_SECRET,
        Field::new("cache", Form::Span, "How long an answer is good, at most 30s.").default("\"30s\""),
        Field::new("on_error", Form::Enum(&["deny", "allow_cached"]), "What becomes of requests without an answer.")
            .default("\"deny\""),
        CONSUMER_CLAIM,
        ALLOW_PRIVATE,
    ],
};

static OIDC_LOGIN: Object = Object {
    about: "A browser's login: OpenID Connect, authorization code with PKCE.",
    fields: &[
        Field::new("issuer", Form::Text, "The identity provider.").required(),
        CLIENT_ID,
        CLIENT_SECRET_FILE,
        CLIENT_SECRET,
        Field::new("scopes", Form::List(&Form::Text), "What is asked for; openid among them.").default("[\"openid\"]"),
        Field::new("callback_path", Form::Text, "Where the provider sends browsers back to.").default("\"/callback\""),
        Field::new("logout_path", Form::Text, "Where browsers sign out.").default("\"/logout\""),
        Field::new("session", Form::Span, "How long a browser stays signed in.").default("\"8h\""),
        CONSUMER_CLAIM,
        ALLOW_PRIVATE,
    ],
};

static CLIENT_CREDENTIALS: Object = Object {
    about: "Tokens that the gateway gets for itself (RFC 6749 section 4.4).",
    fields: &[
        Field::new("token_endpoint", Form::Text, "Where the tokens are.").required(),
        CLIENT_ID,
        CLIENT_SECRET_FILE,
        CLIENT_SECRET,
        Field::new("scopes", Form::List(&Form::Text), "What is asked for.").default("[]"),
        ALLOW_PRIVATE,
    ],
};

static UPSTREAM_KEY: Object = Object {
    about: "A key of ours that an upstream is shown with every request.",
    fields: &[
        Field::new("header", Form::Text, "The header that it is shown in.").default("\"authorization\""),
        Field::new("scheme", Form::Text, "The word before it; Bearer in Authorization and none elsewhere if left out.")
            .default("null"),
        Field::new(
            "key_file",
            Form::FileOf("key", Content::Secret),
            "A file with the key; it is sealed in the cluster.",
        ),
        Field::new("key", Form::Secret, "The key, as an export shows it.").required(),
    ],
};
