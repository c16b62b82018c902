//! What becomes of a document, and what is refused with its place.

use clap::Parser;
use quorumgate_model::resource::Resource;
use serde_json::{Value as Json, json};

use super::*;
use crate::cli::{
    args::{Cli, Command, ImportVerb},
    config::{Config, source::Source},
};

fn verb(flags: &str) -> ImportOpenapi {
    let words = ["quorumgate", "import", "openapi", "x.yaml"].into_iter().chain(flags.split_whitespace());
    match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command {
        Command::Import(ImportVerb::Openapi(it)) => *it,
        _ => panic!("another verb"),
    }
}

fn made(document: &str, flags: &str) -> Result<(Vec<Resource>, Vec<String>), String> {
    let read = || {
        let document = Document::parse("x.yaml", document)?;
        objects(&verb(flags), &document)
    };
    read().map(|(objects, notes)| (objects, notes.told)).map_err(|failure| failure.to_string())
}

/// What is printed, as `apply` reads it.
fn printed(document: &str, flags: &str) -> (Json, Vec<String>) {
    let (objects, notes) = made(document, flags).unwrap_or_else(|error| panic!("{error}"));
    let text = file::file(objects.iter()).unwrap();
    let source = Source { name: "made.yaml".into(), path: None, text: text.clone() };
    let config = Config::parse(vec![source]).unwrap_or_else(|failure| panic!("{failure}\n{text}"));
    assert_eq!(config.resources().cloned().collect::<Vec<_>>().len(), objects.len());
    (serde_saphyr::from_str(&text).unwrap(), notes)
}

#[track_caller]
fn refused(document: &str, flags: &str, mentions: &[&str]) {
    let error = made(document, flags).map(|(objects, _)| objects).expect_err("it is refused");
    for mention in mentions {
        assert!(error.contains(mention), "{mention} is not in: {error}");
    }
}

const SHOP: &str = r##"
openapi: 3.0.3
info: { title: The Shop!, version: "1.2" }
servers: [{ url: "https://{stage}.shop.test/v1/", variables: { stage: { default: api } } }]
security: [{ key: [] }]
paths:
  /orders/{id}:
    parameters: [{ $ref: "#/components/parameters/Id" }]
    get:
      operationId: getOrder
      parameters:
        - { in: query, name: fields, explode: false, schema: { type: array, items: { type: string } } }
        - { in: header, name: Authorization, schema: { type: string } }
      responses:
        200: { description: ok, content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } } }
        4xx: { description: no }
    put:
      requestBody: { $ref: "#/components/requestBodies/Order" }
      responses: { default: { description: all } }
components:
  parameters:
    Id: { in: path, name: id, required: true, schema: { type: integer, minimum: 0, exclusiveMinimum: true } }
  requestBodies:
    Order:
      required: true
      content: { application/json; charset=utf-8: { schema: { $ref: "#/components/schemas/Order" } } }
  schemas:
    Order:
      type: object
      description: What was ordered.
      required: [id, sku]
      properties:
        id: { type: integer, readOnly: true }
        sku: { type: string, nullable: true, enum: [a, b] }
        description: { type: string }
        parent: { $ref: "#/components/schemas/Order", nullable: true }
        price: { type: number, multipleOf: 0.01 }
    Unused: { type: object }
  securitySchemes:
    key: { type: apiKey, in: header, name: X-Shop-Key }
"##;

