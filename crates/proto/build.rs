//! Compiles `proto/` without protoc: protox parses, prost and tonic generate.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

const FILES: [&str; 3] =
    ["redkeep/log/v1/log.proto", "redkeep/peer/v1/peer.proto", "redkeep/admin/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = Path::new(&env::var("OUT_DIR")?).join("redkeep.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(grpc)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
