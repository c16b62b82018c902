//! What attacks look like once they are decoded (`normal`): lower case, one space at most. Each pattern says how sure it is: 5
//! is an attack by itself, less needs company in the same value. All are linear, whatever they are held against.
//!
//! What begins with `^[^'"]*'` is the first quote of the value: it ends a text of the server's, where a later one may only
//! end what the value itself began, as in `name = 'a' or age > 3`.

use quorumgate_model::resource::InjectionClass::{self, *};

pub(super) const PATTERNS: &[(InjectionClass, &[(u8, &str)])] = &[
    (
        Sqli,
        &[
            (
                5,
                r#"(^|[^a-z_]|\\n)union[ (]*(all|distinct(row)?)?[ (]*select ?[( ]*(null|\*|[-+~!]?[0-9'"`@]|[a-z_][a-z0-9_.$]*[`") ]*(as [a-z0-9_]+ ?)?([,(]|from\b)|concat|char|version|database|user|sleep)"#,
            ),
            (
                5,
                r#"^[^'"]*['"] ?\)* ?(or|and|xor|\|\||&&) ?\(* ?(not )?['"`]?[a-z0-9_.@]*['"`]? ?\)* ?(=|<|>|!=|like\b|is (not )?null|in ?\(|between\b|rlike\b|regexp\b|sounds\b)"#,
            ),
            // Code in Markdown begins with a back quote too: both sides have to be names in such, texts or numbers.
            (
                5,
                r#"^[^`]*` ?\)* ?(or|and|xor|\|\||&&)( ?\(* ?(not )?`[a-z0-9_.]+` ?\)* ?(=|<|>|!=|like) ?\(* ?`|[ (]+(not )?['"]?-?[0-9a-z]+['"]? ?\)* ?(=|<|>|!=|like) ?\(* ?['"0-9-])"#,
            ),
            (5, r#"^[^'"]*['"] ?\)* ?(or|\|\||and|&&) ?\(* ?(not )?(true|false|1|0)\b ?\)* ?(--|#|;|/\*|$)"#),
            (
                5,
                r#"^[^ ]* ?['")]* ?(or|and|xor|\|\||&&) ?\(* ?(not )?-?[0-9]+ ?\)* ?(=|<|>|!=|<>|like|between) ?\(* ?-?[0-9]+"#,
            ),
            (5, r#"^-?[0-9]*['")]* (or|and|\|\||&&) (not )?(true|false)\b"#),
            (5, r#"^-?[0-9]+['"`)]* ?(or|and|\|\||&&) ?\(* ?['"`]([a-z0-9_]*)['"`] ?\)* ?(=|like) ?\(* ?['"`]"#),
            (5, r#"^[^'"]*['"] ?\)* ?;? ?(--|#|/\*)[ +!-]*$"#),
            (3, r#"^[^'"]*['"]\)* ?(--|#)"#),
            (2, r#"(--|#|/\*)[ +!-]*$"#),
            (5, r#"^'? ?[=<>^*+|&-]+ ?'[^a-z]*$"#),
            (5, r#"[0-9'")] ?; ?(drop|alter|truncate) (table|database|schema|view|user|index|column)\b"#),
            (
                5,
                r#"^[^;]{0,40}['")0-9] ?; ?(insert into|delete from|update [a-z_.]+ set|exec(ute)? |declare @|select |shutdown\b|waitfor |create (user|table|database|function)|grant |if ?\()"#,
            ),
            (5, r#"\bwaitfor (delay|time) ?['"]"#),
            (
                5,
                r#"\b(pg_sleep|benchmark|dbms_pipe\.receive_message|dbms_lock\.sleep|dbms_session\.sleep|load_file|randomblob|lo_import|load_extension) ?\("#,
            ),
            (
                5,
                r#"(^|\b(and|or|xor|select|then|when|union|else) |[=,'|(+;-]) ?\(* ?(select ?\(* ?)?sleep ?\( ?[0-9]+ ?\) ?(\)|#|--|,|and\b|or\b|=|'|"|$)"#,
            ),
            (
                5,
                r#"\b(extractvalue|updatexml|gtid_subset|exp ?\(~|json_keys ?\(\(|polygon ?\(\(select)\b? ?\(? ?[^,]{0,40},? ?(concat|\(select|0x7e|select)"#,
            ),
            (5, r#"\b(utl_http|utl_inaddr|utl_file|dbms_xmlgen|dbms_ldap|dbms_java|ctxsys\.)[._a-z]"#),
            (5, r#"\b(xp_cmdshell|xp_dirtree|xp_regread|xp_fileexist|sp_executesql|sp_oacreate|sp_makewebtask)\b"#),
            (5, r#"\binto (out|dump)file ?['"]"#),
            (5, r#"@@(version|datadir|hostname|basedir|servername|language|global\.)"#),
            (4, r#"\b(information_schema|pg_catalog|mysql)\.(tables|columns|schemata|user|innodb|pg_|routines)"#),
            (
                4,
                r#"\b(sqlite_master|sysobjects|syscolumns|all_tables|user_tables|pg_shadow|pg_tables|all_tab_columns|msysaccessobjects)\b"#,
            ),
            (5, r#"^-?[0-9]*['")]* ?\)* (order|group) by [0-9]+( ?, ?[0-9]+)* ?(asc|desc)? ?(--|#|/\*|$)"#),
            (5, r#"^[^'"]*['"] ?\)* (order|group) by [a-z0-9_.]+"#),
            (5, r#"^([^'"]*['"]|-?[0-9]+)\)* ?(having|where) ['"]?[a-z0-9_]+['"]? ?(=|>|<|like)"#),
            (3, r#"\( ?select[ (`][^)]*\)* ?\bfrom\b"#),
            (
                4,
                r#"\( ?select (count ?\(|ascii|substr|char|case|user|version|database|sleep|\*|[0-9]|@@|table_name|column_name|password|group_concat|load_)"#,
            ),
            (
                5,
                r#"^[^'"]*['"] ?\)* ?(;|\|\||\+|,|and|or|&&|-|\*|/) ?\(* ?(select|union|ascii|substr|substring|exists|case when|char|convert|cast|sleep|benchmark|if|extractvalue|updatexml|chr|version|user|database) ?\("#,
            ),
            (
                5,
                r#"^[^'"]*['"] ?\)* ?(;|\|\||\+|,|and|or|&&|-)? ?\(* ?(select|union|insert into|delete from|drop table|update [a-z_]+ set|procedure analyse|case when|rlike|limit [0-9]|group by|exec) "#,
            ),
            (
                5,
                r#"^-?[0-9]+['")]* ?(and|or|&&|\|\||,|;|-|\+|\*|\^|div|mod|rlike|like|procedure) ?\(* ?(select|ascii|substr|substring|exists|case when|if|sleep|extractvalue|updatexml|length|ord|mid|char|chr|cast|convert|version|database|user|analyse|benchmark) ?[( ]"#,
            ),
            (
                5,
                r#"\b(ascii|ord|substring|substr|mid|length|hex|char_length) ?\( ?\(? ?(substring|substr|mid|select|database ?\(|user ?\(|version ?\(|current_|@@)"#,
            ),
            (3, r#"\bcase when\b.*\bthen\b.*\bend\b"#),
            (
                3,
                r#"\b(group_concat|concat_ws|concat) ?\( ?(0x|char|table_name|column_name|username|user|password|@@|version|database)"#,
            ),
            (3, r#"\bchar ?\( ?[0-9]+ ?\) ?[+|,]"#),
            (5, r#"\b(from|table) (information_schema|dual\b|mysql\.|users?\b ?(--|#|where))"#),
            (4, r#"['"] ?(\|\||\+) ?\(? ?(select|chr|char|user|version|database|utl_|dbms_|sys)"#),
            (2, r#"\bselect\b.*\bfrom\b"#),
            (2, r#"\b(cast|convert) ?\(.* as (int|numeric|char|varchar|signed)"#),
            (5, r#"^['"]?\)*;? ?(shutdown|drop|exec|declare)\b[^'"]*(--|#)"#),
            (5, r#"\{ ?"?\$where"? ?:|\[\$(ne|gt|gte|lt|nin|regex|where|exists)\]"#),
            (
                5,
                r#"^' ?\|\| ?'?[^|]*'? ?\|\| ?'|^\|\|'?1'?==?'?1|' ?&& ?this\.|^[^'"]*['"] ?(\|\||&&) ?['"]?1['"]? ?== ?"#,
            ),
        ],
    ),
    (
        Xss,
        &[
            (5, r"< ?/? ?script[ />:]|< ?script$|<[a-z0-9]+:script"),
            (5, r#"<[a-z!/?][^<>]*[ /"'`]on[a-z]{3,30} ?= ?[^{ ]"#),
            (
                5,
                r#"["'`][ /]*on(error|load|focus|focusin|click|dblclick|mouse[a-z]+|pointer[a-z]+|blur|key[a-z]+|submit|change|input|toggle|animation[a-z]+|transition[a-z]+|drag[a-z]*|drop|copy|cut|paste|wheel|scroll[a-z]*|hashchange|message|pageshow|begin|end|start|finish|resize|auxclick|contextmenu|select[a-z]*|beforeinput) ?="#,
            ),
            (5, r#"^ ?['"]?[^ a-z]*j ?a ?v ?a ?s ?c ?r ?i ?p ?t ?: ?[^ ]"#),
            (5, r"\b(java ?script|vbscript|livescript) ?:[ /*%0a-f]*[a-z_$.\[]+ ?[(`\[=.]"),
            (
                5,
                r#"\b(href|src|action|formaction|data|xlink:href|background|poster|to|from|values|srcdoc|code|dynsrc|lowsrc)['"]? ?= ?['"`]? ?[^ a-z]*(java ?script|vbscript|data) ?: ?[^/ ]?(text/html|image/svg|[a-z]+[(`\[.:]|[^a-z ])"#,
            ),
            (5, r"\bdata:(text/html|image/svg\+xml|application/xhtml|text/xml)[;,]"),
            (
                5,
                r"<(iframe|object|embed|applet|frameset|frame|isindex|marquee|xss|portal|bgsound|layer|ilayer|keygen)\b[ />]",
            ),
            (
                5,
                r#"<(base|link|meta)\b[^>]*(href|http-equiv|content) ?= ?['"]?[^>]*(javascript|//|data:|refresh|;url|\.css|\.js)"#,
            ),
            (
                2,
                r"<(svg|math|details|template|noscript|style|form|body|html|textarea|title|animate|set|foreignobject|use|video|audio|source|input|select|button|img|image)\b",
            ),
            (3, r"\b(alert|confirm|prompt|eval|settimeout|setinterval|atob)[(`] ?[^)]"),
            (
                4,
                r"\bdocument ?(\.|\[['\x22]?) ?(cookie|write|writeln|location|domain|body|documentelement|baseuri|url|defaultview)",
            ),
            (
                3,
                r"\b(window|self|top|parent|frames|globalthis|this|location) ?(\[ ?['\x22`(/]|\. ?(location|name|open|href) ?=)",
            ),
            (3, r"\bstring ?\. ?fromcharcode|\bfromcodepoint|\bunescape ?\(|\batob ?\("),
            (
                5,
                r#"\bstyle ?= ?['"]?[^>]*(expression ?\(|behaviou?r ?:|-moz-binding|javascript:|url ?\( ?['"]?(javascript|data))"#,
            ),
            (5, r"\bsrcdoc ?="),
            (
                5,
                r#"^[^'"`]*['"`]\)*\}* ?[;\-+*,|&/^%<>?:]+ ?[({\[]* ?(alert|confirm|prompt|eval|fetch|print|document|window|location|self|top|import|function|settimeout|new image|\$\.)\b ?[(`.\[=]"#,
            ),
            (5, r#"^[^'"`<]*['"`]? ?/?> ?<[a-z/!]"#),
            (5, r#"^(</[a-z]+>|-->|\]\]>|\*/)+ ?<[a-z/!]"#),
            (
                3,
                r#"^[^'"`]*['"`][ /]*(autofocus|tabindex|style|accesskey|src|href|onfocus|contenteditable|popover)[ =/>]"#,
            ),
            (
                5,
                r"\[\]\[(\(!|'filter'|\x22filter\x22|\(\[)|\(!\[\]\+\[\]\)|\[\] ?\[ ?['\x22`](filter|flat|map|constructor|sort)['\x22`]",
            ),
            (5, r"\bconstructor ?[.(\[] ?['\x22`(]?(constructor|alert|return)"),
            (5, r"<!\[cdata\[ ?<|<!--\[if|<\?xml-stylesheet|<!entity|<!doctype [^>]*(system|public|\[)|<!attlist"),
            (
                5,
                r"\bxlink:href ?=|\bimport ?\( ?['\x22`]?(data|https?|//)|@import ?['\x22(]? ?(url|['\x22]?//|['\x22]?javascript|['\x22]?https?)",
            ),
            (5, r"\b(throw|onerror ?=) ?[^ ]*(alert|eval|prompt|confirm)|\{onerror ?="),
            (2, r"//[ -]*$|<!--|-->|//<|\*/$"),
        ],
    ),
    (
        Traversal,
        &[
            (5, r"(\.\.[/\\]+){3,}"),
            (4, r"(\.\.[/\\]+){2}"),
            (3, r"(^|[/\\=:&?])\.\.[/\\]"),
            (
                5,
                r"\.\.;[/\\]|\.{3,}[/\\]+\.{3,}[/\\]|(\.{3,}[/\\]+){2,}|\.\.[/\\]*\\\.\.|\.\.//\.\.|\.\.0x2f|\.\.%2f|\.\.%5c|(\.\.[^a-z0-9. ,!?]{2,4}){2,}",
            ),
            (
                5,
                r"[/\\]etc[/\\]+(\.[/\\])*(passwd|shadow|sudoers|group|gshadow|crontab|ssh[/\\]|issue|master\.passwd|security|apache2|nginx|httpd|mysql|fstab|inittab|profile)",
            ),
            (4, r"[/\\]etc[/\\]+(hosts|hostname|resolv\.conf|os-release|motd)"),
            (5, r"\betc[/\\]+(passwd|shadow)\b"),
            (5, r"[/\\]proc[/\\]+(self|version|cpuinfo|mounts|net|cmdline|[0-9]+)\b"),
            (
                5,
                r"\b(windows|winnt|system32)[/\\]+(win\.ini|system32|system\.ini|repair|drivers|php\.ini|panther|debug|system)\b",
            ),
            (5, r"\b(boot|win|system)\.ini\b"),
            (5, r"[/\\](web-inf|meta-inf)[/\\]|\bweb-inf[/\\]"),
            (
                5,
                r"(^|[/\\])\.(ssh|aws|git|svn|hg|docker|kube|gnupg|bash_history|mysql_history|htpasswd|htaccess|env|npmrc|netrc)([/\\](id_|config|credentials|authorized_keys|head|index|entries|logs)|$)",
            ),
            (
                5,
                r"[/\\](var|usr)[/\\]+(log|local|lib|www|run|spool)[/\\]+(auth|apache|nginx|httpd|secure|messages|syslog|mail|mysql|secrets|docker\.sock|html[/\\]+config|cron)",
            ),
            (5, r"[/\\](root|home[/\\][a-z0-9_]+)[/\\]+\.(ssh|bash_history|bashrc|aws)"),
            (
                5,
                r"^(file|php|phar|zip|expect|glob|compress\.zlib|netdoc|jar):[/\\]{1,}|php://(filter|input)|^data://text",
            ),
            (4, r"^[/\\]{0,2}[a-z]:[/\\](windows|winnt|inetpub|boot|users[/\\]administrator|program files|autoexec)"),
            (
                5,
                r"\b(inetpub|wwwroot)[/\\]+(wwwroot|web\.config|logs)|[/\\]web\.config$|[/\\]wp-config\.php|[/\\]global\.asa|[/\\]id_(rsa|dsa|ed25519|ecdsa)\b|[/\\]\.{1,2}[/\\].*config\.(php|inc)",
            ),
        ],
    ),
    (
        Command,
        &[
            (
                5,
                r"[;|&][ '\x22]*(whoami|uname|ipconfig|ifconfig|systeminfo|tasklist|printenv|netstat|hostname|pwd|lsof|wmic|getent|last|arp|route print|ver)\b[ '\x22]*($|[;|&`#<>)]|-[a-z])",
            ),
            (5, r"(;|\|\|?|&&)[ '\x22]*(ls|ps)\b( -[a-z]+| /[a-z.]| ~|$|[;|&#`)])"),
            (5, r"(;|\|\|?|&&)(dir|env|set|w|df|mount)\b( -[a-z]+| /[a-z.]|$|[;|&#`)])|(;|\|\|?|&&) ?dir [a-z]:"),
            (5, r"& ?(dir|ls)( /[a-z]| -[a-z]| [a-z]:|$)"),
            (5, r"(;id|\|id|\|\| ?id|&& ?id|; id;|& ?id ?&)\b ?($|[;|&#`>)])"),
            (
                5,
                r"[;|&`\n({][ '\x22]*(/usr)?(/bin/)?(cat|type|more|less|head|tail|tac|nl|od|xxd|strings|rev|sort|grep|awk|sed|cut|find|cp|mv|tar|zip|file|stat|chmod|chown|touch|ls|echo|tee|source|mkdir|strings)[ ,<'\x22]+[^;|&]{0,60}(/etc/|/proc/|passwd|shadow|/var/|/tmp|/home/|/root|[a-z]:\\|\.ini|\.ssh|\.env|/\?|/dev/)",
            ),
            (
                5,
                r"(;|\|\|?|&&?|`|\$\() ?(ping|nslookup|dig|host|curl|wget|nc|ncat|netcat|telnet|ssh|scp|tftp|ftp|traceroute|socat|lynx)(\.exe)? (-[a-z]+ ?[0-9]* ?|[0-9]+ )*['\x22]?((https?|ftp)://|[0-9]{1,3}(\.[0-9]{1,3}){3}|localhost|[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,})",
            ),
            (
                5,
                r"(;|\|\|?|&&?|`|\$\() ?(/usr)?(/bin/)?(bash|sh|zsh|ksh|dash|python[23]?|perl|ruby|php|node|lua|powershell(\.exe)?|pwsh|cmd(\.exe)?|busybox|sudo|su|nohup|eval|exec|xargs|env|start|call|net|reg|sc|certutil|bitsadmin|mshta|rundll32|regsvr32|cscript|wscript|at|schtasks|crontab|kill|killall|pkill|shutdown|reboot|halt|useradd|adduser|chpasswd|mkfifo|iptables|service|systemctl)\b ?(-[a-z]+|/[a-z]+|user|localgroup|view|share|add|query|stop|start|[0-9]+|['\x22])",
            ),
            (
                5,
                r"(;|\|\|?|&&?|`|\$\() ?(/usr)?(/bin/)?(bash|sh|zsh|ksh|powershell(\.exe)?|cmd(\.exe)?|reboot|shutdown|halt)$",
            ),
            (5, r"(;|\|\|?|&&?|`|\$\() ?(rm|del|rmdir|erase|format|dd|mkfs|shred) (-[rf]+|/[sqf]|[a-z]:|if=|\*|/)"),
            (5, r"(;|\|\|?|&&?|`|\$\() ?(sleep|timeout) (-[a-z]+ |/t )?[0-9]+"),
            (5, r"\| ?(sh|bash|zsh|php|perl|python[23]?|ruby|sudo)( -)? ?($|[;|&])"),
            (
                5,
                r"^[^ `]*`[^`]*\b(id|ls|cat|whoami|uname|pwd|ping|curl|wget|nc|sleep|nslookup|dig|bash|sh|ps|env|echo|touch)\b[^`]*`[^ `]*$",
            ),
            (
                5,
                r"\$\( ?(id|ls|cat|whoami|uname|ping|curl|wget|nc|sleep|nslookup|dig|bash|sh|ps|env|printf|hostname|touch|rm|base64|python[23]?|perl|expr|<)( [^)]*)?\)",
            ),
            (
                5,
                r"\$\{?ifs\b|\{(cat|ls|curl|wget|ping|sleep|nc|bash|sh|echo),[^}]+\}|\$'\\|\$@[a-z]|[a-z]\$@|\$\{path:|\$\{#",
            ),
            (5, r"/dev/tcp/|>& ?/dev/|\b0<&[0-9]|2>&1 ?\||>/dev/null 2>"),
            (
                5,
                r"[;|&` (=]/?(usr/)?bin/(sh|bash|cat|ls|ps|id|nc|ping|uname|whoami|python|perl|curl|wget|sleep|env|busybox)\b",
            ),
            (5, r"^/?(usr/)?bin/(sh|bash|cat|ls|ps|id|nc|ping|uname|whoami|python|perl|curl|wget|sleep|env)\b"),
            (5, r"/[a-z?*]{3}/[a-z?*]*\?[a-z?*]* |/\?\?\?/"),
            (
                5,
                r"\bpowershell(\.exe)? (-|/|\(|iex|invoke)|\b(iex|invoke-expression|invoke-webrequest|downloadstring|new-object net\.webclient)\b",
            ),
            (
                5,
                r"\bcmd(\.exe)? ?/[ckr]\b|\bcertutil(\.exe)? -|\bbitsadmin /|\bnet (user|localgroup) [a-z]+ |\bwmic process|\breg (add|query) hk",
            ),
            (5, r"\(\) ?\{[^}]*\} ?;"),
            (5, r"^(whoami|uname -a|cat /etc/passwd|ifconfig|ipconfig( /all)?|systeminfo)$"),
            (
                5,
                r"\bbase64 (-d|--decode|-di)\b ?\|?|\bmkfifo /|\bnc (-[a-z]+ )*-?e? ?/bin|\bnc -[elvnp]+ |\bbash -i\b|\bsh -i\b|\bpython[23]? -c ['\x22]|\bperl -e ['\x22]|\bphp -r ['\x22]|\bruby -r?s?o?c?k?e?t? ?-e",
            ),
            (
                5,
                r"\b(system|exec|shell_exec|passthru|popen|proc_open|pcntl_exec) ?\( ?['\x22`$]|\b(os|subprocess|child_process|runtime)\.(system|popen|exec|execsync|call|run|check_output|getruntime|spawn) ?\(|__import__ ?\( ?['\x22]os|require ?\( ?['\x22]child_process",
            ),
            (5, r"\bwget (-[a-z]+ )*https?://[^ ]+ (-o|;|&|\|)|\bcurl (-[a-z]+ )*https?://[^ ]+ ?\| ?(sh|bash)"),
        ],
    ),
    (
        Ssrf,
        &[
            (
                5,
                r"169\.254\.169\.254|metadata\.(google|azure|packet|platformequinix)|\b100\.100\.100\.200\b|\bfd00:ec2::254|instance-data/|169\.254\.170\.2|192\.0\.0\.192|computemetadata|/latest/(meta-data|user-data|dynamic|api/token)",
            ),
            (
                5,
                r"(^|[=\s,'\x22(])(gopher|dict|ldaps?|tftp|sftp|netdoc|jar|rmi|smb|telnet|imap|pop3|rtsp|ogg|expect)://?[^ ]",
            ),
            (5, r"(^|[=\s,'\x22(])(url:)?file:/+[^ ]"),
            (
                5,
                r"^(https?:)?//+[^/?# ]*(localhost|127\.[0-9.]+|0\.0\.0\.0|\[::1?\]|\[::ffff:|\[0:0:|127\.1|0177\.|0x7f|2130706433|017700000001|3232235|2852039166|0xa9fe|0xa9\.|\[fe80|\[fd00)[0-9a-fx.:\]]*(:(22|25|80|443|2375|2376|2379|3306|4194|5000|5432|5601|5984|6379|6443|8001|8080|8443|8500|9000|9090|9200|10250|10255|11211|15672|27017))?(/?$|/?[?#]|/(admin|server-status|actuator|metrics|latest|console|manager|debug|env|internal|private|_cat|v1|v2|status|health|config|api|secret|flag|containers|etc|solr|jenkins|phpmyadmin|login|index|info|\.))",
            ),
            (
                5,
                r"^(https?:)?//+(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])?:?(22|25|2375|2379|3306|5432|6379|8500|9200|10250|11211|27017)\b",
            ),
            (
                5,
                r"^(https?:)?//+(10\.[0-9]+|192\.168|172\.(1[6-9]|2[0-9]|3[01]))\.[0-9]+(\.[0-9]+)?(:[0-9]+)?(/?$|/(admin|server-status|actuator|metrics|console|manager|debug|env|internal|private|status|config|api|cgi-bin|login|index|secret|setup))",
            ),
            (
                5,
                r"^(https?:)?//+(0|127\.?[0-9]?|0x[0-9a-f]{2,8}|0[0-7]{9,12}|[0-9]{8,10}|0[0-7]{1,3}(\.0*[0-7]{1,3}){1,3}|0x[0-9a-f]{1,2}(\.[0-9a-fx]+){1,3})(:[0-9]+)?(/|$)",
            ),
            (5, r"^(https?:)?//+[^/ ]*@ ?(127|10|169|192|172|localhost|0|metadata|\[|internal)[.:0-9a-z/]*"),
            (
                5,
                r"//[^/ ]*(\.(nip|xip|sslip)\.io|localtest\.me|lvh\.me|vcap\.me|spoofed\.burpcollaborator|\.oastify\.com|\.oast\.(fun|pro|live|site|online|me)|interact\.sh|requestbin|\.burpcollaborator\.net|webhook\.site|\.dnslog\.cn|rbndr\.us)",
            ),
            (
                5,
                r"^(https?:)?//+[^/?# ]*\.(internal|local|localdomain|intranet|corp|cluster\.local|svc|consul)(:[0-9]+)?(/|$)",
            ),
            (
                5,
                r"^https?://[^/?# ]*[#\\][^/?# ]*(@|localhost|127)|^https?:/[^/]+(localhost|127\.0|169\.254)|^https?:[^/](localhost|127|169)",
            ),
            (
                5,
                r"^(https?:)?//+(kubernetes|consul|etcd|redis|rabbitmq|elasticsearch|vault|jenkins|docker|admin|intranet|internal|backend|db|mysql|postgres)(\.default(\.svc)?)?(:[0-9]+)?(/|$)",
            ),
        ],
    ),
    (
        Template,
        &[
            (5, r"\{\{[^}]*[0-9'\x22] ?[*+-] ?['\x22]?[0-9][^}]*\}\}"),
            (
                5,
                r"\{\{[^}]*(__|\bconfig\b|\bself\b|\brequest\b|constructor|_self|cycler|lipsum|joiner|namespace|settings\.|url_for|get_flashed|range\.|dump ?\(|app\.|filter\(|system|popen|\|attr|\['|\bpassthru|readfile|include ?\(|_context|\$on|\$eval|this\.|process\.|require|\[\]\.|''\.|\x22\x22\.|\(\)\.|lookup ?\(|with \x22s\x22|#with)",
            ),
            (
                5,
                r"\{%-? ?(import|include|extends|debug|for|if|set|with|macro|call|raw|filter)\b[^%]*(__|os\.|popen|config|request\.|self\b|lipsum|cycler|system|\(\)|subclasses|\b[0-9]+ ?\* ?[0-9]+)",
            ),
            (5, r"\{% ?debug ?%\}|\{%-? ?(import|include) ['\x22](os|/etc|\.\.)"),
            (5, r"\$\{ ?\(?['\x22]?[0-9]+['\x22]? ?[*+] ?['\x22]?[0-9]+"),
            (
                5,
                r"\$\{[^}]*(t ?\( ?java|java\.|\.class\b|getclass|runtime|@java|@[a-z]+\.|process\.|scriptengine|\bexec ?\(|applicationscope|sessionscope|pagecontext|self\.(module|template)|\bforname|new [a-z.]+\(|['\x22]freemarker|param\.|facescontext|print ?\(|system ?\(|`)",
            ),
            (
                5,
                r"[#*@%~]\{ ?[^}]*([0-9]+ ?\* ?[0-9]+|t ?\( ?java|java\.|\.class\b|getclass|runtime|`|system|exec|#_|@java|session|application)",
            ),
            (5, r"@\( ?[0-9]+ ?[*+] ?[0-9]+|@\{ ?[^}]*(process|system|[0-9]+ ?\*)|@\(.*(system\.|process|new )"),
            (
                5,
                r"<%[=@#-]? ?[^%]*([0-9]+ ?\* ?[0-9]+|system|exec|`|file\.|\bio\.|open ?\(|require|runtime|global|process|dir\.|env\[|import|child_process|eval|request\.)",
            ),
            (
                5,
                r"<#(assign|list|if|include|import|function|macro)\b|\?(new|eval|api|interpret|has_api) ?\(\)|freemarker\.template",
            ),
            (
                5,
                r"#(set|foreach|include|parse|evaluate|if) ?\( ?[\x22'$][^)]*|\$class\.|\$\{?[a-z]+\.(getclass|class\.|inspect)|\.class\.forname|\$\{?request\.(getclass|session)",
            ),
            (
                5,
                r"\bt\( ?java\.|getruntime ?\( ?\)|java\.lang\.(runtime|processbuilder|system|class|string|math)|javax\.script|\bognl\b|#_memberaccess|#context\[|@java\.lang|\(#[a-z_]+ ?=",
            ),
            (
                5,
                r"\{php\}|\{\$smarty|\{system ?\(|\{if (phpinfo|system|[0-9])|\{literal\}|\{self::|\{include file|\{eval |\{fetch |\{\{?=[^}]*(global|process|[0-9] ?\*)",
            ),
            (
                5,
                r"__(subclasses|globals|builtins|mro|bases|getattribute|reduce|code)__|\.mro\(\)|\[\]\.__class__|''\.__class__|\x22\x22\.__class__|\(\)\.__class__",
            ),
            (5, r"\[\[ ?\$?\{? ?[0-9]+ ?\* ?[0-9]+|\[\(? ?\$\{|__\$\{|::\.x\b|\bprintln ?\( ?['\x22]?[0-9]+ ?\*"),
            (
                5,
                r"\{\{ ?\{|\}\}\}\}\{\{|\{\{[^}]*\|(e|safe|map|reduce|sort|filter) ?\(? ?['\x22(]|\{\{ ?[a-z$]+\.[a-z$]*constructor|\bconstructor\.constructor ?\(",
            ),
            (
                5,
                r"^[^{]*\{[0-9]+ ?\* ?[0-9]+\}|^\{\{?[^}]*\b(id|whoami|ls|cat)\b[^}]*\(\)|^= ?[0-9]+ ?\* ?[0-9]+$|^#\{[^}]*\}$|\$\{\{[^}]*[0-9] ?\* ?[0-9]",
            ),
        ],
    ),
    (
        Log4shell,
        &[
            (5, r"\$\{[^}]{0,20}jndi[^a-z]"),
            (5, r"\$\{ ?(lower|upper) ?: ?[a-z:/]{1,5}\}"),
            (5, r"(\$\{[^${}]{0,40}:-?[a-z:/.]{0,4}\}[^$}{]{0,6}){2,}"),
            (5, r"\$\{ ?::?-?[a-z:/]{1,4}\}"),
            (5, r"\$\{[^}]{0,40}\$\{[^}]{0,40}(:|-)"),
            (5, r"j.{0,3}n.{0,3}d.{0,3}i ?: ?(ldaps?|rmi|dns|iiop|corba|nis|nds|https?) ?:"),
            (
                4,
                r"\$\{ ?(env|sys|java|hostname|ctx|date|main|bundle|k8s|docker|spring|map|sd|web|log4j|marker|event|base64) ?:",
            ),
            (5, r"(ldaps?|rmi|iiop|corba|nis|nds) ?: ?//[^ ]+\}"),
        ],
    ),
];