#[test]
fn a_document_becomes_a_route_an_auth_and_a_contract() {
    let (file, notes) = printed(SHOP, "--responses detect");
    assert_eq!(notes, Vec::<String>::new());
    let expected =
        json!({ "name": "the-shop", "targets": ["api.shop.test:443"], "tls": { "server_name": "api.shop.test" } });
    assert_eq!(file["upstreams"], json!([expected]));
    let route = json!({
        "name": "the-shop", "match": { "path_prefix": "/v1" }, "upstream": "the-shop",
        "auth": { "any_of": ["the-shop-key"] }, "policies": ["the-shop"],
    });
    assert_eq!(file["routes"], json!([route]));
    assert_eq!(file["auth"], json!([{ "name": "the-shop-key", "api_key": { "header": "x-shop-key" } }]));
    let policy = &file["policies"][0];
    assert_eq!(policy["description"], "The Shop! 1.2");
    let id =
        json!({ "in": "path", "name": "id", "required": true, "schema": { "type": "integer", "exclusiveMinimum": 0 } });
    let fields = json!({ "in": "query", "name": "fields", "schema": { "type": "array", "items": { "type": "string" } }, "explode": false });
    let answer = json!({ "type": "application/json", "schema": { "$ref": "#/schemas/Order.answer" } });
    let body = json!({ "required": true, "content": [{ "type": "application/json", "schema": { "$ref": "#/schemas/Order" } }] });
    let contract = &policy["contract"];
    assert_eq!(contract["responses"], "detect");
    assert_eq!(
        contract["operations"],
        json!([
            { "id": "getOrder", "method": "GET", "path": "/v1/orders/{id}", "parameters": [id, fields],
              "responses": [{ "status": "200", "content": [answer] }, { "status": "4XX" }] },
            { "method": "PUT", "path": "/v1/orders/{id}", "parameters": [id], "body": body,
              "responses": [{ "status": "default" }] },
        ])
    );
    // `id` is the upstream's to say, and null is a value as any other.
    let order = |parent: &str, required: Json| {
        json!({ "type": "object", "required": required, "properties": {
            "id": { "type": "integer" }, "sku": { "type": ["string", "null"], "enum": ["a", "b", null] },
            "description": { "type": "string" }, "parent": { "$ref": parent }, "price": { "type": "number", "multipleOf": 0.01 },
        } })
    };
    let schemas = json!({
        "Order": order("#/schemas/Order", json!(["sku"])),
        "Order.answer": order("#/schemas/Order.answer", json!(["id", "sku"])),
    });
    assert_eq!(contract["schemas"], schemas);
}

#[test]
fn flags_say_what_the_document_does_not() {
    let (file, _) =
        printed(SHOP, "--name orders --upstream http://10.0.0.1:9000 --host api.test --base-path /x --no-auth");
    assert_eq!(file["upstreams"], json!([{ "name": "orders", "targets": ["10.0.0.1:9000"] }]));
    let route = json!({
        "name": "orders", "match": { "hosts": ["api.test"], "path_prefix": "/x" }, "upstream": "orders", "policies": ["orders"],
    });
    assert_eq!(file["routes"], json!([route]));
    assert_eq!(file["policies"][0]["contract"]["operations"][0]["path"], "/x/orders/{id}");
    let (file, _) = printed(SHOP, "--upstream there-already --auth idp --mode detect");
    assert_eq!(file["upstreams"], Json::Null);
    assert_eq!(
        (&file["routes"][0]["upstream"], &file["routes"][0]["auth"]["any_of"]),
        (&json!("there-already"), &json!(["idp"]))
    );
    assert_eq!(file["policies"][0]["contract"]["mode"], "detect");
}

/// A document with one operation, which asks for `scheme`.
fn asks(scheme: Json, security: Json) -> String {
    json!({
        "openapi": "3.1.0", "info": { "title": "a", "version": "1" }, "servers": [{ "url": "http://u.test" }],
        "paths": { "/x": { "get": { "operationId": "getX", "security": security, "responses": {} } } },
        "components": { "securitySchemes": { "s": scheme, "t": { "type": "http", "scheme": "basic" } } },
    })
    .to_string()
}

