//! Runs the files of `tests/corpus/`: cases that begin with `== title`, hold rules, then what compiling them says
//! (`! conflict`), then asks with the answers wanted (`GET /a => shop/cart 0 ...`).

use http::HeaderMap;
use weft_route::{Ask, Decision, Table, Target, edit::Here};

use crate::language::{self, Request};

#[test]
fn every_case_of_the_corpus_gets_its_answers() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut wrong = Vec::new();
    let mut asked = 0;
    let mut files: Vec<_> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let file = file.file_name().unwrap().to_string_lossy().into_owned();
        for case in text.split("\n== ").skip(1) {
            let (title, body) = case.split_once('\n').unwrap();
            asked += run(body, &mut |problem| wrong.push(format!("{file}: {title}: {problem}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(asked >= 200, "only {asked} asks were found");
}

fn run(body: &str, wrong: &mut dyn FnMut(String)) -> usize {
    let lines = || {
        body.lines()
            .map(str::trim_end)
            .filter(|line| !line.trim_start().starts_with('#'))
    };
    let is_rule = |line: &&str| line.starts_with("rule ") || line.starts_with(' ');
    let rules = lines().filter(is_rule).collect::<Vec<_>>().join("\n");
    let (table, conflicts) = Table::compile(language::rules(&rules));

    let mut told: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    let mut wanted: Vec<&str> = lines().filter_map(|line| line.strip_prefix("! ")).collect();
    told.sort();
    wanted.sort();
    if told != wanted {
        wrong(format!(
            "conflicts are\n  {}\n wanted\n  {}",
            told.join("\n  "),
            wanted.join("\n  ")
        ));
    }
    let mut asked = 0;
    for (ask, wanted) in lines().filter_map(|line| line.split_once(" => ")) {
        asked += 1;
        let got = answer(&table, ask.trim(), wanted);
        if got != wanted.trim() {
            wrong(format!("{} =>\n  {got}\n wanted\n  {wanted}", ask.trim()));
        }
    }
    asked
}

/// The answer, with what is asked for in `wanted` after the rule: `backend=`, `target=`, `host=`, `location=`,
/// a header field `x=` as the backend gets it, `response:x=` as if the response had had the request's fields,
/// `preflight=` for whether it is answered as one, `preflight:x=` with which field, `mirrors=` for where copies go.
fn answer(table: &Table, ask: &str, wanted: &str) -> String {
    if let Some(ask) = connection(ask) {
        let decided = table.decide(&ask, 0);
        assert_eq!(decided, table.explain(&ask, 0).0);
        return match decided {
            Err(none) => none.to_string(),
            Ok(decision) => match &decision.target {
                Target::Backend(index) if wanted.contains("backend=") => format!("{} backend={index}", said(&decision)),
                Target::None(none) if wanted.contains("none=") => format!("{} none={none}", said(&decision)),
                _ => said(&decision),
            },
        };
    }
    let request = language::request(ask);
    let ask = Ask::Http(&request);
    let decided = table.decide(&ask, 0);
    let (explained, steps) = table.explain(&ask, 0);
    assert_eq!(decided, explained, "{ask:?}: {steps:?}", ask = request);
    match decided {
        Err(none) => none.to_string(),
        Ok(decision) => {
            let mut answer = said(&decision);
            for word in wanted.split_whitespace().filter(|word| word.contains('=')) {
                answer.push(' ');
                answer.push_str(&detail(&decision, &request, word.split('=').next().unwrap()));
            }
            answer
        }
    }
}

/// `TCP`, `TLS` without a server name, or `TLS name`.
fn connection(ask: &str) -> Option<Ask<'_>> {
    match ask.split_once(' ').unwrap_or((ask, "")) {
        ("TCP", _) => Some(Ask::Tcp),
        ("TLS", "") => Some(Ask::Tls { sni: None }),
        ("TLS", sni) => Some(Ask::Tls { sni: Some(sni) }),
        _ => None,
    }
}

fn said(decision: &Decision) -> String {
    format!("{} {}", decision.rule.route, decision.rule.rule)
}

fn detail(decision: &Decision, request: &Request, name: &str) -> String {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let value = match name {
        "match" => decision.matched.to_string(),
        "backend" => match &decision.target {
            Target::Backend(index) => index.to_string(),
            Target::None(_) => "none".into(),
        },
        "target" => decision
            .rewritten_target(&request.target)
            .map_or("as-sent".into(), text),
        "host" => decision.rewritten_host().unwrap_or("as-sent").into(),
        "location" => {
            let host = request.host.as_deref().map(str::as_bytes);
            let here = Here {
                scheme: "http",
                host,
                port: 8080,
                target: &request.target,
            };
            let (status, location) = decision.redirect(&here).expect("a redirect");
            format!("{status}:{}", text(location))
        }
        "preflight" => decision.preflight().is_some().to_string(),
        "mirrors" => {
            let mirrors: Vec<_> = decision.mirrors(|| 0).map(|backend| backend.to_string()).collect();
            if mirrors.is_empty() {
                "none".into()
            } else {
                mirrors.join(",")
            }
        }
        "attempts" => decision
            .retry()
            .map_or("none".into(), |retry| retry.attempts.to_string()),
        name if let Some(field) = name.strip_prefix("preflight:") => {
            let fields = decision.preflight().expect("a preflight").iter();
            let values: Vec<_> = fields
                .filter(|(name, _)| name == field)
                .map(|(_, value)| value.to_str().unwrap())
                .collect();
            if values.is_empty() {
                "absent".into()
            } else {
                values.join(" and ")
            }
        }
        name => {
            let mut fields = HeaderMap::new();
            for (field, value) in &request.headers {
                fields.append(
                    http::HeaderName::from_bytes(field.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            let field = match name.strip_prefix("response:") {
                Some(field) => {
                    decision.edit_response(&mut fields);
                    field
                }
                None => {
                    decision.edit_request(&mut fields);
                    name
                }
            };
            let values: Vec<_> = fields
                .get_all(field)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            if values.is_empty() {
                "absent".into()
            } else {
                values.join(",")
            }
        }
    };
    format!("{name}={value}")
}
