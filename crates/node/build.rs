//! Build script of the Node binding.

fn main() {
    napi_build::setup();
    // Threads of the addon (the spawner, the reaper) outlive a worker that was the only one to
    // load it: their code must stay mapped.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
}
