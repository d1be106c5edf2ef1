//! Which command stands for which image. There is no image to run: a container is a process of this machine.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The command that stands for an image, as the image's own entry point and settings would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Command {
    /// The entry point; a container's `command` takes its place.
    pub command: Vec<String>,
    /// What follows; a container's `args` take their place.
    pub args: Vec<String>,
    /// Where it runs, unless the container says so.
    pub working_dir: Option<PathBuf>,
    /// Environment below the container's own.
    pub env: BTreeMap<String, String>,
    /// Files that the image would have: where the container sees them, and where they are on this machine.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Run this even where the manifest has a `command` of its own (one that exists only in the image).
    pub replace: bool,
}

/// Images and their commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Images(BTreeMap<String, Command>);

impl Images {
    /// Reads `images.yaml`: a map from image to a command line, a list of words, or a map with `command`, `args`,
    /// `workingDir`, `env`, `files`, `replace`. Relative programs that exist below `base` are found there.
    pub fn read(file: &str, text: &str, base: &Path) -> Result<Images, Vec<String>> {
        let map: BTreeMap<String, Value> = crate::manifest::parse(text)
            .map_err(|e| vec![format!("{file}: {e}; it is a map from image to command")])?;
        let mut images = Images::default();
        let mut mistakes = Vec::new();
        for (image, value) in map {
            match command(&value) {
                Ok(command) => {
                    let missing = command.files.values().filter(|source| !base.join(source).exists());
                    let say = |s: &PathBuf| {
                        format!(
                            "{file}: image '{image}': file {} does not exist; correct its path",
                            s.display()
                        )
                    };
                    mistakes.extend(missing.map(say));
                    images.insert(&image, command, base);
                }
                Err(what) => mistakes.push(format!("{file}: image '{image}': {what}")),
            }
        }
        if mistakes.is_empty() { Ok(images) } else { Err(mistakes) }
    }

    /// Adds one mapping as it stands on a command line: `NAME=COMMAND`.
    pub fn add(&mut self, argument: &str, base: &Path) -> Result<(), String> {
        let mistake =
            |what: &str| format!("--image '{argument}': {what}; write NAME=COMMAND, as web=\"python3 -m http.server\"");
        let (image, line) = argument.split_once('=').ok_or_else(|| mistake("no '='"))?;
        let command = command(&Value::from(line)).map_err(|e| mistake(&e))?;
        self.insert(image, command, base);
        Ok(())
    }

    /// Maps an image to a program.
    pub fn insert(&mut self, image: &str, mut command: Command, base: &Path) {
        let local = |word: &str| {
            (word.contains('/') && Path::new(word).is_relative())
                .then(|| base.join(word))
                .filter(|p| p.exists())
        };
        if let Some(program) = command.command.first_mut()
            && let Some(path) = local(program)
        {
            *program = path.display().to_string();
        }
        command.working_dir = command.working_dir.map(|directory| base.join(directory));
        for source in command.files.values_mut() {
            *source = base.join(&source);
        }
        self.0.insert(image.to_string(), command);
    }

    /// Takes in another list; its entries win.
    pub fn extend(&mut self, other: Images) {
        self.0.extend(other.0);
    }

    /// The mapping of an image: by its full name, or without its tag or digest.
    pub fn find(&self, image: &str) -> Option<&Command> {
        let undigested = image.split('@').next().unwrap_or(image);
        let untagged = match undigested.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => undigested,
        };
        [image, undigested, untagged]
            .into_iter()
            .find_map(|name| self.0.get(name))
    }

    /// The words to run, the directory and the environment below the container's own; nothing when neither says what to run.
    pub fn resolve(&self, image: &str, command: &[String], args: &[String]) -> Option<Command> {
        let mapped = self.find(image);
        let mut resolved = mapped.cloned().unwrap_or_default();
        if !command.is_empty() && !resolved.replace {
            resolved.command = command.to_vec();
            resolved.args = Vec::new();
        }
        if !args.is_empty() && (command.is_empty() || !resolved.replace) {
            resolved.args = args.to_vec();
        }
        (!resolved.command.is_empty()).then_some(resolved)
    }
}

fn command(value: &Value) -> Result<Command, String> {
    let command = match value {
        Value::String(line) => Command {
            command: words(line)?,
            ..Command::default()
        },
        Value::Array(_) => {
            let command = serde_json::from_value(value.clone()).map_err(|e| format!("{e}; a list holds words"))?;
            Command {
                command,
                ..Command::default()
            }
        }
        value => serde_json::from_value(value.clone()).map_err(|e| format!("{e}; write a command line"))?,
    };
    if command.command.is_empty() {
        Err("the command is empty; name a program".into())
    } else {
        Ok(command)
    }
}

/// Splits a command line at blanks; quotes and backslashes keep them.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a quote {quote} is not closed in '{line}'; close it"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| w.to_string()).collect()
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_would() {
        assert_eq!(
            words(r#"sh -c 'echo "a b"' x\ y "" "q\"q""#).unwrap(),
            ["sh", "-c", "echo \"a b\"", "x y", "", "q\"q"]
        );
        assert!(words("sh -c 'oops").unwrap_err().contains("close it"));
    }

    #[test]
    fn an_image_is_found_by_full_name_or_without_tag_and_digest() {
        let text = "app: run\napp:2: run2\nregistry.local:5000/app: run3\n";
        let images = Images::read("images.yaml", text, Path::new("/")).unwrap();
        let found = |image| images.find(image).map(|c| c.command[0].as_str());
        assert_eq!(found("app:1"), Some("run"));
        assert_eq!(found("app:2"), Some("run2"));
        assert_eq!(found("app@sha256:00"), Some("run"));
        assert_eq!(found("registry.local:5000/app"), Some("run3"));
        assert_eq!(found("other"), None);
    }

    #[test]
    fn the_containers_own_words_win_as_in_kubernetes() {
        let text = "a: {command: [run], args: [--default], workingDir: sub}\nb: {command: [run], replace: true}\n";
        let images = Images::read("images.yaml", text, Path::new("/base")).unwrap();
        let words = |image, command: &[&str], args: &[&str]| {
            images
                .resolve(image, &list(command), &list(args))
                .map(|c| [c.command, c.args].concat().join(" "))
        };
        assert_eq!(words("a", &[], &[]).as_deref(), Some("run --default"));
        assert_eq!(words("a", &[], &["x"]).as_deref(), Some("run x"));
        assert_eq!(words("a", &["own"], &[]).as_deref(), Some("own"));
        assert_eq!(words("b", &["/in/image"], &["x"]).as_deref(), Some("run"));
        assert_eq!(words("c", &[], &["x"]), None);
        assert_eq!(
            images.find("a").unwrap().working_dir.as_deref(),
            Some(Path::new("/base/sub"))
        );
    }

    #[test]
    fn all_mistakes_of_the_map_are_reported_together() {
        let mistakes = Images::read(
            "images.yaml",
            "a: ''\nb: {comand: [x]}\nc: {command: [x], files: {/a: no}}\n",
            Path::new("/"),
        )
        .unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    }
}
