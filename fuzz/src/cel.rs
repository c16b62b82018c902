//! Expressions: whatever compiles comes to one answer in bounded time, and logic is logic.

use std::sync::LazyLock;

use quorumgate_proxy::identity::authorize::Statement;
use serde_json::{Value, json};

static OBJECTS: LazyLock<[Value; 3]> = LazyLock::new(|| {
    [
        json!({ "name": "orders", "priority": 7, "labels": { "team": "shop", "env": "prod" }, "hosts": ["a.t", "b.t"],
            "upstream": "u", "limits": [], "timeouts": { "total": "30s" }, "auth": null }),
        json!({ "name": "x", "labels": {}, "hosts": [1, 2.5, "3", [true], { "a": "b" }], "priority": -1 }),
        json!({}),
    ]
});

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(statement) = Statement::compile(text) else { return };
    // A comment in it ends with its line.
    let compile = |text: String| Statement::compile(&text).ok();
    let same = [format!("({text}\n)"), format!("({text}\n) && true"), format!("false || ({text}\n)")].map(compile);
    let not = compile(format!("!({text}\n)"));
    for object in OBJECTS.iter() {
        let holds = statement.holds("routes", object);
        assert_eq!(statement.holds("routes", object), holds, "{text:?} twice of {object}");
        for same in same.iter().flatten() {
            assert_eq!(same.holds("routes", object), holds, "{text:?} written otherwise of {object}");
        }
        if let Some(not) = &not {
            assert!(!(holds && not.holds("routes", object)), "{text:?} and its opposite of {object}");
        }
    }
}
