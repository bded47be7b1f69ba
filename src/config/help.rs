//! The text of `--help`, from the table of flags.

use std::fmt::Write as _;

use super::flags::{Flag, Group, KEY_VARIABLES, Kind};

const WIDTH: usize = 96;
const INDENT: &str = "        ";

pub(super) fn driver(table: &[&Flag]) -> String {
    let mut text = format!(
        "{}\n\nCSI driver that gives Kubernetes pods UCloud UDisk block volumes.\n\n\
         Usage: csi-udisk [FLAGS]\n       csi-udisk probe [--help]\n{}{}\n\
         A flag comes before its variables, and these in the order shown; an empty value counts as not set.\n",
        version(),
        if cfg!(feature = "kube") {
            "       csi-udisk volumes [--help]\n       csi-udisk orphans [--help]\n"
        } else {
            ""
        },
        if cfg!(feature = "sandbox") { "       csi-udisk sandbox [--help]\n" } else { "" },
    );
    for group in Group::ALL {
        let _ = write!(text, "\n{}:\n", group.title());
        if group == Group::Ignored {
            let names: Vec<String> =
                table.iter().filter(|f| f.group == group).map(|f| format!("--{}", f.name)).collect();
            wrap(&mut text, "  ", &names.join(" "));
            continue;
        }
        for flag in table.iter().filter(|f| f.group == group) {
            describe(&mut text, flag);
        }
        if group == Group::Credentials {
            keys(&mut text);
        }
    }
    let _ = write!(
        text,
        "\n  --help, --version\n\nExit status: 0 after a stop by SIGTERM, SIGINT or SIGHUP, 64 for a fault in the \
         configuration,\n1 when the start or the serving failed.\n"
    );
    text
}

pub(super) fn probe(table: &[&Flag]) -> String {
    let mut text = format!(
        "{}\n\nAsks the driver on its socket how it is, for Kubernetes' probes; needs no network.\n\n\
         Usage: csi-udisk probe [FLAGS]\n\n",
        version(),
    );
    for flag in table {
        describe(&mut text, flag);
    }
    text.push_str("\nExit status: 0 when it is well, 1 when not, 64 for a fault in the configuration.\n");
    text
}

#[cfg(feature = "kube")]
pub(super) fn inventory(command: &str, about: &str, status: &str, table: &[&Flag]) -> String {
    let mut text = format!("{}\n\n", version());
    wrap(&mut text, "", about);
    let _ = write!(text, "\nUsage: csi-udisk {command} [FLAGS]\n\n");
    for flag in table {
        describe(&mut text, flag);
    }
    keys(&mut text);
    text.push('\n');
    wrap(&mut text, "", status);
    text
}

#[cfg(feature = "sandbox")]
pub(super) fn sandbox(table: &[&Flag]) -> String {
    let mut text = format!(
        "{}\n\nA simulated UCloud with a driver in front of it: walks through the life of a volume on real file\n\
         systems, needs no account, and leaves nothing behind.\n\nUsage: csi-udisk sandbox [FLAGS]\n\n",
        version(),
    );
    for flag in table {
        describe(&mut text, flag);
    }
    text
}

pub(super) fn version() -> String {
    format!("csi-udisk {}", env!("CARGO_PKG_VERSION"))
}

fn describe(text: &mut String, flag: &Flag) {
    let _ = write!(text, "  --{}", flag.name);
    match flag.kind {
        Kind::Value(name) => {
            let _ = write!(text, " {name}");
        }
        Kind::Switch => text.push_str("[=true|false]"),
        Kind::IgnoredSwitch | Kind::IgnoredValue => {}
    }
    if !flag.variables.is_empty() {
        let _ = write!(text, "   [{}]", flag.variables.join(", "));
    }
    text.push('\n');
    let mut help = flag.help.to_owned();
    if let Some(default) = flag.default {
        let _ = write!(help, " Default: {default}.");
    }
    wrap(text, INDENT, &help);
}

fn keys(text: &mut String) {
    text.push_str("  Keys   [");
    let pairs: Vec<String> =
        KEY_VARIABLES.iter().map(|(public, private)| format!("{public} with {private}")).collect();
    text.push_str(&pairs.join(",\n          "));
    text.push_str("]\n");
    wrap(text, INDENT, "In variables only, because arguments are visible to every user of the host.");
}

fn wrap(text: &mut String, indent: &str, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push_str(indent);
            column = indent.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
