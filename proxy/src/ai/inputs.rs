//! What embeddings and responses are asked with (`input`), looked through for what is more than its bytes say.

use quorumgate_model::resource::AiPolicy;
use serde_json::value::RawValue;

use super::asked::{Media, Members, Most, OF_MESSAGES, PARTS_MAX, each, wrong};
use crate::inspect::Violation;

/// Members of items of any type that are texts, or say what it is.
const OF_ITEMS: [&str; 10] =
    ["type", "id", "status", "phase", "call_id", "name", "arguments", "output", "input", "namespace"];

impl Members<'_> {
    /// Of embeddings: a text, tokens, or a list of these.
    pub(super) fn inputs(&self, media: &mut Media, words: &AiPolicy) -> Result<(), Violation> {
        let raw = self.input()?;
        if is_text(raw) {
            return Ok(());
        }
        each(raw, "/input", Most { items: PARTS_MAX, rule: "provider" }, &mut |pointer, raw| {
            if is_text(raw) || is_number(raw) {
                return Ok(());
            }
            if !raw.get().starts_with('[') {
                return media.count(pointer.to_owned(), words);
            }
            // As many as there are bytes for: each is one token.
            match serde_json::from_str::<Vec<u64>>(raw.get()) {
                Ok(_) => Ok(()),
                Err(_) => Err(wrong(pointer, "provider", "found something else; allowed: a list of tokens")),
            }
        })?;
        Ok(())
    }

    /// Of responses: a text, or what was said so far, item by item.
    pub(super) fn items(&self, media: &mut Media, words: &AiPolicy) -> Result<(), Violation> {
        if let Some(instructions) = self.get("instructions") {
            media.add(instructions, "/instructions", 0, words)?;
        }
        let raw = self.input()?;
        if is_text(raw) {
            return Ok(());
        }
        each(raw, "/input", Self::most(words), &mut |pointer, raw| {
            item(&Members::of(raw, pointer)?, pointer, media, words)
        })?;
        Ok(())
    }

    fn input(&self) -> Result<&RawValue, Violation> {
        let raw = self.get("input").filter(|raw| raw.get() != "null");
        raw.ok_or_else(|| wrong("/input", "provider", "there is none: this path takes nothing without it"))
    }
}

fn is_text(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|first: char| first.is_ascii_digit())
}

fn item(item: &Members<'_>, pointer: &str, media: &mut Media, words: &AiPolicy) -> Result<(), Violation> {
    item.has_no_twin_of(OF_ITEMS.iter().chain(&OF_MESSAGES), pointer)?;
    let kind = item.take::<String>("type", "a text")?.unwrap_or_else(|| "message".to_owned());
    let within = match &*kind {
        "message" if item.get("content").is_some() => "content",
        "function_call" | "custom_tool_call" => "",
        "function_call_output" | "custom_tool_call_output" => "output",
        // What it refers to lies at the provider, and is read again.
        "message" | "item_reference" if words.strict => {
            let detail = "what it refers to is not here: nobody can say before what it costs";
            return Err(wrong(pointer, "strict", detail));
        }
        "message" | "item_reference" => return Ok(()),
        _ => return media.count(pointer.to_owned(), words),
    };
    if let Some(parts) = item.get(within) {
        media.add(parts, &format!("{pointer}/{within}"), 0, words)?;
    }
    let is_known = |name: &str| OF_ITEMS.contains(&name) || OF_MESSAGES.contains(&name);
    // Parts lie in one place alone.
    let is_elsewhere =
        |name: &str, raw: &RawValue| matches!(name, "content" | "output") && name != within && !is_text(raw);
    let others = item.0.iter().filter(|(name, raw)| !is_known(name) || is_elsewhere(name, raw));
    let others = others.filter(|(_, raw)| raw.get() != "null");
    for (name, _) in others {
        media.count(format!("{pointer}/{name}"), words)?;
    }
    Ok(())
}
