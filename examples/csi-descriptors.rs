//! Prints the encoded descriptors of `proto/csi.proto`, custom options included, for comparison with the
//! official package of the specification.

use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([proto])?;
    compiler.open_file("csi.proto")?;
    std::io::stdout().write_all(&compiler.encode_file_descriptor_set())?;
    Ok(())
}
