//! What the auths of kind `jwt` would answer to a text, for operators who ask: judged by what judges requests, with the
//! keys at hand. Nothing is fetched, and nothing is remembered.

use std::{fmt, sync::Arc};

use quorumgate_model::{
    credential::Credential,
    resource::{Auth, AuthKind, Name},
};

use super::{
    AuthFailure, Claims, RevocationSubject, TokenMarks,
    auths::{self, Kind},
    claims::{base64url, claim, object, seconds},
    directory::{Directory, Facts},
    jwt::{self, Fault, JwtPlan, sha256, three},
    ladder::{consumer_of, find_consumer},
    twin::twin_sha256,
    verified::NO_KEYS,
};
use crate::refusal::Refusal;

/// A key or a token as it is shown with requests.
#[derive(Debug)]
pub struct Inspected {
    /// Where it is the text of a stored key.
    pub key: Option<Arc<Credential>>,
    pub said: Option<Said>,
    /// Of the auths whose issuer the token names; where there are none, of all.
    pub opinions: Vec<Opinion>,
    sha256: [u8; 32],
    twin_sha256: Option<[u8; 32]>,
}

/// What a JWT says, whoever wrote it. None: it cannot be read without doubt, so it is not read at all.
#[derive(Debug)]
pub struct Said {
    pub header: Option<Claims>,
    pub claims: Option<Claims>,
}

/// What one auth would answer, were the token the only thing that a request shows.
#[derive(Debug)]
pub struct Opinion {
    pub auth: Name,
    /// The token names its issuer.
    pub is_of_issuer: bool,
    pub plan: JwtPlan,
    pub signature: Signature,
    /// None: the token is taken.
    pub refusal: Option<Answer>,
    /// What would be said of the rest, where nothing but a key is missing.
    pub beside: Option<Result<(), Answer>>,
    /// RFC 8705: it is taken with its client certificate alone.
    pub is_bound: bool,
    /// By what it could be revoked: at its word where it was not verified.
    pub subject: RevocationSubject,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Signature {
    /// Of the issuer's key that has this id.
    Good(Option<Box<str>>),
    Bad,
    /// It did not come to that.
    Unverified(AuthFailure),
}

/// As a client gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub code: &'static str,
    pub detail: &'static str,
}

impl Inspected {
    /// `now_s`: seconds since 1970.
    pub fn of(directory: &Directory, text: &str, now_s: u64) -> Self {
        let key = directory.keys.find(text);
        let said = if key.is_some() { None } else { Said::of(text) };
        let mut inspected =
            Self { key, said, opinions: Vec::new(), sha256: sha256(text.as_bytes()), twin_sha256: twin_sha256(text) };
        let Some(said) = &inspected.said else { return inspected };
        let facts = directory.facts();
        let (of_issuer, others): (Vec<_>, Vec<_>) = auths::all(&facts.resources)
            .filter_map(|auth| issuer_of(&auth).map(|issuer| (Some(issuer) == said.issuer(), auth.clone())))
            .partition(|(is_of_issuer, _)| *is_of_issuer);
        let asked = if of_issuer.is_empty() { others } else { of_issuer };
        let at = At { directory, facts: &facts, said, inspected: &inspected, text, now_s };
        let opinions = asked.iter().filter_map(|(is_of_issuer, auth)| at.opinion(auth, *is_of_issuer)).collect();
        inspected.opinions = opinions;
        inspected
    }

    /// Everything by which requests with it could be refused as revoked.
    pub fn subjects(&self) -> Vec<RevocationSubject> {
        if let Some(key) = &self.key {
            return vec![RevocationSubject {
                consumer: Some(key.consumer.clone()),
                credential: Some(key.id.to_string().into()),
                ..RevocationSubject::default()
            }];
        }
        match self.opinions.is_empty() {
            false => self.opinions.iter().map(|it| it.subject.clone()).collect(),
            true => {
                let marks = self.marks(self.said.as_ref(), self.said.as_ref().and_then(Said::kid));
                vec![RevocationSubject { token: Some(marks.into()), ..RevocationSubject::default() }]
            }
        }
    }

    /// At the token's word, but for the key.
    fn marks(&self, said: Option<&Said>, kid: Option<Box<str>>) -> TokenMarks {
        let claims = said.and_then(|it| it.claims.as_ref());
        let word = |name: &str| claims?.get(name)?.as_str().map(Box::<str>::from);
        TokenMarks {
            sha256: self.sha256,
            twin_sha256: self.twin_sha256,
            issuer: word("iss"),
            subject: word("sub"),
            jti: word("jti"),
            sid: word("sid"),
            client: word("client_id").or_else(|| word("azp")),
            kid,
            issued_at: claims.and_then(|it| seconds(it.get("iat")?)).and_then(|it| u64::try_from(it).ok()),
        }
    }
}

