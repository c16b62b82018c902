//! Where an address is said to be, by files in MaxMind's format (MMDB) that the node has: countries, and autonomous systems.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use maxminddb::{LookupResult, PathElement, Reader, WithinOptions};
use quorumgate_model::resource::{Country, Place};
use serde::de::IgnoredAny;

/// The largest file that is taken: it is held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Where the network is, else where it is registered.
const COUNTRY: [&[PathElement<'static>]; 2] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("registered_country"), PathElement::Key("iso_code")],
];
const ASN: &[PathElement<'static>] = &[PathElement::Key("autonomous_system_number")];
/// The first networks of a file, by which it is told at load that its records are of another form; only a file in which the
/// field has not come up by then is looked through to its end.
const LOOKED_AT_MAX: usize = 10_000;
/// Of what was found there.
const SHOWN_MAX: usize = 64;

/// None: nothing is known of any address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    pub country: Option<PathBuf>,
    pub asn: Option<PathBuf>,
}

#[derive(Default)]
pub struct Geo(ArcSwap<Tables>);

#[derive(Default)]
struct Tables {
    country: Option<Reader<Vec<u8>>>,
    asn: Option<Reader<Vec<u8>>>,
}

impl std::fmt::Debug for Geo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (countries, asns) = self.has();
        f.debug_struct("Geo").field("countries", &countries).field("asns", &asns).finish()
    }
}

impl Geo {
    /// From now on these files are asked; one that cannot be read changes nothing. Reads them whole.
    pub fn load(&self, files: &Files) -> anyhow::Result<()> {
        let of_country = |it: &Record<'_>| country(it).is_some();
        let of_asn = |it: &Record<'_>| asn(it).is_some();
        let country = files.country.as_ref().map(|file| {
            let table = read(file, &COUNTRY, "country.iso_code", "a country's two letters", of_country);
            table.with_context(|| format!("proxy.geo.country: {}", file.display()))
        });
        let asn = files.asn.as_ref().map(|file| {
            let table = read(file, &[ASN], "autonomous_system_number", "an integer of 32 bits", of_asn);
            table.with_context(|| format!("proxy.geo.asn: {}", file.display()))
        });
        self.0.store(Arc::new(Tables { country: country.transpose()?, asn: asn.transpose()? }));
        Ok(())
    }

    /// Whether countries are known, and autonomous systems.
    pub fn has(&self) -> (bool, bool) {
        let tables = self.0.load();
        (tables.country.is_some(), tables.asn.is_some())
    }

    pub fn place(&self, address: IpAddr) -> Place {
        let tables = self.0.load();
        let address = address.to_canonical();
        let country = tables.country.as_ref().and_then(|it| country(&it.lookup(address).ok()?));
        let asn = tables.asn.as_ref().and_then(|it| asn(&it.lookup(address).ok()?));
        Place { country, asn }
    }
}

type Record<'r> = LookupResult<'r, Vec<u8>>;