#[test]
fn no_route_is_open_because_its_security_could_not_be_translated() {
    let by_s = json!([{ "s": [] }]);
    for (scheme, why) in [
        (json!({ "type": "oauth2", "flows": {} }), "the scheme \"s\" (oauth2) cannot be translated"),
        (json!({ "type": "http", "scheme": "bearer" }), "(http) cannot be translated: it does not say whose tokens"),
        (json!({ "type": "http", "scheme": "digest" }), "only bearer and basic"),
        (json!({ "type": "apiKey", "in": "cookie", "name": "sid" }), "not from cookies"),
        (json!({ "type": "mutualTLS" }), "(mutualTLS)"),
        (
            json!({ "type": "openIdConnect", "openIdConnectUrl": "https://i.test/.well-known/openid-configuration" }),
            "say --audience",
        ),
        (json!({ "type": "openIdConnect", "openIdConnectUrl": "https://i.test/else" }), "does not end in"),
        (json!({ "type": "magic" }), "(magic)"),
        (json!({}), "of no type"),
    ] {
        let document = asks(scheme, by_s.clone());
        refused(&document, "", &["getX", "\"s\"", why, "--auth s=NAME", "--no-auth"]);
        refused(&document, "--open", &[why]);
        let (file, _) = printed(&document, "--auth s=by-hand");
        assert_eq!(file["routes"][0]["auth"], json!({ "any_of": ["by-hand"] }));
        let (file, _) = printed(&document, "--no-auth");
        assert_eq!(file["routes"][0].get("auth"), None);
    }
    let basic = json!({ "type": "http", "scheme": "basic" });
    refused(&asks(basic.clone(), json!([{ "none": [] }])), "", &["getX", "\"none\" is not in the document"]);
    for open in [json!([]), json!([{}])] {
        refused(&asks(basic.clone(), open.clone()), "", &["getX", "no credential", "--open", "--auth NAME"]);
        let (file, _) = printed(&asks(basic.clone(), open), "--open");
        assert_eq!(file["routes"][0].get("auth"), None);
    }
    refused(&asks(basic.clone(), json!([{ "s": [] }, {}])), "--open", &["optional", "--no-auth"]);
    refused(&asks(basic.clone(), json!([{ "s": [], "t": [] }, { "s": [] }])), "", &["more than one credential"]);
    refused(&asks(basic.clone(), json!([{ "s": ["a"] }, { "t": [] }])), "", &["--no-scopes"]);
    let others = asks(basic.clone(), json!([{ "s": ["read"] }, { "t": ["admin"] }]));
    for flags in ["", "--auth s=idp --auth t=partner"] {
        refused(&others, flags, &["getX", "other scopes are asked of one credential than of another", "--no-scopes"]);
    }
    refused(&others, "--auth s=idp --auth t=partner", &["idp with read; partner with admin"]);
    let (file, _) = printed(&others, "--auth s=idp --auth t=partner --no-scopes");
    assert_eq!(file["routes"][0].get("authorize"), None);
    // One auth for both, or the same of each, can be said.
    let (file, _) = printed(&others, "--auth s=idp --auth t=idp");
    let either = json!([{ "allow": { "scopes_all": ["admin"] } }, { "allow": { "scopes_all": ["read"] } }]);
    assert_eq!((&file["routes"][0]["auth"], &file["routes"][0]["authorize"]), (&json!({ "any_of": ["idp"] }), &either));
    let same = asks(basic.clone(), json!([{ "s": ["read"] }, { "t": ["read"] }]));
    let (file, _) = printed(&same, "--auth s=idp --auth t=partner");
    assert_eq!(file["routes"][0]["authorize"], json!([{ "allow": { "scopes_all": ["read"] } }]));
    refused(&asks(basic.clone(), by_s.clone()), "--auth x=y", &["found the scheme \"x\"; allowed: s, t"]);
    let (file, _) = printed(&asks(basic.clone(), json!([{ "s": [], "t": [] }])), "");
    assert_eq!(file["routes"][0]["auth"], json!({ "all_of": ["a-s", "a-t"] }));
    let oidc =
        json!({ "type": "openIdConnect", "openIdConnectUrl": "https://i.test/.well-known/openid-configuration" });
    let (file, _) = printed(&asks(oidc, json!([{ "s": ["read", "list"] }])), "--audience shop");
    assert_eq!(file["routes"][0]["authorize"], json!([{ "allow": { "scopes_all": ["list", "read"] } }]));
    let jwt = json!({ "issuer": "https://i.test", "audience": ["shop"], "discovery": true });
    assert_eq!(file["auth"][0]["jwt"], jwt);
}

