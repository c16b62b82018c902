//! Masks between prost and model.

use quorumgate_proto::admin::v1 as admin;

use super::{policy::tolerance, resource::word};
use crate::{
    invalid::Invalid,
    resource::{MaskExemption, MaskPolicy, MaskedField, MaskedHeader, MaskedPattern, PersonalClass, Veil},
    units::Size,
};

pub(super) fn from(it: admin::MaskPolicy) -> Result<MaskPolicy, Invalid> {
    let default = MaskPolicy::default();
    let field = |(place, it): (usize, admin::MaskedField)| {
        let with = veil(&it.with).map_err(|invalid| invalid.under(format!("fields[{place}]")))?;
        Ok(MaskedField { pointer: it.pointer, with })
    };
    let pattern = |(place, it): (usize, admin::MaskedPattern)| {
        let pattern = || {
            let missing = || Invalid::field("class").found("nothing").allowed("card, iban or email");
            let class = word("class", &it.class, PersonalClass::ALL, PersonalClass::word)?.ok_or_else(missing)?;
            Ok(MaskedPattern { class, with: veil(&it.with)? })
        };
        pattern().map_err(|invalid: Invalid| invalid.under(format!("patterns[{place}]")))
    };
    let header = |(place, it): (usize, admin::MaskedHeader)| {
        let with = veil(&it.with).map_err(|invalid| invalid.under(format!("headers[{place}]")))?;
        Ok(MaskedHeader { name: it.name, with })
    };
    let unless = it.unless.unwrap_or_default();
    Ok(MaskPolicy {
        fields: it.fields.into_iter().enumerate().map(field).collect::<Result<_, Invalid>>()?,
        patterns: it.patterns.into_iter().enumerate().map(pattern).collect::<Result<_, Invalid>>()?,
        headers: it.headers.into_iter().enumerate().map(header).collect::<Result<_, Invalid>>()?,
        unless: MaskExemption { groups: unless.groups, scopes_any: unless.scopes_any },
        body_max: it.body_max.map_or(default.body_max, Size),
        other_types: tolerance("other_types", &it.other_types, default.other_types)?,
    })
}

fn veil(text: &str) -> Result<Veil, Invalid> {
    Ok(word("with", text, Veil::ALL, Veil::word)?.unwrap_or(Veil::Stars))
}

pub(super) fn to(it: &MaskPolicy) -> admin::MaskPolicy {
    let field = |it: &MaskedField| admin::MaskedField { pointer: it.pointer.clone(), with: it.with.word().to_owned() };
    let pattern = |it: &MaskedPattern| admin::MaskedPattern {
        class: it.class.word().to_owned(),
        with: it.with.word().to_owned(),
    };
    let header = |it: &MaskedHeader| admin::MaskedHeader { name: it.name.clone(), with: it.with.word().to_owned() };
    let MaskExemption { groups, scopes_any } = it.unless.clone();
    admin::MaskPolicy {
        fields: it.fields.iter().map(field).collect(),
        patterns: it.patterns.iter().map(pattern).collect(),
        headers: it.headers.iter().map(header).collect(),
        unless: Some(admin::MaskExemption { groups, scopes_any }),
        body_max: Some(it.body_max.0),
        other_types: it.other_types.word().to_owned(),
    }
}
