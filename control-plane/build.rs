//! Rebuilds the crate when the built console changes, so that a release binary never carries an old one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A path that is missing makes cargo run this script every time: name the folder only once it is there.
    let dist = std::path::Path::new("console/dist");
    let watched = if dist.exists() {
        "console/dist"
    } else {
        "console/index.html"
    };
    println!("cargo:rerun-if-changed={watched}");
}
