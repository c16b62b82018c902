//! The operations of a version's contracts, and the schemas that they name.

use quorumgate_model::resource::{ContractBody, ContractContent, ContractOperation, ContractParameter, Schema};
use serde_json::Value;

use super::{
    catalogue::Entry,
    document,
    html::{Href, Html, anchor},
    pages::Frame,
    schema,
};

pub(super) fn write(html: &mut Html, frame: &Frame<'_>, entry: &Entry) {
    if entry.contracts.is_empty() {
        html.raw("<p>Its operations are not written down here.</p>");
        return;
    }
    let words = &entry.words;
    let download = Href::own(frame.base, &["apis", &words.api, &words.version, "openapi.json"]);
    html.raw("<h2>Operations</h2><p>").link(&download, "OpenAPI document").raw("</p>");
    for contract in document::contracts(entry) {
        for it in &contract.operations {
            if html.is_full() {
                return;
            }
            operation(html, it);
        }
    }
    for contract in document::contracts(entry) {
        let Ok(Value::Object(named)) = contract.schemas.value() else { continue };
        for (name, it) in &named {
            if html.is_full() {
                return;
            }
            html.tag("<section><h3 id=\"", anchor(schema::ANCHOR, name), "\">").tag("", name, "</h3>");
            schema::write(html, it);
            html.raw("</section>");
        }
    }
}

fn operation(html: &mut Html, it: &ContractOperation) {
    html.tag("<section><h3><code>", &it.method, " ").tag("", &it.path, "</code></h3>");
    if !it.summary.is_empty() {
        html.tag("<p>", &it.summary, "</p>");
    }
    if !it.description.is_empty() {
        html.tag("<p class=\"text\">", &it.description, "</p>");
    }
    if !it.parameters.is_empty() {
        html.raw("<div class=\"scroll\"><table><caption>Parameters</caption><thead><tr><th scope=\"col\">Name</th>")
            .raw("<th scope=\"col\">In</th><th scope=\"col\">What it is</th></tr></thead><tbody>");
        it.parameters.iter().for_each(|it| parameter(html, it));
        html.raw("</tbody></table></div>");
    }
    if let Some(ContractBody { required, content }) = &it.body {
        html.raw(if *required { "<h4>Body, required</h4>" } else { "<h4>Body</h4>" });
        contents(html, content);
    }
    for it in &it.responses {
        html.tag("<h4>Answer ", &it.status, "</h4>");
        contents(html, &it.content);
    }
    html.raw("</section>");
}

fn parameter(html: &mut Html, it: &ContractParameter) {
    html.tag("<tr><th scope=\"row\"><code>", &it.name, "</code></th><td>").raw(it.place.word());
    html.raw(if it.required { ", required</td><td>" } else { "</td><td>" });
    match &it.schema {
        Some(it) => parsed(html, it),
        None => {
            html.raw("any text");
        }
    }
    html.raw("</td></tr>");
}

fn contents(html: &mut Html, list: &[ContractContent]) {
    html.raw("<ul>");
    for it in list {
        html.tag("<li><code>", &it.media, "</code>: ");
        match &it.schema {
            Some(it) => parsed(html, it),
            None => {
                html.raw("anything");
            }
        }
        html.raw("</li>");
    }
    html.raw("</ul>");
}

fn parsed(html: &mut Html, it: &Schema) {
    match it.value() {
        Ok(it) if !html.is_full() => schema::write(html, &it),
        _ => {
            html.raw("…");
        }
    }
}
