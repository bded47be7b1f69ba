//! Parsers of single values. Each error completes the sentence `"<text>" <origin> …` and names what is allowed.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::{Mode, MultiAttach};
use crate::telemetry::log::{Filter, Format};
use crate::volume::{HostId, Zone};

/// The kernel's limit for the path of a unix socket, without the closing NUL.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "controller" => Ok(Mode::Controller),
        "node" => Ok(Mode::Node),
        "all" => Ok(Mode::All),
        _ => Err("is not a mode; allowed: controller, node, all".into()),
    }
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        _ => Err("is not a format; allowed: json, text".into()),
    }
}

pub(super) fn multi_attach(text: &str) -> Result<MultiAttach, String> {
    match text.to_ascii_lowercase().as_str() {
        "no" | "false" => Ok(MultiAttach::No),
        "yes" | "true" => Ok(MultiAttach::Yes),
        "omit" => Ok(MultiAttach::Omit),
        _ => Err("cannot be understood; allowed: no, yes, omit".into()),
    }
}

#[cfg(feature = "sandbox")]
pub(super) fn latency(text: &str) -> Result<super::Latency, String> {
    match text {
        "none" => Ok(super::Latency::None),
        "short" => Ok(super::Latency::Short),
        "realistic" => Ok(super::Latency::Realistic),
        _ => Err("is not a latency; allowed: none, short, realistic".into()),
    }
}

/// The words that Go takes for a bool.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("is not a truth value; allowed: true, false".into()),
    }
}

/// A socket as Kubernetes manifests spell it. `unix://csi/csi.sock` means `/csi/csi.sock`: the plugin that
/// this driver replaces is started so.
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    const ALLOWED: &str =
        "allowed: unix:///csi/csi.sock, unix://csi/csi.sock, unix:/csi/csi.sock, /csi/csi.sock";
    let path = if let Some(rest) = strip_prefix_ignoring_case(text, "unix://") {
        PathBuf::from(format!("/{}", rest.trim_start_matches('/')))
    } else if let Some(rest) = strip_prefix_ignoring_case(text, "unix:") {
        PathBuf::from(rest)
    } else if text.contains("://") {
        return Err(format!("is not a unix socket; {ALLOWED}"));
    } else {
        PathBuf::from(text)
    };
    if text.ends_with('/') || path.file_name().is_none() {
        return Err(format!("names no file; {ALLOWED}"));
    }
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(format!(
            "is {length} bytes long as a path; the kernel allows {MAX_SOCKET_PATH} for a socket"
        ));
    }
    Ok(path)
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err("is not an absolute path; it must start with /".into());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("holds a \"..\"; give the directory itself".into());
    }
    Ok(path.components().collect())
}

/// The base address of an HTTP service.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    const ALLOWED: &str = "allowed: an address such as http://api.service.ucloud.cn or https://api.ucloud.cn";
    let url = Url::parse(text).map_err(|e| format!("is not a URL ({e}); {ALLOWED}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("is neither http nor https; {ALLOWED}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("holds a user name or password; {ALLOWED}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("holds a query; {ALLOWED}"));
    }
    Ok(url)
}

/// Where to listen. `:9808` is every address of the pod, as Go's programs write it.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    match full.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) | Err(_) => {
            Err("is not an address to listen on; allowed: an IP address and a port from 1 to 65535, \
                               such as :9808, 127.0.0.1:9808 or [::1]:9808"
                .into())
        }
    }
}

/// CSI's rule for driver names: a domain name of at most 63 characters.
pub(super) fn driver_name(text: &str) -> Result<String, String> {
    let edge_ok = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner_ok = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    if text.len() <= 63 && inner_ok && edge_ok(text.chars().next()) && edge_ok(text.chars().next_back()) {
        Ok(text.to_owned())
    } else {
        Err("is not a driver name; allowed: up to 63 letters, digits, '-' and '.', with a letter or digit at \
             both ends"
            .into())
    }
}

pub(super) fn zone(text: &str) -> Result<Zone, String> {
    Zone::parse(text).map_err(|e| format!("{e}; allowed: a zone such as cn-bj2-05"))
}

