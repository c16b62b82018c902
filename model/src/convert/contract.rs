//! Contracts between prost and model. Schemas are JSON texts in both, and stay as they are written.

use quorumgate_proto::admin::v1 as admin;

use super::{
    policy::{mode, tolerance},
    resource::word,
};
use crate::{
    invalid::Invalid,
    resource::{
        ContractBody, ContractContent, ContractEncoding, ContractOperation, ContractParameter, ContractPolicy,
        ContractResponse, ParameterPlace, ParameterStyle, PolicyMode, Schema,
    },
    units::Size,
};

pub(super) fn from(it: admin::ContractPolicy) -> Result<ContractPolicy, Invalid> {
    let default = ContractPolicy::default();
    Ok(ContractPolicy {
        mode: mode(&it.mode, default.mode)?,
        responses: word("responses", &it.responses, PolicyMode::ALL, PolicyMode::word)?.unwrap_or(default.responses),
        body_max: it.body_max.map_or(default.body_max, Size),
        unknown_operations: tolerance("unknown_operations", &it.unknown_operations, default.unknown_operations)?,
        schemas: schema("schemas", &it.schemas)?.unwrap_or(default.schemas),
        operations: each("operations", it.operations, operation)?,
    })
}

fn each<A, B>(field: &str, list: Vec<A>, from: impl Fn(A) -> Result<B, Invalid>) -> Result<Vec<B>, Invalid> {
    let under = |(place, it)| from(it).map_err(|invalid| invalid.under(format!("{field}[{place}]")));
    list.into_iter().enumerate().map(under).collect()
}

fn operation(it: admin::ContractOperation) -> Result<ContractOperation, Invalid> {
    let body = |it: admin::ContractBody| {
        let content = each("content", it.content, content).map_err(|invalid| invalid.under("body"))?;
        Ok::<_, Invalid>(ContractBody { required: it.required, content })
    };
    let response = |it: admin::ContractResponse| {
        Ok(ContractResponse { status: it.status, content: each("content", it.content, content)? })
    };
    Ok(ContractOperation {
        id: it.id,
        method: it.method,
        path: it.path,
        mode: word("mode", &it.mode, PolicyMode::ALL, PolicyMode::word)?,
        parameters: each("parameters", it.parameters, parameter)?,
        body: it.body.map(body).transpose()?,
        responses: each("responses", it.responses, response)?,
        summary: it.summary,
        description: it.description,
    })
}

fn parameter(it: admin::ContractParameter) -> Result<ContractParameter, Invalid> {
    let place = word("in", &it.r#in, ParameterPlace::ALL, ParameterPlace::word)?;
    let missing = || Invalid::field("in").found("nothing").allowed("path, query, header or cookie");
    Ok(ContractParameter {
        place: place.ok_or_else(missing)?,
        name: it.name,
        required: it.required,
        schema: schema("schema", &it.schema)?,
        style: word("style", &it.style, ParameterStyle::ALL, ParameterStyle::word)?,
        explode: it.explode,
    })
}

fn content(it: admin::ContractContent) -> Result<ContractContent, Invalid> {
    Ok(ContractContent {
        media: it.r#type,
        schema: schema("schema", &it.schema)?,
        encoding: each("encoding", it.encoding, encoding)?,
    })
}

fn encoding(it: admin::ContractEncoding) -> Result<ContractEncoding, Invalid> {
    Ok(ContractEncoding {
        name: it.name,
        types: it.types,
        style: word("style", &it.style, ParameterStyle::ALL, ParameterStyle::word)?,
        explode: it.explode,
    })
}

/// Empty: None.
fn schema(field: &str, text: &str) -> Result<Option<Schema>, Invalid> {
    let wrong = |error: serde_json::Error| Invalid::field(field).found(error).allowed("a JSON Schema as JSON text");
    match text {
        "" => Ok(None),
        _ => Schema::parse(text).map(Some).map_err(wrong),
    }
}

pub(super) fn to(it: &ContractPolicy) -> admin::ContractPolicy {
    admin::ContractPolicy {
        mode: it.mode.word().to_owned(),
        responses: it.responses.word().to_owned(),
        body_max: Some(it.body_max.0),
        unknown_operations: it.unknown_operations.word().to_owned(),
        schemas: it.schemas.as_str().to_owned(),
        operations: it.operations.iter().map(operation_to).collect(),
    }
}

fn operation_to(it: &ContractOperation) -> admin::ContractOperation {
    let body = |it: &ContractBody| admin::ContractBody { required: it.required, content: contents_to(&it.content) };
    let response = |it: &ContractResponse| admin::ContractResponse {
        status: it.status.clone(),
        content: contents_to(&it.content),
    };
    admin::ContractOperation {
        id: it.id.clone(),
        method: it.method.clone(),
        path: it.path.clone(),
        mode: it.mode.map(PolicyMode::word).unwrap_or_default().to_owned(),
        parameters: it.parameters.iter().map(parameter_to).collect(),
        body: it.body.as_ref().map(body),
        responses: it.responses.iter().map(response).collect(),
        summary: it.summary.clone(),
        description: it.description.clone(),
    }
}

fn parameter_to(it: &ContractParameter) -> admin::ContractParameter {
    admin::ContractParameter {
        r#in: it.place.word().to_owned(),
        name: it.name.clone(),
        required: it.required,
        schema: text(it.schema.as_ref()),
        style: it.style.map(ParameterStyle::word).unwrap_or_default().to_owned(),
        explode: it.explode,
    }
}

fn contents_to(list: &[ContractContent]) -> Vec<admin::ContractContent> {
    let encoding = |it: &ContractEncoding| admin::ContractEncoding {
        name: it.name.clone(),
        types: it.types.clone(),
        style: it.style.map(ParameterStyle::word).unwrap_or_default().to_owned(),
        explode: it.explode,
    };
    let content = |it: &ContractContent| admin::ContractContent {
        r#type: it.media.clone(),
        schema: text(it.schema.as_ref()),
        encoding: it.encoding.iter().map(encoding).collect(),
    };
    list.iter().map(content).collect()
}

fn text(schema: Option<&Schema>) -> String {
    schema.map(|it| it.as_str().to_owned()).unwrap_or_default()
}
