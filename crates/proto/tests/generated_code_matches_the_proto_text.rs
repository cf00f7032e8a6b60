//! The Rust code under `src/generated` is committed, so that a build needs no protoc. This test
//! generates it anew from the .proto text and compares. To write it anew after a change:
//! `CHRONOLITH_BLESS=1 cargo test -p chronolith-proto`.

use std::{fs, path::Path};

#[test]
fn generated_code_matches_the_proto_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile(["rpc.proto", "mvcc.proto", "history.proto"], [root.join("proto")])
        .unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(true)
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    for entry in fs::read_dir(out.path()).unwrap() {
        let fresh = entry.unwrap();
        let committed = root.join("src/generated").join(fresh.file_name());
        if std::env::var_os("CHRONOLITH_BLESS").is_some() {
            fs::create_dir_all(committed.parent().unwrap()).unwrap();
            fs::copy(fresh.path(), &committed).unwrap();
        }
        assert_eq!(
            fs::read_to_string(fresh.path()).unwrap(),
            fs::read_to_string(&committed).unwrap_or_default(),
            "{} is stale: run with CHRONOLITH_BLESS=1",
            committed.display()
        );
    }
}
