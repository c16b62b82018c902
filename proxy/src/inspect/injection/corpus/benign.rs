//! Requests as APIs get them, from shapes and texts that look a little like attacks here and there: apostrophes, words of SQL,
//! code, addresses, markup, arithmetic. Made by a generator of fixed numbers.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Sample;

const COUNT: usize = 5_600;

/// What people write.
const TEXTS: &[&str] = &[
    "It's a lovely day, isn't it?",
    "Don't forget O'Brien's and D'Angelo's orders",
    "rock 'n' roll",
    "The dogs' owners' association",
    "He said \"hello\" and left",
    "\"Good\" and 'bad' examples",
    "Please select an option from the drop-down menu",
    "The union will select delegates from each table",
    "Drop the table off at the warehouse; insert coins to continue",
    "Update your settings where needed and delete from the list what you don't want",
    "Where can I order by phone? Having 2 or more kids helps",
    "Create a table with 4 legs and a view of the sea",
    "1 or 2 items are missing",
    "We need 3 and 4, or 5 at most",
    "2 + 2 = 4 and 3 * 3 = 9",
    "if x = 3 and y = 4 then x < y",
    "a < b && c > d",
    "x > 0 || y < 0",
    "f(x) = a*x^2 + b*x + c; g(x) = sin(x)/x",
    "E = mc^2",
    "P(A|B) = P(B|A) * P(A) / P(B)",
    "for all e > 0 there is d > 0 with |x - a| < d",
    "sum_{i=1}^{n} i = n(n+1)/2",
    "50% off -- today only!",
    "100% cotton; 30 degrees & no bleach",
    "Terms & Conditions apply",
    "AT&T, Johnson & Johnson, R&D",
    "Name & ID",
    "Fish & Chips; salt & vinegar",
    "Tom & Jerry | Season 2",
    "Call me at +1 (555) 010-2030 # ask for Ann",
    "Room #12, floor 3",
    "#winning #1",
    "C# and F# developers wanted",
    "I <3 Rust :-) ;-)",
    "<b>bold</b> and <i>italic</i>",
    "<p>A paragraph with <a href=\"https://example.com/page?a=1&b=2\">a link</a>.</p>",
    "<ul><li>One</li><li>Two</li></ul>",
    "<h1>Title</h1><br/><hr>",
    "<div class=\"note\">Note</div>",
    "<img src=\"https://cdn.example.com/a.png\" alt=\"A photo\">",
    "List<String> and Map<K, V>",
    "std::vector<int> v = {1, 2, 3};",
    "if (a < b && c > d) { return x; }",
    "for (let i = 0; i < n; i++) { total += items[i].price; }",
    "const f = (a, b) => a + b;",
    "console.log(`Hello, ${name}!`);",
    "let total = price * (1 + taxRate); // with tax",
    "function add(a, b) { return a + b; }",
    "def add(a, b):\n    return a + b",
    "print(\"hello world\")",
    "import os\nimport sys\n\nprint(sys.argv[1:])",
    "fn main() { println!(\"hello\"); }",
    "time.sleep(5)",
    "Thread.sleep(1000);",
    "SELECT id, name FROM customers WHERE active = 1 ORDER BY name",
    "INSERT INTO logs (level, message) VALUES (?, ?)",
    "npm install && npm run build",
    "cd project && make test",
    "git commit -m \"fix: don't crash\" | tee log.txt",
    "Use `ls -la` to list files and `id` to see who you are",
    "Run `docker compose up -d`; then open the page",
    "kubectl get pods -n default | grep web",
    "#include <stdio.h>\nint main(void) { return 0; }",
    ".card { color: #333; background: url(\"/img/bg.png\"); }",
    "@media (max-width: 600px) { .nav { display: none; } }",
    "<Button onClick={save} disabled={!valid}>Save</Button>",
    "<template>{{ user.name }}</template>",
    "Hello {{first_name}}, your order {{order_id}} has shipped",
    "Dear {{ customer.name }}, {{#if vip}}thank you{{/if}}",
    "Hi ${name}, you owe ${amount}",
    "{% if user %}Hello {{ user }}{% endif %}",
    "<%= user.name %>",
    "C:\\Users\\Ann\\Documents\\report.docx",
    "/home/ann/projects/readme.md",
    "\\\\server\\share\\folder",
    "./src/main.rs",
    "../images/logo.png",
    "/usr/local/bin",
    "and/or, he/she, 24/7, km/h",
    "src/../lib is the same as lib",
    "see ../README.md and ./docs/index.md",
    "https://example.com/a/b?c=d&e=f#g",
    "https://www.example.org/search?q=select+all&from=2026-01-01",
    "http://api.partner.example.net:8443/v1/hooks/7",
    "https://hooks.example.com/services/T000/B000/XXXX",
    "http://localhost:3000/callback",
    "http://127.0.0.1:51234/callback",
    "https://user.example.io/~ann/index.html",
    "ftp://ftp.example.com/pub/file.tar.gz",
    "mailto:ann@example.com?subject=Hello",
    "tel:+15550102030",
    "data:image/png;base64,iVBORw0KGgo=",
    "redis://cache.example.com:6379/0",
    "postgres://app@db.example.com:5432/orders",
    "s3://bucket/key/part-0001.parquet",
    "arn:aws:iam::123456789012:role/Admin",
    "urn:uuid:0190f1c2-7a3b-7c4d-8e5f-001122334455",
    "name eq 'Milk' or name eq 'Eggs'",
    "status = \"open\" and priority = \"high\"",
    "title = 'a' and price > 3",
    "project = ABC AND status in (Open, \"In Progress\") ORDER BY created DESC",
    "price gt 10 and (category eq 'a' or category eq 'b')",
    "-created,name",
    "fields[articles]=title,body&include=author",
    "*/5 * * * *",
    "0 0 1 1 * ? *",
    "^[a-z0-9]+(-[a-z0-9]+)*$",
    "\\d{3}-\\d{4}|\\w+@\\w+\\.com",
    "(?i)error|warn(ing)?",
    "2026-11-25T14:00:00+01:00",
    "P1DT12H",
    "192.0.2.7",
    "2001:db8::1",
    "10.0.0.0/8",
    "application/vnd.api+json; version=2",
    "max-age=3600, public",
    "W/\"67ab43\"",
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
    "ERROR: connection to 10.2.3.4:5432 refused; retrying in 5s (attempt 3 of 10)",
    "at com.example.orders.OrderService.place(OrderService.java:42)",
    "Traceback (most recent call last): File \"app.py\", line 3, in <module>",
    "{\"nested\": \"json\", \"n\": [1, 2, {\"a\": null}]}",
    "key=value; other='quoted value'; n=3",
    "- item one\n- item two\n  - nested; with (parens) & ampersand",
    "| id | name | price |\n|---|---|---|\n| 1 | Ann's tea | $3.50 |",
    "**Bold** _italic_ [link](https://example.com) `code` ~~gone~~",
    "```js\nconst x = await fetch(url);\n```",
    "Alert (important): prompt payment is due; confirm by mail",
    "Learn JavaScript: The Good Parts",
    "javascript, typescript; html & css",
    "Our document.pdf and window.frame are attached",
    "Evaluate expression (a + b) * c",
    "Cat food; dog food; fish & more",
    "ping me when you're done; sleep well",
    "Who am I? I'm the host; find me at the bar",
    "more or less; head to tail",
    "let me echo that: type A, sort B",
    "Admin's guide -- chapter 3",
    "Müller & Söhne GmbH, Straße 5",
    "L'été à la plage, c'est l'amour; d'accord?",
    "日本語のテキスト、「引用」と『括弧』",
    "Привет, мир! 'кавычки' и \"ещё\"",
    "🎉 10/10 would buy again!!! :)",
    "Size: 5' 11\" (180 cm)",
    "12\" pizza or 14\" pizza",
    "6'2\" and 200 lbs",
    "width=5;height=3",
    "a=1&b=2&c=3",
    "$5 < $10 and 5% > 1%",
    "$(document).ready(init)",
    "$('#id').addClass(\"on\")",
    "x = y ? a : b; // ternary",
    "#!/bin/sh",
    "0x7f 0b1010 1e-9",
    "1,234.56 - (78.9 / 3) * 2",
    "SELECT * FROM t",
    "update: fixed; from: v1, to: v2",
    "group by color or size",
    "Union Square, 3rd & Main",
    "exec summary; declare intent",
    "int like char, cast as iron",
    "null and void; true or false?",
    "like 5 = five",
    "and 1 more thing: 2 = two",
    "You can win 1 or 10 = great",
    "Version 1.0 -- \"final\"",
    "Path: /api/v1/users/{id}/orders",
    "Set X; then (maybe) unset Y",
    "Monday-Friday; 9am-5pm @ HQ",
    "ann+test@example.com",
    "=SUM(A1:A10)",
    "[x] done [ ] open",
    "R = {x | x > 0}",
    "net user growth; at & around 5%",
    "a | b | c",
    "tax id; vat id; env",
    "dir: left; set: 3",
    "The field `order_id` is null for guests",
    "Set `android` > 12 as minimum",
    "`origin` = the browser's origin",
    "the header `origin` != host",
    "rename `organization` in (admin) panel",
    "Column `orders` in (all) views",
    "# Fix\nUse `origin` = `*`",
    "use `and` like this",
    "`or` is not `and`; `xor` = `or` and not `and`",
    "Either `a` or `b` = `c` will do",
    "`x` and (`y` or `z`)",
    "type foo = union select { a, b }",
];