pub(super) fn host_id(text: &str) -> Result<HostId, String> {
    HostId::parse(text).map_err(|e| format!("{e}; allowed: a host id such as uhost-abc123 or upm-abc123"))
}

/// Region, project, VPC, role: words that the cloud made.
pub(super) fn word(text: &str) -> Result<String, String> {
    if text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        Ok(text.to_owned())
    } else {
        Err("is not an id of the cloud; allowed: up to 128 letters, digits, '-', '_' and '.'".into())
    }
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("is not a node name; allowed: up to 253 visible characters without spaces".into())
    }
}

pub(super) fn max_volumes(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(n @ 1..=26) => Ok(n),
        _ => Err("is not a number of volumes; allowed: 1 to 26, the most that a host takes".into()),
    }
}

/// A duration in Go's spelling (`1m30s`, `500ms`), or a plain number of seconds, in a range.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let allowed = || format!("allowed: {} to {}, written like 45, 45s or 1m30s", Text(least), Text(most));
    let value = any_duration(text).ok_or_else(|| format!("is not a duration; {}", allowed()))?;
    if value < least || value > most {
        return Err(format!("is out of range; {}", allowed()));
    }
    Ok(value)
}

fn any_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(Duration::from_millis(part))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

struct Text(Duration);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

#[cfg(feature = "kube")]
pub(super) fn output(text: &str) -> Result<super::Output, String> {
    match text {
        "text" => Ok(super::Output::Text),
        "wide" => Ok(super::Output::Wide),
        "json" => Ok(super::Output::Json),
        _ => Err("is not a form of output; allowed: text, wide, json".into()),
    }
}

/// What a provisioner begins the names of volumes with.
#[cfg(feature = "kube")]
pub(super) fn csi_prefix(text: &str) -> Result<String, String> {
    if text.len() <= 91
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
    {
        Ok(text.to_owned())
    } else {
        Err("is no prefix of Kubernetes names; allowed: up to 91 small letters, digits, '-' and '.'".into())
    }
}

/// A prefix that tells one cluster's disks from those of others.
#[cfg(feature = "kube")]
pub(super) fn name_mark(text: &str) -> Result<String, String> {
    let prefix = csi_prefix(text)?;
    if prefix == crate::inventory::names::COMMON_PREFIX {
        return Err("is what the provisioner of every cluster begins names with; it tells nothing. Allowed: what this \
                    cluster's provisioner, and no other, has as --volume-name-prefix"
            .into());
    }
    // A uid and a dash take 37 of the 63 characters that the cloud has for a name.
    if prefix.len() > 26 || prefix.contains('.') {
        return Err(
            "cannot be seen in the names of disks, which are hashes where the cloud does not take the name; \
                    allowed: up to 26 letters, digits and '-'"
                .into(),
        );
    }
    Ok(prefix)
}

/// A business group that can be reserved for a cluster.
#[cfg(feature = "kube")]
pub(super) fn group_mark(text: &str) -> Result<String, String> {
    if text == "Default" {
        return Err("is the group of every disk that has no other; it tells nothing".into());
    }
    Ok(text.to_owned())
}

#[cfg(feature = "kube")]
pub(super) fn disk_ids(text: &str) -> Result<Vec<crate::volume::DiskId>, String> {
    let one = |id: &str| {
        let id = crate::volume::DiskId::parse(id.trim());
        id.map_err(|error| {
            format!("holds an id that {error}; allowed: ids of disks with commas between them")
        })
    };
    text.split(',').map(one).collect()
}

/// What a klog verbosity means here. Libraries below stay at warnings: their details are not about volumes.
pub(super) fn verbosity(text: &str) -> Result<Filter, String> {
    let level = match text.parse::<u32>() {
        Ok(0) => "warn",
        Ok(1..=3) => "info",
        Ok(4..=7) => "debug",
        Ok(_) => "trace",
        Err(_) => return Err("is not a verbosity; allowed: 0 to 10".into()),
    };
    filter(&format!("warn,csi_udisk={level}"))
}

pub(super) fn filter(text: &str) -> Result<Filter, String> {
    Filter::parse(text).map_err(|e| {
        format!("is not a log filter ({e}); allowed: levels error, warn, info, debug, trace, as in info,csi_udisk::ucloud=debug")
    })
}
