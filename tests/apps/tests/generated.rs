//! The code in `src/sample.rs` is what `proto/sample.proto` gives today. No `protoc` is needed: protox reads the file.

use std::path::Path;

const COMMAND: &str = "WEFT_REGENERATE=1 cargo test -p weft-apps --test generated";

#[test]
fn checked_in_code_is_what_the_proto_file_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().expect("a temporary directory");
    let descriptors = protox::compile(["sample.proto"], [root.join("proto")]).expect("the proto file compiles");
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .bytes(".")
        .btree_map(".")
        .out_dir(made.path())
        .compile_fds(descriptors)
        .expect("code is generated");
    let made = std::fs::read_to_string(made.path().join("weft.sample.v1.rs")).expect("generated code");
    let kept = root.join("src/sample.rs");
    if std::fs::read_to_string(&kept).unwrap_or_default() == made {
        return;
    }
    let regenerate = std::env::var_os("WEFT_REGENERATE").is_some();
    assert!(
        regenerate,
        "src/sample.rs differs from what proto/sample.proto gives; regenerate with: {COMMAND}"
    );
    std::fs::write(&kept, made).expect("src can be written");
}
