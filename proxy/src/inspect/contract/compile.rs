//! From a contract's words to what can be asked. All its schemas become one document, `{"schemas": …, "inline": […]}`, so
//! that each is compiled once, whoever refers to it.

use std::collections::HashMap;

use quorumgate_model::{
    invalid::Invalid,
    resource::{
        ContractContent, ContractEncoding, ContractOperation, ContractParameter, ContractPolicy, ParameterStyle,
        PathPiece, Schema, path_segments,
    },
};
use serde_json::{Value, json};

use super::{Answer, Content, Contract, Encoding, Operation, Parameter, Path, Segment, Taken};
use crate::inspect::schema::{Document, Id, Schemas, Shape};

pub(super) fn contract(it: &ContractPolicy) -> Result<Contract, Invalid> {
    let (root, fields) = document(it)?;
    let mut document = Document::new(&root);
    let named = |invalid: Invalid| Invalid { field: field(&invalid.field, &fields), ..invalid };
    for name in root["schemas"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let step = name.replace('~', "~0").replace('/', "~1");
        document.schema(&format!("/schemas/{step}")).map_err(named)?;
    }
    let mut ids = Vec::with_capacity(fields.len());
    for at in 0..fields.len() {
        ids.push(document.schema(&format!("/inline/{at}")).map_err(named)?);
    }
    let schemas = document.finish().map_err(named)?;
    let mut made = Made { schemas: &schemas, ids: ids.into_iter() };
    let operations = it.operations.iter().enumerate();
    let operations = operations
        .map(|(at, words)| made.operation(it, words).map_err(|invalid| invalid.under(format!("operations[{at}]"))))
        .collect::<Result<Vec<_>, _>>()?;
    let paths = paths(&it.operations)?;
    Ok(Contract {
        schemas,
        mode: it.mode,
        responses: it.responses,
        body_max: it.body_max.0,
        unknown: it.unknown_operations,
        operations,
        paths,
    })
}

/// All schemas that stand within operations, in the order of `each`, and the field that each is of.
fn document(it: &ContractPolicy) -> Result<(Value, Vec<String>), Invalid> {
    let value = |field: &str, schema: &Schema| {
        schema.value().map_err(|error| Invalid::field(field).found(error).allowed("JSON that can be read"))
    };
    let (mut inline, mut fields) = (Vec::new(), Vec::new());
    for (at, operation) in it.operations.iter().enumerate() {
        for (field, schema) in each(operation) {
            let field = format!("operations[{at}].{field}");
            inline.push(value(&field, schema)?);
            fields.push(field);
        }
    }
    let schemas = value("schemas", &it.schemas)?;
    Ok((json!({ "schemas": schemas, "inline": inline }), fields))
}

/// In the order in which `Made` takes their ids.
fn each(it: &ContractOperation) -> Vec<(String, &Schema)> {
    let mut all = Vec::new();
    for (at, it) in it.parameters.iter().enumerate() {
        all.extend(it.schema.as_ref().map(|schema| (format!("parameters[{at}].schema"), schema)));
    }
    let body = it.body.iter().map(|it| ("body".to_owned(), &it.content));
    let answers = it.responses.iter().enumerate().map(|(at, it)| (format!("responses[{at}]"), &it.content));
    for (field, list) in body.chain(answers) {
        for (at, it) in list.iter().enumerate() {
            all.extend(it.schema.as_ref().map(|schema| (format!("{field}.content[{at}].schema"), schema)));
        }
    }
    all
}

/// `/inline/2/properties/a` in the words of the file: `operations[0].body.content[0].schema.properties.a`
fn field(pointer: &str, fields: &[String]) -> String {
    let mut steps = pointer.split('/').skip(1);
    let mut field = match steps.next() {
        Some("inline") => {
            let at = steps.next().and_then(|it| it.parse::<usize>().ok());
            at.and_then(|at| fields.get(at)).cloned().unwrap_or_default()
        }
        Some(first) => first.to_owned(),
        None => String::new(),
    };
    for step in steps {
        match step.bytes().all(|it| it.is_ascii_digit()) {
            true => field += &format!("[{step}]"),
            false => field += &format!(".{}", step.replace("~1", "/").replace("~0", "~")),
        }
    }
    field
}