impl Said {
    /// None: it is no JWT.
    fn of(token: &str) -> Option<Self> {
        let [header, claims, _] = three(token)?;
        let [header, claims] = [header, claims].map(|part| base64url(part).and_then(|json| object(&json)));
        (header.is_some() || claims.is_some()).then_some(Self { header, claims })
    }

    pub fn issuer(&self) -> Option<&str> {
        self.claims.as_ref()?.get("iss")?.as_str()
    }

    fn kid(&self) -> Option<Box<str>> {
        self.header.as_ref()?.get("kid")?.as_str().map(Into::into)
    }
}

fn issuer_of(auth: &Auth) -> Option<&str> {
    match &auth.kind {
        AuthKind::Jwt(it) => Some(&it.issuer),
        _ => None,
    }
}

/// One token that is asked about.
struct At<'a> {
    directory: &'a Directory,
    facts: &'a Facts,
    said: &'a Said,
    inspected: &'a Inspected,
    text: &'a str,
    now_s: u64,
}

impl At<'_> {
    /// None: the auth is of another kind, or gone in this moment.
    fn opinion(&self, auth: &Auth, is_of_issuer: bool) -> Option<Opinion> {
        let (plan, keys) = match (&self.facts.auths.find(&auth.name)?.kind, &auth.kind) {
            (Kind::Jwt { plan, keys }, _) => (plan.clone(), keys.at_hand().ok_or(NO_KEYS)),
            (Kind::Broken(reason), AuthKind::Jwt(it)) => (auths::jwt(it), Err(AuthFailure::Unavailable(reason))),
            _ => return None,
        };
        let mut lacks_key = keys.is_err();
        let (signature, judged) = match keys.map(|set| jwt::signed(&plan, &set, self.text)) {
            Ok(Ok(signed)) => {
                let kid = signed.kid.clone();
                let judged = jwt::judged(&plan, signed, self.text, &self.inspected.sha256, self.now_s);
                (Signature::Good(kid), judged)
            }
            Ok(Err(fault)) => {
                lacks_key = matches!(fault, Fault::UnknownKey(_));
                match AuthFailure::from(fault) {
                    AuthFailure::SignatureInvalid => (Signature::Bad, Err(AuthFailure::SignatureInvalid)),
                    failure => (Signature::Unverified(failure), Err(failure)),
                }
            }
            Err(failure) => (Signature::Unverified(failure), Err(failure)),
        };
        let is_bound = judged.as_ref().is_ok_and(|token| token.certificate_sha256.is_some());
        let subject = RevocationSubject {
            consumer: self.consumer(&plan).filter(|_| is_of_issuer),
            token: Some(match (&judged, &signature) {
                (Ok(token), _) => token.marks.clone(),
                (Err(_), Signature::Good(kid)) => self.marks(kid.clone()),
                (Err(_), _) => self.marks(self.said.kid()),
            }),
            ..RevocationSubject::default()
        };
        let outcome = judged.and_then(|token| {
            consumer_of(&token, plan.consumer_claim.is_some(), |name| find_consumer(self.facts, name))?;
            match self.directory.is_revoked(&subject) {
                Some(_) => Err(AuthFailure::Revoked),
                None => Ok(()),
            }
        });
        let beside = lacks_key.then(|| jwt::judged_unsigned(&plan, self.text, self.now_s).map_err(Answer::from));
        let refusal = outcome.err().map(Answer::from);
        Some(Opinion { auth: auth.name.clone(), is_of_issuer, plan, signature, refusal, beside, is_bound, subject })
    }

    fn consumer(&self, plan: &JwtPlan) -> Option<Name> {
        let named = claim(self.said.claims.as_ref()?, plan.consumer_claim.as_deref()?)?;
        named.as_str()?.parse().ok()
    }

    fn marks(&self, kid: Option<Box<str>>) -> Arc<TokenMarks> {
        Arc::new(self.inspected.marks(Some(self.said), kid))
    }
}

impl From<AuthFailure> for Answer {
    fn from(failure: AuthFailure) -> Self {
        let words = Refusal::Unauthenticated(failure, Vec::new()).words();
        Self { status: words.status.as_u16(), code: words.code, detail: words.detail }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}
