//! Generates the types and services from `schema/` with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = [
        "schema/muster/command/v1/types.proto",
        "schema/muster/command/v1/command.proto",
        "schema/muster/command/v1/endpoint.proto",
        "schema/muster/media/v1/media.proto",
        "schema/muster/media/v1/link.proto",
    ];
    let descriptors = protox::compile(files, ["schema"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
