//! The code made from the schemas is the code in the tree. `UPDATE=1` writes it anew.

use std::path::Path;
use std::process::Command;

#[test]
fn the_generated_code_is_that_of_the_schemas() {
    if Command::new("capnp").arg("--version").output().is_err() {
        eprintln!("left out: the capnp compiler is missing (apt-get install capnproto libcapnp-dev)");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = tempfile::tempdir().unwrap();
    let mut compiler = capnpc::CompilerCommand::new();
    compiler
        .src_prefix(root.join("capnp"))
        .output_path(target.path())
        .default_parent_module(vec!["wire".into(), "generated".into()]);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("capnp")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "capnp") {
            names.push(format!("{}_capnp.rs", path.file_stem().unwrap().to_string_lossy()));
            compiler.file(path);
        }
    }
    compiler.run().unwrap();
    for name in names {
        let made = std::fs::read_to_string(target.path().join(&name)).unwrap();
        let kept = root.join("src/wire/generated").join(&name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &made).unwrap();
        }
        let stands = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(
            made == stands,
            "{} is not what the schemas give; run: UPDATE=1 cargo test -p flott-schema",
            kept.display()
        );
    }
}