const NAMES: &[&str] =
    &["Ann", "O'Neil", "D'Arcy", "Zoë", "Björn", "Li Wei", "Nguyễn", "Mary-Jane", "Sean O'Casey", "Drop Table Jones"];
const WORDS: &[&str] =
    &["shoes", "select", "blue", "union jack", "order", "table", "where", "café", "drop", "x-large", "and", "script"];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "okhttp/4.12.0",
    "MyApp/3.2 (build 417; Android 14; en-US)",
];

/// A fixed sequence of numbers (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn id(&mut self) -> String {
        format!(
            "{:08x}-{:04x}-7{:03x}-9{:03x}-{:012x}",
            self.below(1 << 31),
            self.below(1 << 16),
            self.below(1 << 12),
            self.below(1 << 12),
            self.below(1 << 31)
        )
    }

    fn token(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length).map(|_| char::from(LETTERS[self.below(64)])).collect()
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(super) fn all() -> Vec<Sample> {
    let mut numbers = Numbers(7);
    // Each text at least once by itself, in a query and in JSON.
    let mut all: Vec<Sample> = Vec::new();
    for text in TEXTS {
        all.push(Sample { uri: format!("/search?q={}", encoded(text)), fields: Vec::new(), body: None });
        let body = Some(("application/json", json!({"comment": text}).to_string()));
        all.push(Sample { uri: "/comments".into(), fields: Vec::new(), body });
    }
    while all.len() < COUNT {
        all.push(request(&mut numbers));
    }
    all
}

