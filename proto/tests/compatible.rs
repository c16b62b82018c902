//! What clients of the admin API were built against stays: nothing of `admin-v1.txt` may go, move or change its type.
//! Additions are free; `QUORUMGATE_BLESS=1 cargo test -p quorumgate-proto` writes them down.

use std::{collections::BTreeSet, env, fs};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/admin-v1.txt");

#[test]
fn the_admin_api_keeps_what_it_had() {
    let now = lines();
    if env::var_os("QUORUMGATE_BLESS").is_some() {
        let text: Vec<_> = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(GOLDEN, text.concat()).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap();
    let gone: Vec<_> = golden.lines().filter(|line| !now.contains(*line)).collect();
    assert!(gone.is_empty(), "removed, renumbered or of another type now:\n{}", gone.join("\n"));
    assert!(golden.lines().count() > 100, "the golden file is cut short");
}

/// One line for each field, value and call.
fn lines() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(quorumgate_proto::DESCRIPTORS).unwrap();
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package() == "quorumgate.admin.v1") {
        file.message_type.iter().for_each(|it| message(it.name(), it, &mut lines));
        file.enum_type.iter().for_each(|it| words("", it, &mut lines));
        file.service.iter().for_each(|it| calls(it, &mut lines));
    }
    lines
}

fn message(path: &str, it: &DescriptorProto, lines: &mut BTreeSet<String>) {
    lines.extend(it.field.iter().map(|field| {
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let oneof = oneof.map(|at| format!(" oneof {}", it.oneof_decl[at as usize].name())).unwrap_or_default();
        format!("message {path}.{} = {} {}{oneof}", field.name(), field.number(), kind(field))
    }));
    it.nested_type.iter().for_each(|inner| message(&format!("{path}.{}", inner.name()), inner, lines));
    it.enum_type.iter().for_each(|inner| words(&format!("{path}."), inner, lines));
}

fn kind(field: &FieldDescriptorProto) -> String {
    let presence = if field.proto3_optional() { "LABEL_PRESENT" } else { field.label().as_str_name() };
    match field.type_name() {
        "" => format!("{presence} {}", field.r#type().as_str_name()),
        name => format!("{presence} {name}"),
    }
}

fn words(outer: &str, it: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let word = |value: &prost_types::EnumValueDescriptorProto| {
        format!("enum {outer}{}.{} = {}", it.name(), value.name(), value.number())
    };
    lines.extend(it.value.iter().map(word));
}

fn calls(it: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    lines.extend(it.method.iter().map(|call| {
        let stream = |is: bool| if is { "stream " } else { "" };
        let (takes, gives) = (stream(call.client_streaming()), stream(call.server_streaming()));
        let (input, output) = (call.input_type(), call.output_type());
        format!("call {}/{} ({takes}{input}) returns ({gives}{output})", it.name(), call.name())
    }));
}
