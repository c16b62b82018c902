//! request-transformer and response-transformer: edits of header fields and query parameters.

use crate::cli::{
    convert::{
        common,
        effects::{Edits, Effects, PathTo},
        reader::Item,
    },
    failure::Outcome,
};

/// What begins a value of the request in a text of theirs.
const MARKS: [&str; 1] = ["$("];

pub fn request(config: &Item<'_>, effects: &mut Effects) -> Outcome {
    for (place, edits) in [("headers", &mut effects.request), ("querystring", &mut effects.query)] {
        self::edits(config, place, edits)?;
    }
    for action in ["remove", "rename", "replace", "add", "append"] {
        let Some(it) = config.map(action)? else { continue };
        for place in ["body", "json", "json_types"] {
            if let Some(list) = it.get(place).filter(|it| !it.entries().is_empty()) {
                list.left_out("parts of bodies: rewrite.body says the whole of a body; write it by hand");
            }
        }
        if let Some(uri) = it.get("uri") {
            let text = uri.as_text()?;
            match MARKS.iter().any(|mark| text.contains(mark)) {
                true => uri.left_out(
                    "it has values of the request in it: write rewrite.path by hand, with ${path} and the like",
                ),
                false => effects.path = Some(PathTo::Whole(common::literal(&text))),
            }
        }
    }
    if let Some(method) = config.get("http_method") {
        method.left_out("methods are not changed");
    }
    Ok(())
}

pub fn response(config: &Item<'_>, effects: &mut Effects) -> Outcome {
    edits(config, "headers", &mut effects.response)?;
    for action in ["remove", "rename", "replace", "add", "append"] {
        let Some(it) = config.map(action)? else { continue };
        for place in ["json", "json_types", "if_status"] {
            if let Some(list) = it.get(place).filter(|it| !it.entries().is_empty()) {
                list.left_out("parts of bodies: rewrite.body says the whole of a body; write it by hand");
            }
        }
    }
    Ok(())
}

fn edits(config: &Item<'_>, place: &str, edits: &mut Edits) -> Outcome {
    if let Some(remove) = config.map("remove")? {
        for it in remove.list(place)? {
            let text = it.as_text()?;
            let name = text.split(':').next().unwrap_or_default();
            if name != text {
                it.differs("it is removed whatever its value is");
            }
            common::remove_once(edits, name.to_owned());
        }
    }
    if let Some(rename) = config.map("rename")? {
        for it in rename.list(place)? {
            it.left_out("nothing is renamed here; write it by hand where the name is used");
        }
    }
    for action in ["replace", "add", "append"] {
        let Some(list) = config.map(action)? else { continue };
        for it in list.list(place)? {
            let Some((name, value)) = common::field_and_value(&it.as_text()?, &MARKS) else {
                it.left_out(
                    "its value is of the request: write it by hand, with ${client_ip}, ${consumer} and the like",
                );
                continue;
            };
            match action {
                "append" => drop(edits.add.insert(name, value)),
                "add" => {
                    it.differs("it is set also where the message has one already");
                    edits.set.entry(name).or_insert(value);
                }
                _ => {
                    it.differs("it is set also where the message has none");
                    edits.set.insert(name, value);
                }
            }
        }
    }
    Ok(())
}
