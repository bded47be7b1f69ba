//! Turns the protos into Rust, without protoc.
//!
//! Besides the code of prost and tonic this writes `csi.v1.secrets.rs`: a `Debug` for every message with
//! a field marked `csi_secret`, and the list of these messages. The derived `Debug` would print
//! credentials. The messages are found in the descriptors, so a field that is marked in the proto is
//! hidden without a second list to keep.
//!
//! It also tells the linker to put the functions of an idle driver next to each other, see [`in_order`].

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use prost_reflect::{ExtensionDescriptor, FieldDescriptor, MessageDescriptor};
use protox::Compiler;

const DIRECTORY: &str = "proto";
const FILES: [&str; 2] = ["csi.proto", "pluginregistration.proto"];
/// The package that has the secrets, and the option that marks them.
const PACKAGE: &str = "csi.v1";
const MARK: &str = "csi.v1.csi_secret";

/// The functions that an idle driver runs, as benches/order/record saw them.
const FUNCTIONS: &str = "benches/order/functions.txt";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIRECTORY}");

    let mut compiler = Compiler::new([DIRECTORY])?;
    // Source info carries the comments, which become doc comments.
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;

    // The plain `file_descriptor_set` below drops custom options; the pool still has them.
    let pool = compiler.descriptor_pool();
    let mark = pool.get_extension_by_name(MARK).ok_or_else(|| format!("no option {MARK}"))?;
    let secret_bearing: Vec<MessageDescriptor> = pool
        .all_messages()
        .filter(|message| message.fields().any(|field| is_secret(&field, &mark)))
        .collect();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join(format!("{PACKAGE}.secrets.rs")), secrets_module(&secret_bearing, &mark)?)?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Clients are made from a channel; the code for dialling would need another feature of tonic.
        .build_transport(false)
        // A call that is not written answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        // One order of keys in logs.
        .btree_map(".")
        .skip_debug(secret_bearing.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;

    let is = |key, value| env::var_os(key).is_some_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        in_order(&out.join("order.ld"))?;
    }
    Ok(())
}

/// The kernel maps the pages of a program in groups, 64 KiB or more around the one that is needed. An idle driver runs
/// 1,500 of 30,000 functions; strewn over the whole program they make nearly all of it resident on each node, side by
/// side they do not. A function that the list names and the program does not have is passed over, and one that the list
/// lacks is where it always was: an old list costs memory and nothing else.
fn in_order(script: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FUNCTIONS}");
    let mut text = String::from("SECTIONS\n{\n  .text.idle :\n  {\n");
    for function in fs::read_to_string(FUNCTIONS)?.lines() {
        writeln!(text, "    *(.text.{function} .text.unlikely.{function})")?;
    }
    // The rest of the script stays the linker's own.
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    fs::write(script, text)?;
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    Ok(())
}

fn is_secret(field: &FieldDescriptor, mark: &ExtensionDescriptor) -> bool {
    let options = field.options();
    options.has_extension(mark) && options.get_extension(mark).as_bool() == Some(true)
}

/// The text of `csi.v1.secrets.rs`.
fn secrets_module(
    messages: &[MessageDescriptor],
    mark: &ExtensionDescriptor,
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    writeln!(text, "/// Full names of the messages with a field marked `csi_secret`.")?;
    writeln!(text, "pub const SECRET_BEARING: &[&str] = &[")?;
    for message in messages {
        writeln!(text, "    {:?},", message.full_name())?;
    }
    writeln!(text, "];")?;
    for message in messages {
        text.push_str(&debug_impl(message, mark)?);
    }
    Ok(text)
}

/// A `Debug` like the derived one, but for the secret fields: of a map or list only the number of
/// entries shows, of anything else nothing.
fn debug_impl(message: &MessageDescriptor, mark: &ExtensionDescriptor) -> Result<String, Box<dyn Error>> {
    // What the protos do not have is refused here instead of being printed in some wrong way.
    let plain = message.package_name() == PACKAGE
        && message.parent_message().is_none()
        && message.oneofs().len() == 0
        && message.child_messages().all(|child| child.is_map_entry());
    if !plain {
        return Err(
            format!("no Debug for the secrets of {}: not a plain message", message.full_name()).into()
        );
    }

    let name = message.name();
    let mut text = format!(
        "impl ::core::fmt::Debug for {name} {{\n    \
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
                 f.debug_struct({name:?})\n"
    );
    for field in message.fields() {
        let name = field.name();
        let value = match (is_secret(&field, mark), field.is_map() || field.is_list()) {
            (false, _) => format!("&self.r#{name}"),
            (true, true) => format!("&format_args!(\"*** ({{}} entries)\", self.r#{name}.len())"),
            (true, false) => "&format_args!(\"***\")".to_owned(),
        };
        writeln!(text, "            .field({name:?}, {value})")?;
    }
    text.push_str("            .finish()\n    }\n}\n");
    Ok(text)
}
