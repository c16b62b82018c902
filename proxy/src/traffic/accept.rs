//! Which content coding a client likes best (RFC 9110 12.5.3).

use http::{HeaderMap, header};
use quorumgate_model::resource::Coding;

/// Thousandths.
type Quality = u16;

/// None: the answer stays as it is. `ours`: in our order of preference, which decides where the client has none.
pub(crate) fn coding(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let fields = headers.get_all(header::ACCEPT_ENCODING);
    let elements = || fields.iter().filter_map(|field| field.to_str().ok()).flat_map(|text| text.split(','));
    let quality = |names: &[&str]| {
        elements().find_map(|element| {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let named = names.iter().any(|it| name.trim().eq_ignore_ascii_case(it));
            named.then(|| read_quality(parameters))
        })
    };
    let any = quality(&["*"]);
    let mut best: Option<(Quality, Coding)> = None;
    for coding in ours {
        let named = match coding {
            Coding::Gzip => quality(&["gzip", "x-gzip"]),
            coding => quality(&[coding.word()]),
        };
        let quality = named.or(any).unwrap_or(0);
        if quality > best.map_or(0, |(quality, _)| quality) {
            best = Some((quality, *coding));
        }
    }
    // As it is only where the client says that it likes that better.
    let (quality, coding) = best.filter(|(found, _)| *found >= quality(&["identity"]).unwrap_or(0))?;
    (quality > 0).then_some(coding)
}

/// `q=0.5` is 500; without one, 1000; what is none is 0, so that nobody gets what he cannot read.
fn read_quality(parameters: &str) -> Quality {
    let weight = parameters.split(';').map(str::trim).find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
    let Some(weight) = weight else { return 1000 };
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    let thousandths = format!("{fraction:0<3}").parse().unwrap_or(0);
    match whole {
        "1" => 1000,
        "0" => thousandths,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_client_chooses_and_then_we_do() {
        let ours = [Coding::Zstd, Coding::Br, Coding::Gzip];
        for (accepts, expected) in [
            ("", None),
            ("gzip", Some(Coding::Gzip)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Br)),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", Some(Coding::Gzip)),
            ("gzip;q=0.5,br;Q=0.501", Some(Coding::Br)),
            ("gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0, br;q=0", Some(Coding::Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("deflate", None),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("br;level=4;q=0.7", Some(Coding::Br)),
        ] {
            assert_eq!(coding(&fields(&[accepts]), &ours), expected, "{accepts}");
        }
        assert_eq!(coding(&fields(&["gzip;q=0.2", "br;q=0.3"]), &ours), Some(Coding::Br));
        assert_eq!(coding(&fields(&[]), &ours), None);
    }
}