struct Made<'s> {
    schemas: &'s Schemas,
    ids: std::vec::IntoIter<Id>,
}

impl Made<'_> {
    fn id(&mut self, schema: Option<&Schema>) -> Option<Id> {
        schema.and_then(|_| self.ids.next())
    }

    fn operation(&mut self, contract: &ContractPolicy, it: &ContractOperation) -> Result<Operation, Invalid> {
        let mut parameters = Vec::with_capacity(it.parameters.len());
        for (at, words) in it.parameters.iter().enumerate() {
            let parameter = self.parameter(words);
            parameters.push(parameter.map_err(|invalid| invalid.under(format!("parameters[{at}]")))?);
        }
        let body = it.body.as_ref().map(|it| Taken { required: it.required, content: self.contents(&it.content) });
        let answers = it.responses.iter();
        let answers =
            answers.map(|it| Answer { status: it.status.clone(), content: self.contents(&it.content) }).collect();
        Ok(Operation { mode: it.mode.unwrap_or(contract.mode), parameters, body, answers })
    }

    fn contents(&mut self, list: &[ContractContent]) -> Vec<Content> {
        let encoding = |it: &ContractEncoding| Encoding {
            name: it.name.clone(),
            types: it.types.clone(),
            style: it.style(),
            explodes: it.explodes(),
        };
        let content = |it: &ContractContent| Content {
            media: it.media.clone(),
            schema: self.id(it.schema.as_ref()),
            encoding: it.encoding.iter().map(encoding).collect(),
        };
        list.iter().map(content).collect()
    }

    fn parameter(&mut self, it: &ContractParameter) -> Result<Parameter, Invalid> {
        let schema = self.id(it.schema.as_ref()).map(|id| (id, self.schemas.shape(id)));
        let style = it.style();
        let takes_objects = matches!(style, ParameterStyle::Json | ParameterStyle::Deep);
        if !takes_objects && schema.is_some_and(|(_, shape)| shape == Shape::Object) {
            let allowed = "values, lists of them, or style json or deep_object: objects are in no other style";
            return Err(Invalid::field("schema").found("an object").allowed(allowed));
        }
        if style == ParameterStyle::Deep && schema.is_none_or(|(_, shape)| shape != Shape::Object) {
            let allowed = "the schema of an object: deep_object is `name[member]=value`";
            return Err(Invalid::field("schema").found("none of an object").allowed(allowed));
        }
        let (place, name, required) = (it.place, it.name.clone(), it.required);
        Ok(Parameter { place, name, required, schema, style, explodes: it.explodes() })
    }
}

fn paths(operations: &[ContractOperation]) -> Result<HashMap<usize, Vec<Path>>, Invalid> {
    let mut paths: HashMap<usize, Vec<Path>> = HashMap::new();
    for (at, it) in operations.iter().enumerate() {
        let segments = path_segments(&it.path).map_err(|invalid| invalid.under(format!("operations[{at}]")))?;
        let segments: Vec<Segment> = segments.into_iter().map(segment).collect();
        let of_length = paths.entry(segments.len()).or_default();
        let method = (it.method.clone(), at);
        // Names of parameters may differ between the methods of one path: those are two, which both are looked at.
        match of_length.iter_mut().find(|it| it.segments == segments) {
            Some(path) => path.methods.push(method),
            None => of_length.push(Path { segments, methods: vec![method] }),
        }
    }
    let rank = |it: &Segment| match it {
        Segment::Literal(_) => 0,
        Segment::Mixed(_) => 1,
        Segment::Parameter(_) => 2,
    };
    for of_length in paths.values_mut() {
        of_length.sort_by_key(|it| it.segments.iter().map(rank).collect::<Vec<_>>());
    }
    Ok(paths)
}

fn segment(mut pieces: Vec<PathPiece>) -> Segment {
    match (pieces.len(), pieces.pop()) {
        (1, Some(PathPiece::Literal(text))) => Segment::Literal(text),
        (1, Some(PathPiece::Parameter(name))) => Segment::Parameter(name),
        (_, last) => {
            pieces.extend(last);
            Segment::Mixed(pieces)
        }
    }
}