fn request(n: &mut Numbers) -> Sample {
    let mut fields = vec![
        ("user-agent", n.of(AGENTS).to_owned()),
        (
            "referer",
            format!(
                "https://shop.example.com/{}/{}?utm_source=mail&ref={}",
                n.of(WORDS).replace(' ', "-"),
                n.below(1000),
                n.below(99)
            ),
        ),
    ];
    if n.below(2) == 0 {
        fields.push((
            "cookie",
            format!(
                "sid={}; theme=dark; consent=a%3D1%26b%3D2; _ga=GA1.2.{}.{}",
                n.token(40),
                n.below(1 << 30),
                n.below(1 << 30)
            ),
        ));
    }
    if n.below(3) == 0 {
        fields.push(("x-request-id", n.id()));
        fields.push(("x-forwarded-for", format!("192.0.2.{}, 10.0.0.{}", n.below(256), n.below(256))));
    }
    let (uri, body) = match n.below(10) {
        0 => (
            format!(
                "/api/v2/products?category={}&price[gte]={}&sort=-created_at&page={}",
                encoded(n.of(WORDS)),
                n.below(500),
                n.below(50)
            ),
            None,
        ),
        1 => (format!("/api/users/{}/orders/{}?expand=items,customer", n.id(), n.below(1 << 20)), None),
        2 => (format!("/search?q={}&lang=en-GB&from=2026-0{}-01", encoded(n.of(TEXTS)), 1 + n.below(9)), None),
        3 => ("/api/orders".into(), Some(("application/json", order(n).to_string()))),
        4 => ("/api/comments".into(), Some(("application/json", comment(n).to_string()))),
        5 => ("/contact".into(), Some(("application/x-www-form-urlencoded", form(n)))),
        6 => ("/graphql".into(), Some(("application/json", graphql(n).to_string()))),
        7 => ("/api/events/batch".into(), Some(("application/json", events(n).to_string()))),
        8 => ("/api/notes".into(), Some(("text/plain", n.of(TEXTS).to_owned()))),
        _ => ("/api/documents".into(), Some(("application/json", document(n).to_string()))),
    };
    Sample { uri, fields, body }
}

