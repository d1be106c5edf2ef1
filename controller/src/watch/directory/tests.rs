//! Files that come, change and go, and files that are half there.

use std::fs;

use super::*;

struct World {
    directory: tempfile::TempDir,
    scanner: Scanner,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scanner = Scanner::new(directory.path().to_owned());
        let world = Self { directory, scanner };
        files.iter().for_each(|(name, text)| world.write(name, text));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// As kubectl-like tools should: complete, then in its place.
    fn replace(&self, name: &str, text: &str) {
        self.write(".new", text);
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    fn scan(&mut self) -> Vec<String> {
        let mut changes: Vec<String> = self
            .scanner
            .scan()
            .into_iter()
            .map(|change| match change {
                Change::Apply(object) => format!("+ {}", object.key()),
                Change::Delete(key) => format!("- {key}"),
            })
            .collect();
        changes.sort();
        changes
    }
}

fn namespace(name: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}{more}}}\n")
}

const STRICT: &str = ", labels: {weft.dev/mtls: strict}";
const NOTHING: [&str; 0] = [];

#[test]
fn files_below_the_directory_are_read_and_others_are_not() {
    let mut world = World::new(&[
        ("a.yaml", &namespace("a", "")),
        ("deep/er/b.yml", &namespace("b", "")),
        (
            "c.json",
            r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#,
        ),
        (".hidden.yaml", &namespace("d", "")),
        ("e.yaml.swp", &namespace("e", "")),
        ("f.txt", &namespace("f", "")),
    ]);
    assert_eq!(world.scan(), ["+ Namespace a", "+ Namespace b", "+ Namespace c"]);
    assert_eq!(world.scan(), NOTHING);
}

#[test]
fn a_file_put_in_place_is_followed_at_once_and_only_what_changed_is_told() {
    let mut world = World::new(&[("a.yaml", &[namespace("a", ""), namespace("b", "")].join("---\n"))]);
    world.scan();
    world.replace(
        "a.yaml",
        &[namespace("a", STRICT), namespace("b", ""), namespace("c", "")].join("---\n"),
    );
    assert_eq!(world.scan(), ["+ Namespace a", "+ Namespace c"]);
    world.replace("a.yaml", &namespace("b", ""));
    assert_eq!(world.scan(), ["- Namespace a", "- Namespace c"]);
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["- Namespace b"]);
}

#[test]
fn a_file_that_is_being_written_deletes_nothing() {
    let whole = [namespace("a", ""), namespace("b", STRICT)].join("---\n");
    let mut world = World::new(&[("a.yaml", &whole)]);
    world.scan();
    // Written anew in place: for a moment it is empty, then a part, then whole, and grown.
    let grown = [whole.clone(), namespace("c", "")].join("---\n");
    for length in [0, 10, whole.len() / 2, grown.len()] {
        world.write("a.yaml", &grown[..length]);
        assert_eq!(world.scan(), NOTHING, "{length}");
    }
    assert_eq!(world.scan(), ["+ Namespace c"]);
}

#[test]
fn what_cannot_be_read_keeps_its_last_good_version_until_it_can_or_is_gone() {
    let mut world = World::new(&[
        ("a.yaml", &[namespace("a", ""), namespace("b", "")].join("---\n")),
        ("o.yaml", &namespace("o", "")),
    ]);
    world.scan();
    // Nobody can tell what the second document was to be.
    world.replace("a.yaml", &[namespace("a", STRICT), "kind: [".into()].join("---\n"));
    assert_eq!(world.scan(), NOTHING, "perhaps it is still being written");
    assert_eq!(world.scan(), ["+ Namespace a"]);
    world.write("o.yaml", &namespace("o", STRICT));
    world.scan();
    assert_eq!(world.scan(), ["+ Namespace o"], "other files go on");
    world.replace("a.yaml", &namespace("a", ""));
    assert_eq!(world.scan(), ["+ Namespace a", "- Namespace b"]);
}

#[test]
fn an_object_that_is_wrong_keeps_its_last_good_version_and_its_neighbours_go() {
    let service = |port: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    };
    let mut world = World::new(&[("a.yaml", &[service("80"), namespace("b", "")].join("---\n"))]);
    world.scan();
    world.replace("a.yaml", &service("many"));
    world.scan();
    assert_eq!(world.scan(), ["- Namespace b"], "the Service stays as it was");
    world.replace("a.yaml", &service("81"));
    assert_eq!(world.scan(), ["+ Service default/s"]);
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["- Service default/s"]);
}

#[test]
fn a_bad_file_at_the_start_hides_no_other() {
    let mut world = World::new(&[
        ("a.yaml", "{{{"),
        ("b.yaml", &namespace("b", "")),
        ("c.yaml", "kind: Service"),
    ]);
    fs::write(world.path("d.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(world.scan(), ["+ Namespace b"]);
}

#[test]
fn an_object_in_two_files_is_the_first_one_s() {
    let mut world = World::new(&[("a.yaml", &namespace("a", STRICT)), ("b.yaml", &namespace("a", ""))]);
    assert_eq!(world.scan(), ["+ Namespace a"]);
    assert_eq!(world.scan(), NOTHING);
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["+ Namespace a"], "now the other's");
}

#[test]
fn a_mounted_config_map_changes_as_a_whole() {
    use std::os::unix::fs::symlink;
    let mut world = World::new(&[
        ("..one/a.yaml", &namespace("a", "")),
        ("..two/a.yaml", &namespace("a", STRICT)),
    ]);
    symlink("..one", world.path("..data")).unwrap();
    symlink("..data/a.yaml", world.path("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["+ Namespace a"]);
    symlink("..two", world.path("..tmp")).unwrap();
    fs::rename(world.path("..tmp"), world.path("..data")).unwrap();
    assert_eq!(world.scan(), ["+ Namespace a"]);
}

#[test]
fn a_directory_that_goes_away_takes_nothing_with_it() {
    let mut world = World::new(&[("a.yaml", &namespace("a", ""))]);
    world.scan();
    let elsewhere = world.directory.path().with_extension("gone");
    fs::rename(world.directory.path(), &elsewhere).unwrap();
    assert_eq!(world.scan(), NOTHING);
    fs::rename(&elsewhere, world.directory.path()).unwrap();
    assert_eq!(world.scan(), NOTHING);
}

#[tokio::test]
async fn the_source_tells_everything_first_and_then_the_changes() {
    let world = World::new(&[("a.yaml", &namespace("a", ""))]);
    let (sink, mut batches) = tokio::sync::mpsc::channel(4);
    let source = Box::new(Directory::new(world.directory.path()).unwrap());
    let following = tokio::spawn(source.follow(sink));
    let first = batches.recv().await.unwrap();
    assert!(first.synced && first.changes.len() == 1);
    world.replace("b.yaml", &namespace("b", ""));
    let second = batches.recv().await.unwrap();
    assert!(!second.synced && second.changes.len() == 1);
    drop(batches);
    following.await.unwrap();
    assert!(Directory::new(&world.path("absent")).is_err());
}
