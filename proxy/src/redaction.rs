//! What of exchanges is written down less exactly than it was: in the access log, for `explain` and `tap`, in traces. Queries,
//! fields and bodies are written down nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const INSTEAD: &str = "[redacted]";
/// Values that are credentials, by the names that they have in paths (`/a;access_token=…`).
pub const NAMES_DEFAULT: [&str; 12] = [
    "access_token",
    "api_key",
    "apikey",
    "client_secret",
    "code",
    "id_token",
    "jsessionid",
    "password",
    "refresh_token",
    "secret",
    "sid",
    "token",
];

#[derive(Debug, Clone)]
pub struct Redaction {
    /// Its network stands for it: the first 24 bits of IPv4, 48 of IPv6.
    pub client_ip: bool,
    /// What its route's pattern is stands for it.
    pub path: bool,
    pub consumer: bool,
    pub credential: bool,
    /// What follows `name=` in a path is left out. In lower case; paths are compared without case.
    pub names: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        let names = NAMES_DEFAULT.map(str::to_owned).into();
        Self { client_ip: false, path: false, consumer: false, credential: false, names }
    }
}

impl Redaction {
    pub(crate) fn address(&self, it: IpAddr) -> IpAddr {
        match it {
            _ if !self.client_ip => it,
            IpAddr::V4(it) => IpAddr::V4(Ipv4Addr::from_bits(it.to_bits() & (!0 << 8))),
            IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() & (!0 << 80))),
        }
    }

    /// Whoever a ban names is one of those.
    pub(crate) fn hides_callers(&self) -> bool {
        self.client_ip || self.consumer || self.credential
    }

    /// `template`: of the route.
    pub(crate) fn path(&self, path: &mut String, template: Option<&str>) {
        if self.path {
            path.clear();
            path.push_str(template.unwrap_or_default());
        } else if let Some(redacted) = self.values(path) {
            *path = redacted;
        }
    }

    /// None: there is nothing of the kind.
    fn values(&self, path: &str) -> Option<String> {
        if self.names.is_empty() || !path.bytes().any(|it| matches!(it, b'=' | b'%')) {
            return None;
        }
        let lower = path.to_ascii_lowercase();
        let (mut out, mut at, mut copied) = (String::new(), 0, 0);
        while let Some((sign, value)) = equals(&lower, at) {
            at = value;
            if !self.names.iter().any(|it| it == name_before(&lower[..sign])) {
                continue;
            }
            out.push_str(&path[copied..value]);
            out.push_str(INSTEAD);
            (at, copied) = (end_of(&lower, value), end_of(&lower, value));
        }
        (copied > 0).then(|| out + &path[copied..])
    }
}

/// The next `=`, and what stands behind it.
fn equals(lower: &str, from: usize) -> Option<(usize, usize)> {
    let plain = lower[from..].find('=').map(|at| (from + at, from + at + 1));
    let encoded = lower[from..].find("%3d").map(|at| (from + at, from + at + 3));
    plain.into_iter().chain(encoded).min()
}

fn name_before(text: &str) -> &str {
    let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.');
    let begins = text.rfind(|it| !is_name(it)).map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8));
    let name = &text[begins..];
    // Behind `%3f` it is not what is encoded.
    let is_encoded = text[..begins].ends_with('%');
    if is_encoded { name.get(2..).unwrap_or(name) } else { name }
}

/// Where the value ends that begins here.
fn end_of(lower: &str, from: usize) -> usize {
    let ends =
        ["/", ";", ",", "&", "?", "%2f", "%3b", "%2c", "%26", "%3f"].iter().filter_map(|it| lower[from..].find(it));
    ends.min().map_or(lower.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let mut shown = path.to_owned();
        Redaction::default().path(&mut shown, None);
        assert_eq!(shown, expected);
    }

    #[test]
    fn values_in_paths_are_left_out_by_their_names() {
        check("/a;access_token=abc;v=1/b", "/a;access_token=[redacted];v=1/b");
        check("/a;Access_Token=abc", "/a;Access_Token=[redacted]");
        check("/a/token=x,code=y/c", "/a/token=[redacted],code=[redacted]/c");
        check("/a%3fapi_key%3Dx%26b=1", "/a%3fapi_key%3D[redacted]%26b=1");
        check("/sid=", "/sid=[redacted]");
        check("/é;password=é/ü", "/é;password=[redacted]/ü");
        for same in ["/zipcode=1", "/a;v=1", "/token/x", "/a=b=c", "/%", "/%3d", "/", "/a;mytoken=1", "="] {
            check(same, same);
        }
        let mut whole = "/token=x".to_owned();
        Redaction { names: Vec::new(), ..Redaction::default() }.path(&mut whole, None);
        assert_eq!(whole, "/token=x");
    }

    #[test]
    fn a_path_and_an_address_are_written_down_as_what_they_are_of() {
        let all = Redaction { path: true, client_ip: true, ..Redaction::default() };
        let mut path = "/users/ann".to_owned();
        all.path(&mut path, Some("/users/{id}"));
        assert_eq!(path, "/users/{id}");
        all.path(&mut path, None);
        assert_eq!(path, "");
        for (address, expected) in [("192.0.2.77", "192.0.2.0"), ("2001:db8:1:2::7", "2001:db8:1::")] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(all.address(address), expected.parse::<IpAddr>().unwrap());
            assert_eq!(Redaction::default().address(address), address);
        }
    }
}
