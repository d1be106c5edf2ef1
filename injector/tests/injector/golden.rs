//! A pod in, a pod out, as text. `WEFT_BLESS=1 cargo test -p weft-injector golden` writes what comes out now.

use weft_injector::{Context, Outcome, patch, pod};

use crate::common;

#[test]
fn golden_files_hold() {
    let bless = std::env::var_os("WEFT_BLESS").is_some();
    let inputs = common::inputs();
    assert!(inputs.len() >= 12);
    let mut wrong = Vec::new();
    for (name, text) in inputs {
        let path = common::directory().join(format!("{name}.out.yaml"));
        let found = outcome(&text);
        if bless {
            std::fs::write(&path, &found).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&found) {
            wrong.push(format!("=== {name}: this came out instead\n{found}"));
        }
    }
    let hint = "if that is right: WEFT_BLESS=1 cargo test -p weft-injector golden";
    assert!(wrong.is_empty(), "{}\n{hint}", wrong.join("\n"));
}

fn outcome(text: &str) -> String {
    let (value, namespace) = common::read(text);
    let before = common::pod(&value);
    let settings = common::settings();
    let context = Context {
        settings: &settings,
        namespace: &namespace,
    };
    match common::inject_in(&before, &namespace) {
        Ok(Outcome::Injected(after)) => {
            let warnings: String = pod::warnings(&before, &context)
                .iter()
                .map(|warning| format!("# warning: {warning}\n"))
                .collect();
            let mut patched = value.clone();
            json_patch::patch(&mut patched, &patch::patch(&value, &before, &after).unwrap()).unwrap();
            format!("# injected\n{warnings}{}", serde_saphyr::to_string(&patched).unwrap())
        }
        Ok(Outcome::AlreadyInjected) => "# already injected\n".into(),
        Ok(Outcome::Skipped(why)) => format!("# skipped: {why}\n"),
        Err(refusals) => refusals
            .iter()
            .map(|refusal| format!("# refused: {refusal}\n"))
            .collect(),
    }
}
