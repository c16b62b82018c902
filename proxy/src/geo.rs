//! Where an address is said to be, by files in MaxMind's format (MMDB) that the node has: countries, and autonomous systems.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use maxminddb::{PathElement, Reader};
use quorumgate_model::resource::{Country, Place};

/// The largest file that is taken: it is held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Of `country`: where the network is, else where it is registered.
const COUNTRIES: [&str; 2] = ["country", "registered_country"];

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
        let read = |field: &str, file: &Option<PathBuf>| {
            let read = |file: &PathBuf| read(file).with_context(|| format!("proxy.geo.{field}: {}", file.display()));
            file.as_ref().map(read).transpose()
        };
        let tables = Tables { country: read("country", &files.country)?, asn: read("asn", &files.asn)? };
        self.0.store(Arc::new(tables));
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
        let country = tables.country.as_ref().and_then(|it| {
            let found = it.lookup(address).ok()?;
            // A record of another form says nothing.
            let code =
                |of: &str| found.decode_path::<&str>(&[PathElement::Key(of), PathElement::Key("iso_code")]).ok()?;
            COUNTRIES.into_iter().find_map(code)?.parse::<Country>().ok()
        });
        let asn = tables.asn.as_ref().and_then(|it| {
            let found = it.lookup(address).ok()?;
            // Of integers the format has several sizes, and some writers take the smallest that will do.
            let number = found.decode_path::<serde_json::Number>(&[PathElement::Key("autonomous_system_number")]);
            u32::try_from(number.ok()??.as_u64()?).ok()
        });
        Place { country, asn }
    }
}

fn read(file: &Path) -> anyhow::Result<Reader<Vec<u8>>> {
    let bytes = std::fs::metadata(file)?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "found {bytes} bytes; allowed: at most {FILE_BYTES_MAX}");
    Reader::open_readfile(file).context("found something else; allowed: a database in MaxMind's format (.mmdb)")
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
            geo.load(&Files { country: None, asn: Some(asn.clone()) }).unwrap();
            assert_eq!(geo.place("10.0.0.1".parse().unwrap()).asn, expected);
        }
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
