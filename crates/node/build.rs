//! Build script of the Node binding.

fn main() {
    napi_build::setup();
}
