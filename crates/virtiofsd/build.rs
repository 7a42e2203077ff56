//! Gives the linker a library `cap-ng` that is empty: what crate `capng` calls of it is in `src/capabilities.rs`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(folder.join("libcap-ng.a"), "!<arch>\n")?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}