fn order(n: &mut Numbers) -> Value {
    let items: Vec<_> = (0..1 + n.below(6))
        .map(|_| json!({"sku": format!("SKU-{}", n.below(99_999)), "qty": 1 + n.below(9), "price": n.below(99_999) as f64 / 100.0, "note": n.of(TEXTS)}))
        .collect();
    json!({
        "id": n.id(),
        "customer": {"name": n.of(NAMES), "email": format!("{}.{}@example.com", n.token(5), n.below(99)), "phone": format!("+44 20 7946 0{}", n.below(999))},
        "address": {"street": format!("{} O'Connell St, Apt #{}", n.below(300), n.below(40)), "city": "Baile Átha Cliath", "zip": n.below(99_999).to_string()},
        "items": items,
        "paid": n.below(2) == 0,
        "created": "2026-11-25T14:00:00.123Z",
    })
}

fn comment(n: &mut Numbers) -> Value {
    let text = (0..1 + n.below(4)).map(|_| n.of(TEXTS)).collect::<Vec<_>>().join(". ");
    json!({"author": n.of(NAMES), "text": text, "rating": n.below(6), "tags": [n.of(WORDS), n.of(WORDS)]})
}

fn form(n: &mut Numbers) -> String {
    let (name, text) = (encoded(n.of(NAMES)).replace("%20", "+"), encoded(n.of(TEXTS)).replace("%20", "+"));
    format!("name={name}&message={text}&csrf={}&agree=on", encoded(&n.token(44)))
}

fn graphql(n: &mut Numbers) -> Value {
    let query = "query Orders($id: ID!, $first: Int = 10) { customer(id: $id) { name orders(first: $first, where: {status: OPEN}) { edges { node { id total items { sku } } } } } }";
    json!({"operationName": "Orders", "query": query, "variables": {"id": n.id(), "note": n.of(TEXTS)}})
}

fn events(n: &mut Numbers) -> Value {
    let event = |n: &mut Numbers| json!({"type": "page_view", "url": format!("https://shop.example.com/p/{}?color={}", n.below(9999), n.of(WORDS)), "title": n.of(TEXTS), "ts": 1_795_000_000u64 + n.below(1 << 20) as u64, "session": n.token(32)});
    Value::Array((0..3 + n.below(10)).map(|_| event(n)).collect())
}

fn document(n: &mut Numbers) -> Value {
    let paragraphs: Vec<_> = (0..3 + n.below(8)).map(|_| n.of(TEXTS)).collect();
    json!({"title": n.of(TEXTS), "html": format!("<p>{}</p>", n.of(NAMES)), "paragraphs": paragraphs, "attachment": n.token(900), "path": "/docs/2026/report (final).pdf"})
}