/// A record of another form says nothing.
fn country(record: &Record<'_>) -> Option<Country> {
    let code = |path: &[PathElement<'static>]| record.decode_path::<&str>(path).ok()?;
    COUNTRY.into_iter().find_map(code)?.parse().ok()
}

/// Of integers the format has several sizes, and some writers take the smallest that will do.
fn asn(record: &Record<'_>) -> Option<u32> {
    u32::try_from(record.decode_path::<serde_json::Number>(ASN).ok()??.as_u64()?).ok()
}

fn read(
    file: &Path,
    paths: &[&[PathElement<'static>]],
    field: &str,
    allowed: &str,
    is_understood: impl Fn(&Record<'_>) -> bool,
) -> anyhow::Result<Reader<Vec<u8>>> {
    let bytes = std::fs::metadata(file)?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "found {bytes} bytes; allowed: at most {FILE_BYTES_MAX}");
    let table =
        Reader::open_readfile(file).context("found something else; allowed: a database in MaxMind's format (.mmdb)")?;
    check(file, &table, paths, field, allowed, is_understood)?;
    Ok(table)
}

/// Refuses a file of whose first networks nothing is understood, by which rules would let everybody in, and warns of one that
/// has some such. A file that has records and the field in none of them is another than was meant; networks without the field say
/// nothing wrong.
fn check(
    file: &Path,
    table: &Reader<Vec<u8>>,
    paths: &[&[PathElement<'static>]],
    field: &str,
    allowed: &str,
    is_understood: impl Fn(&Record<'_>) -> bool,
) -> anyhow::Result<()> {
    let (mut understood, mut unlike, mut first, mut beside) = (0, 0, None, None);
    for (at, record) in table.networks(WithinOptions::default())?.enumerate() {
        if at >= LOOKED_AT_MAX && understood + unlike > 0 {
            break;
        }
        let record = record?;
        if is_understood(&record) {
            understood += 1;
        } else if let Some(said) = paths.iter().find_map(|path| said(&record, path)) {
            unlike += 1;
            first.get_or_insert((record.network()?, said));
        } else if beside.is_none() {
            beside = fields(&record);
        }
    }
    if understood + unlike == 0
        && let Some(beside) = beside
    {
        let kind = &table.metadata().database_type;
        anyhow::bail!("{field}: found in no network, of {kind} with {beside}; allowed: {allowed}");
    }
    let Some((network, found)) = first else { return Ok(()) };
    anyhow::ensure!(understood > 0, "{field} of {network}: found {found}; allowed: {allowed}");
    let file = file.display();
    tracing::warn!(%file, field, %network, found, allowed, networks = unlike, "of some networks nothing is known");
    Ok(())
}

/// What a record has; None: nothing.
fn fields(record: &Record<'_>) -> Option<String> {
    let fields: BTreeMap<String, IgnoredAny> = record.decode().ok()??;
    let names: Vec<String> = fields.into_keys().collect();
    (!names.is_empty()).then(|| names.join(", ").chars().take(SHOWN_MAX).collect())
}

/// What is there instead; None: nothing.
fn said(record: &Record<'_>, path: &[PathElement<'static>]) -> Option<String> {
    match record.decode_path::<serde_json::Value>(path) {
        Ok(value) => Some(value?.to_string().chars().take(SHOWN_MAX).collect()),
        Err(_) => Some("something of another type".into()),
    }
}

#[cfg(test)]
#[path = "../tests/all/mmdb/mod.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use super::{
        mmdb::{database, map, text, u16, u32},
        *,
    };

    #[test]
    fn a_system_has_an_integer_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let asn = dir.path().join("a.mmdb");
        let (int32, uint64) = (vec![4, 1, 0, 0, 0xfb, 0xf4], vec![4, 2, 0, 0, 0xfb, 0xf4]);
        for (number, expected) in [
            (u16(64_500), Some(64_500)),
            (u32(64_500), Some(64_500)),
            (int32, Some(64_500)),
            (uint64, Some(64_500)),
            (vec![5, 2, 1, 0, 0, 0, 0], None),
            (text("64500"), None),
        ] {
            let record = map(&[("autonomous_system_number", number)]);
            std::fs::write(&asn, database(&record, &map(&[]))).unwrap();
            let geo = Geo::default();
            let loaded = geo.load(&Files { country: None, asn: Some(asn.clone()) });
            assert_eq!(geo.place("10.0.0.1".parse().unwrap()).asn, expected);
            assert_eq!(loaded.is_ok(), expected.is_some(), "{loaded:?}");
        }
    }

    #[test]
    fn a_file_of_which_nothing_is_understood_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.mmdb");
        let check = |low: &[u8], high: &[u8], field: &str, refused: Option<&str>| {
            std::fs::write(&file, database(low, high)).unwrap();
            let path = Some(file.clone());
            let files = match field {
                "country" => Files { country: path, asn: None },
                _ => Files { country: None, asn: path },
            };
            let said = Geo::default().load(&files).err().map(|it| format!("{it:#}"));
            let named = refused.map(|it| format!("proxy.geo.{field}: {}: {it}", file.display()));
            match (said, named) {
                (None, None) => (),
                (Some(said), Some(named)) => assert!(said.starts_with(&named), "{said}, not {named}"),
                (said, named) => assert_eq!(said, named, "{field}"),
            }
        };
        let empty = map(&[]);
        check(&empty, &empty, "country", None);
        check(&empty, &empty, "asn", None);
        let number = |it| map(&[("autonomous_system_number", it)]);
        let text_of = number(text("AS64500"));
        let unlike = "autonomous_system_number of 0.0.0.0/1: found \"AS64500\"; allowed: an integer";
        check(&text_of, &empty, "asn", Some(unlike));
        check(&text_of, &number(u32(1)), "asn", None);
        let flat = map(&[("country", text("DE"))]);
        let unlike = "country.iso_code of 0.0.0.0/1: found something of another type";
        check(&flat, &empty, "country", Some(unlike));
        let nested = |code: &str| map(&[("country", map(&[("iso_code", text(code))]))]);
        check(&nested("Germany"), &empty, "country", Some("country.iso_code of 0.0.0.0/1: found \"Germany\""));
        check(&nested("Germany"), &nested("DE"), "country", None);
        // One file in the place of the other.
        let of_asns =
            "country.iso_code: found in no network, of Test with autonomous_system_number; allowed: a country";
        check(&empty, &number(u32(1)), "country", Some(of_asns));
        let of_countries = "autonomous_system_number: found in no network, of Test with country; allowed: an integer";
        check(&nested("DE"), &nested("FR"), "asn", Some(of_countries));
        check(&empty, &nested("FR"), "country", None);
    }

    #[test]
    fn an_address_is_where_the_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let iso = |code: &str| map(&[("iso_code", text(code))]);
        let (country, asn, broken) = (dir.path().join("c.mmdb"), dir.path().join("a.mmdb"), dir.path().join("x.mmdb"));
        let countries = database(&map(&[("country", iso("DE"))]), &map(&[("registered_country", iso("FR"))]));
        std::fs::write(&country, countries).unwrap();
        let of = |number| map(&[("autonomous_system_number", u32(number))]);
        std::fs::write(&asn, database(&of(64_500), &map(&[]))).unwrap();
        std::fs::write(&broken, "no database").unwrap();

        let geo = Geo::default();
        let place = |address: &str| {
            let place = geo.place(address.parse().unwrap());
            (place.country.map(|it| it.to_string()).unwrap_or_default(), place.asn)
        };
        assert_eq!((geo.has(), place("10.0.0.1")), ((false, false), (String::new(), None)));
        geo.load(&Files { country: Some(country.clone()), asn: Some(asn) }).unwrap();
        assert_eq!(place("10.0.0.1"), ("DE".into(), Some(64_500)));
        assert_eq!(place("::ffff:10.0.0.1"), ("DE".into(), Some(64_500)));
        assert_eq!(place("192.0.2.1"), ("FR".into(), None), "where it is registered, at least");
        assert_eq!(place("2001:db8::1"), (String::new(), None), "the files have no IPv6");

        for (file, mention) in [(broken, "MaxMind's format"), (dir.path().join("none.mmdb"), "No such file")] {
            let error = geo.load(&Files { country: Some(file), asn: None }).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("proxy.geo.country") && error.contains(mention), "{error}");
        }
        assert_eq!(place("10.0.0.1").0, "DE", "what cannot be read changes nothing");
        geo.load(&Files { country: Some(country), asn: None }).unwrap();
        assert_eq!((geo.has(), place("10.0.0.1")), ((true, false), ("DE".into(), None)));
    }
}
