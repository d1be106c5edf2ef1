//! The code in `src/rpc/` is what `proto/*.proto` gives today. No `protoc` is needed: protox reads the files.

use std::path::Path;

const COMMAND: &str = "WEFT_REGENERATE=1 cargo test -p weft-proto --test generated";
const SERVICES: [&str; 2] = ["discovery", "identity"];

#[test]
fn checked_in_code_is_what_the_proto_files_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().expect("a temporary directory");
    let files = SERVICES.map(|service| format!("{service}.proto"));
    let descriptors = protox::compile(files, [root.join("proto")]).expect("the proto files compile");
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        // Keys reach no log: `src/rpc.rs` says what is shown instead.
        .skip_debug(["weft.discovery.v1.Certificate", "weft.discovery.v1.SessionKey"])
        .out_dir(made.path())
        .compile_fds(descriptors)
        .expect("code is generated");

    let regenerate = std::env::var_os("WEFT_REGENERATE").is_some();
    let mut stale = Vec::new();
    for service in SERVICES {
        let made = std::fs::read_to_string(made.path().join(format!("weft.{service}.v1.rs"))).expect("generated code");
        let kept = root.join(format!("src/rpc/{service}.rs"));
        if std::fs::read_to_string(&kept).unwrap_or_default() == made {
            continue;
        }
        if regenerate {
            std::fs::write(&kept, made).expect("src/rpc can be written");
        } else {
            stale.push(kept);
        }
    }
    assert!(
        stale.is_empty(),
        "{stale:?} differ from what proto/*.proto give; regenerate with: {COMMAND}"
    );
}