#[test]
fn operations_that_ask_for_different_things_have_routes_of_their_own() {
    let document = json!({
        "openapi": "3.0.0", "info": { "title": "a" }, "servers": [{ "url": "http://u.test/v1" }], "security": [{ "t": [] }],
        "paths": {
            "/x": { "get": { "security": [], "responses": {} }, "post": { "responses": {} }, "put": { "responses": {} } },
            "/x/{id}": { "get": { "responses": {} } }, "/x/{name}": { "delete": { "responses": {} } },
        },
        "components": { "securitySchemes": { "t": { "type": "http", "scheme": "basic" } } },
    });
    let (file, _) = printed(&document.to_string(), "--open");
    let told = |it: &Json| {
        let matches = &it["match"];
        let mut methods: Vec<_> =
            matches["methods"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        methods.sort_unstable();
        let path = matches.get("path_exact").or(matches.get("path_template")).unwrap().as_str().unwrap();
        format!("{} {path} {}", methods.join(" "), it.get("auth").map_or("open", |_| "asks"))
    };
    let mut routes: Vec<_> = file["routes"].as_array().unwrap().iter().map(told).collect();
    routes.sort_unstable();
    assert_eq!(routes, ["DELETE GET /v1/x/{id} asks", "GET /v1/x open", "POST PUT /v1/x asks"]);
    let mut mixed = document;
    mixed["paths"]["/x/{id}.json"] = json!({ "get": { "responses": {} } });
    refused(&mixed.to_string(), "--open", &["{id}.json", "--auth NAME"]);
    printed(&mixed.to_string(), "--auth all");
}

#[test]
fn forms_and_objects_in_names_are_written_as_the_document_has_them() {
    let object = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let contract = |media: &str, properties: Json, encoding: Json| {
        let content =
            json!({ media: { "schema": { "type": "object", "properties": properties }, "encoding": encoding } });
        let filter = json!({ "in": "query", "name": "f", "style": "deepObject", "explode": true, "schema": object });
        let operation = json!({ "requestBody": { "content": content }, "parameters": [filter] });
        let document = json!({
            "openapi": "3.1.0", "info": { "title": "a" }, "servers": [{ "url": "http://u.test" }],
            "paths": { "/x": { "post": operation } },
        });
        let (file, notes) = printed(&document.to_string(), "--no-auth");
        let operation = file["policies"][0]["contract"]["operations"][0].clone();
        let expected = json!([{ "in": "query", "name": "f", "style": "deep_object", "schema": object }]);
        assert_eq!(operation["parameters"], expected);
        (operation["body"]["content"][0].clone(), notes)
    };
    let (form, parts) = ("application/x-www-form-urlencoded", "multipart/form-data");
    for (media, properties, encoding, expected) in [
        (
            parts,
            json!({ "o": object, "f": { "type": "string", "format": "binary" } }),
            json!({ "f": { "contentType": "image/png, Image/JPEG" } }),
            json!([{ "name": "f", "types": ["image/png", "image/jpeg"] }]),
        ),
        (
            form,
            json!({ "o": object, "j": object, "l": { "type": "array" }, "m": { "type": "array" } }),
            json!({ "o": { "style": "deepObject", "explode": true }, "j": { "contentType": "application/json" },
                 "l": { "explode": false }, "m": { "style": "pipeDelimited" } }),
            json!([{ "name": "j", "style": "json" }, { "name": "l", "explode": false },
                { "name": "m", "style": "pipe_delimited" }, { "name": "o", "style": "deep_object" }]),
        ),
    ] {
        let (content, notes) = contract(media, properties.clone(), encoding);
        assert!(notes.is_empty(), "{notes:?}");
        let mut list = content["encoding"].as_array().unwrap().clone();
        list.sort_by_key(|it| it["name"].as_str().unwrap().to_owned());
        assert_eq!((Json::Array(list), &content["schema"]["properties"]), (expected, &properties));
    }
    for (media, encoding, mention) in [
        (parts, json!({ "o": { "style": "deepObject" } }), "o is written as deepObject"),
        (form, json!({ "o": { "contentType": "application/xml" } }), "o is written as application/xml"),
        (form, json!({}), "o is an object in a form"),
    ] {
        let (content, notes) = contract(media, json!({ "o": object }), encoding);
        assert_eq!(content, json!({ "type": media }));
        assert!(notes.len() == 1 && notes[0].contains(mention) && notes[0].contains("not checked"), "{notes:?}");
    }
}

#[test]
fn what_cannot_be_checked_is_refused_or_told() {
    let document = |path: &str, operation: Json, schemas: Json| {
        let mut operation = operation;
        operation["operationId"] = json!("op");
        json!({
            "openapi": "3.1.0", "info": { "title": "a" }, "servers": [{ "url": "http://u.test" }],
            "paths": { path: { "post": operation } }, "components": { "schemas": schemas },
        })
        .to_string()
    };
    let parameter = |it: Json| document("/x", json!({ "parameters": [it] }), json!({}));
    let query = |rest: Json| {
        let mut it = json!({ "in": "query", "name": "q" });
        it.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        parameter(it)
    };
    let lossy = "--no-auth --lossy";
    for (document, mention) in [
        (query(json!({ "schema": { "type": "string", "pattern": "(?=a)b" } })), "pattern: found \"(?=a)b\""),
        (query(json!({ "style": "deepObject", "schema": { "type": "string" } })), "q is of style deepObject"),
        (query(json!({ "schema": { "type": "object" } })), "q is an object"),
        (query(json!({ "schema": { "type": "any" } })), "type: found \"any\""),
        (query(json!({ "schema": { "anyOf": [{ "type": "any" }, { "type": "integer" }] } })), "anyOf[0].type"),
        (parameter(json!({ "in": "path", "name": "id", "schema": {} })), "the path has no {id}"),
        (document("/x?a=b", json!({}), json!({})), "found the path \"/x?a=b\""),
    ] {
        refused(&document, "--no-auth", &[mention, "--lossy"]);
        if !document.contains("/x?") {
            let (_, notes) = printed(&document, lossy);
            assert!(notes.len() == 1 && notes[0].contains(mention), "{notes:?}");
        }
    }
    let body = |media: &str, schema: Json| {
        let content = json!({ media: { "schema": schema } });
        document(
            "/x",
            json!({ "requestBody": { "content": content } }),
            json!({ "Loop": { "$ref": "#/components/schemas/Loop" } }),
        )
    };
    refused(
        &body("application/json", json!({ "$ref": "#/components/schemas/Loop" })),
        "--no-auth",
        &["made of itself"],
    );
    refused(&body("application/json", json!({ "$ref": "other.yaml#/x" })), "--no-auth", &["other.yaml#/x", "bundle"]);
    refused(&body("application/json", json!({ "$ref": "#/components/schemas/None" })), lossy, &["nothing is there"]);
    for (media, schema) in [
        ("application/xml", json!({ "type": "object" })),
        ("application/x-www-form-urlencoded", json!({ "properties": { "a": { "type": "object" } } })),
    ] {
        let (file, notes) = printed(&body(media, schema), "--no-auth");
        assert!(notes.len() == 1 && notes[0].contains("not checked"), "{notes:?}");
        assert_eq!(file["policies"][0]["contract"]["operations"][0]["body"]["content"], json!([{ "type": media }]));
    }
    for (document, mention) in [
        ("swagger: '2.0'", "swagger"),
        ("openapi: 4.0.0", "\"4.0.0\"; allowed: an OpenAPI document of version 3.0 or 3.1"),
        ("openapi: 3.0.0\npaths: {}\nservers: [{url: 'http://a.test'}]", "no operation"),
        ("openapi: 3.0.0\npaths: {}", "--upstream"),
        ("a: [", "x.yaml:"),
    ] {
        refused(document, "--no-auth", &[mention]);
    }
}

#[test]
fn schemas_of_3_1_stay_as_they_are() {
    let document = json!({
        "openapi": "3.1.0", "info": { "title": "a" }, "servers": [{ "url": "/v2" }],
        "paths": { "/x": { "post": { "requestBody": { "content": { "application/json": { "schema": {
            "$ref": "#/components/schemas/A", "type": ["object", "null"], "exclusiveMinimum": 3,
            "properties": { "a": { "$ref": "#/components/schemas/A/properties/b" }, "c": { "$ref": "#/paths/~1x/post/x-schema" } },
        } } } }, "x-schema": { "const": 1 } } } },
        "components": { "schemas": { "A": { "properties": { "b": { "type": "string", "title": "t" } } } } },
    });
    let (file, _) = printed(&document.to_string(), "--no-auth --upstream u");
    let contract = &file["policies"][0]["contract"];
    let schema = json!({
        "$ref": "#/schemas/A", "type": ["object", "null"], "exclusiveMinimum": 3,
        "properties": { "a": { "$ref": "#/schemas/A/properties/b" }, "c": { "$ref": "#/schemas/x-schema" } },
    });
    assert_eq!(contract["operations"][0]["body"]["content"][0]["schema"], schema);
    assert_eq!(
        contract["schemas"],
        json!({ "A": { "properties": { "b": { "type": "string" } } }, "x-schema": { "const": 1 } })
    );
    assert_eq!(contract["operations"][0]["path"], "/v2/x");
}

#[test]
fn what_breaks_clients_of_an_older_document_is_told() {
    let newer = SHOP.replace("enum: [a, b]", "enum: [a, b, c]").replace("minimum: 0", "minimum: 7");
    let [old, new] = [SHOP, &newer].map(|text| Document::parse("x.yaml", text).unwrap());
    let lint =
        |flags: &str, old, new| lint(&verb(flags), old, new).map_err(|failure| (failure.exit, failure.to_string()));
    assert_eq!(lint("--against x", &old, &old), Ok(()));
    let (exit, told) = lint("--against x", &old, &new).unwrap_err();
    assert_eq!(exit, Exit::Negative);
    for mention in [
        "error[breaking]: GET /v1/orders/{} id: exclusiveMinimum is narrower now",
        "sku: enum is wider now",
        "--allow-breaking",
    ] {
        assert!(told.contains(mention), "{told}");
    }
    assert_eq!(lint("--against x --allow-breaking", &old, &new), Ok(()));
}

#[test]
fn what_stands_before_paths_and_who_may_ask_are_compared_too() {
    let lint = |flags: &str, old: &str, new: &str| {
        let [old, new] = [old, new].map(|text| Document::parse("x.yaml", text).unwrap());
        lint(&verb(flags), &old, &new).map_err(|failure| failure.to_string())
    };
    let moved = SHOP.replace("shop.test/v1/", "shop.test/v9");
    let told = lint("--against x", SHOP, &moved).unwrap_err();
    for mention in [
        "error[breaking]: the base path is \"/v9\" now, and was \"/v1\"",
        "error[breaking]: GET /v1/orders/{}: the operation is gone",
        "error[breaking]: PUT /v1/orders/{}: the operation is gone",
    ] {
        assert!(told.contains(mention), "{told}");
    }
    assert_eq!(lint("--against x --base-path /x", SHOP, &moved), Ok(()));
    let otherwise = SHOP.replace("shop.test/v1/", "shop.test").replace("  /orders/", "  /v1/orders/");
    assert_eq!(lint("--against x", SHOP, &otherwise), Ok(()));

    let open = SHOP.replace("security: [{ key: [] }]", "security: []");
    let told = lint("--against x", &open, SHOP).unwrap_err();
    let mention = "GET /v1/orders/{}: credentials are asked for now: apiKey x-shop-key in header; before it was none";
    assert!(told.contains(mention), "{told}");
    assert_eq!(lint("--against x", SHOP, &open), Ok(()));
    for flags in ["--against x --no-auth", "--against x --auth idp"] {
        assert_eq!(lint(flags, &open, SHOP), Ok(()), "{flags}");
    }
    // The same key by another name of its scheme; another key.
    let renamed = SHOP.replace("[{ key: [] }]", "[{ other: [] }]").replace("    key: {", "    other: {");
    assert_eq!(lint("--against x", SHOP, &renamed), Ok(()));
    let another = SHOP.replace("X-Shop-Key", "X-Other");
    assert!(
        lint("--against x", SHOP, &another)
            .unwrap_err()
            .contains("apiKey x-other in header; before it was apiKey x-shop-key")
    );
    assert_eq!(lint("--against x --auth key=keys", SHOP, &another), Ok(()));
}

#[test]
fn what_stands_beside_a_parameter_stays() {
    let check = |path: &str, expected: &str| {
        let document = json!({
            "openapi": "3.1.0", "info": { "title": "a" }, "servers": [{ "url": "http://u.test/v1" }],
            "paths": { path: { "get": { "responses": {} } } },
        });
        let (file, notes) = printed(&document.to_string(), "--no-auth");
        assert_eq!(notes, Vec::<String>::new(), "{path}");
        assert_eq!(file["policies"][0]["contract"]["operations"][0]["path"], expected, "{path}");
    };
    check("/files/{name}.{ext}", "/v1/files/{name}.{ext}");
    check("/f/.{a}", "/v1/f/.{a}");
    check("/f/..{a}", "/v1/f/..{a}");
    check("/f/{name}.", "/v1/f/{name}.");
    check("/f/{a};{b}", "/v1/f/{a};{b}");
    check("/f/{a}%7e%2d{b}", "/v1/f/{a}~-{b}");
    check("/f/x.y", "/v1/f/x.y");
}

/// What portals give out, and the contract that it is made of; the proxy's own tests make the one of the other.
const DOCUMENTED: &str = include_str!("../../../../proxy/tests/data/portal-document.json");

#[test]
fn the_document_of_a_portal_becomes_the_contract_that_it_is_made_of() {
    let documented: Json = serde_json::from_str(DOCUMENTED).unwrap();
    let (file, notes) = printed(&documented["document"].to_string(), "--no-auth");
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(file["policies"][0]["contract"]["operations"], documented["operations"]);
}
