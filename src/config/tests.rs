use std::collections::HashMap;

use secrecy::ExposeSecret as _;

use super::*;
use crate::telemetry::log::Format;

/// Parses a command line of words, with variables as `NAME=value` words.
fn run(line: &str, variables: &str) -> Result<Command, Faults> {
    let map: HashMap<String, OsString> = variables
        .split_whitespace()
        .map(|word| word.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    parse(line.split_whitespace().map(OsString::from), &|name: &str| map.get(name).cloned())
}

fn config(line: &str, variables: &str) -> Config {
    match run(line, variables) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{line:?} with {variables:?}: {other:?}"),
    }
}

fn faults(line: &str, variables: &str) -> Vec<String> {
    match run(line, variables) {
        Err(Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        Ok(other) => panic!("{line:?} with {variables:?}: {other:?}"),
    }
}

#[test]
fn without_anything_the_defaults_hold() {
    let config = config("", "");
    assert_eq!(config.mode, Mode::All);
    assert_eq!(config.driver_name, "udisk.csi.ucloud.cn");
    assert_eq!(config.endpoint, PathBuf::from("/csi/csi.sock"));
    assert_eq!(config.metadata_endpoint.as_str(), "http://100.80.80.80/");
    assert_eq!((config.region, config.zone), (None, None));
    assert_eq!(config.node.max_volumes, 20);
    assert_eq!(config.node.kubelet_dir, PathBuf::from("/var/lib/kubelet"));
    assert_eq!(config.node.sysfs_root, PathBuf::from("/sys"));
    assert_eq!(config.node.dev_root, PathBuf::from("/dev"));
    assert!(!config.node.cloud_lookup);
    assert_eq!(config.cloud.api_endpoint.as_str(), "http://api.service.ucloud.cn/");
    assert_eq!(config.cloud.api_timeout, Duration::from_secs(30));
    assert_eq!(config.cloud.create_settle, Duration::from_secs(60));
    assert_eq!(config.cloud.read_lag, Duration::from_secs(10));
    assert_eq!(config.cloud.multi_attach, MultiAttach::No);
    assert!(!config.cloud.cross_pod_attach);
    assert!(matches!(
        config.cloud.credentials,
        Credentials::Sts { role, role_v2 } if role == "Uk8sServiceCharacter" && role_v2 == "ServiceRoleForUK8S"
    ));
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(config.log.filter.to_string(), "warn,csi_udisk=info");
}

/// The command lines and variables of the plugin that is replaced, version 24.07.01, as UK8S starts it.
#[test]
fn the_replaced_plugins_command_lines_are_understood() {
    const MAP: &str = "UCLOUD_REGION_ID=cn-bj2 UCLOUD_PROJECT_ID=org-1uxhh0 UCLOUD_VPC_ID=uvnet-fngihq \
                       UCLOUD_SUBNET_ID=subnet-tk2h2v UCLOUD_API_ENDPOINT=http://api.service.ucloud.cn \
                       UCLOUD_UK8S_CLUSTER_ID=uk8s-3aqwlaey";
    let controller = config(
        "--drivername=udisk.csi.ucloud.cn --endpoint=unix://csi/csi.sock --hostname=10.9.184.108 \
         --maxvolume=20 --v=5",
        MAP,
    );
    assert_eq!(controller.endpoint, PathBuf::from("/csi/csi.sock"));
    assert_eq!(controller.region, Some(Setting { value: "cn-bj2".into(), explicit: false }));
    assert_eq!(controller.cloud.project_id.as_deref(), Some("org-1uxhh0"));
    assert_eq!(controller.cloud.vpc_id.as_deref(), Some("uvnet-fngihq"));
    assert_eq!(controller.node.hostname.as_deref(), Some("10.9.184.108"));
    assert_eq!(controller.log.filter.to_string(), "warn,csi_udisk=debug");
    assert!(controller.ignored.is_empty());

    let node = config(
        "--hostname=10.9.184.108 --endpoint=unix://var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn/csi.sock \
         --v=7 --maxvolume=20 --drivername=udisk.csi.ucloud.cn --alsologtostderr=true \
         --plugin-dir=/var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn/",
        MAP,
    );
    let directory = PathBuf::from("/var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn");
    assert_eq!(node.endpoint, directory.join("csi.sock"));
    assert_eq!(node.plugin_dir, Some(directory));
    assert_eq!(node.ignored, ["--alsologtostderr=true"]);
}

#[test]
fn values_in_every_spelling() {
    // command line, variables, what to look at, what it must be
    type Look = fn(&Config) -> String;
    let mode: Look = |c| c.mode.word().into();
    let endpoint: Look = |c| c.endpoint.display().to_string();
    let region: Look = |c| c.region.as_ref().map_or("-".into(), |r| format!("{} {}", r.value, r.explicit));
    let zone: Look = |c| c.zone.as_ref().map_or("-".into(), |z| format!("{} {}", z.value, z.explicit));
    let volumes: Look = |c| c.node.max_volumes.to_string();
    let api: Look = |c| c.cloud.api_endpoint.to_string();
    let timeout: Look = |c| format!("{:?}", c.cloud.api_timeout);
    let settle: Look = |c| format!("{:?}", c.cloud.create_settle);
    let multi: Look = |c| format!("{:?}", c.cloud.multi_attach);
    let cross: Look = |c| c.cloud.cross_pod_attach.to_string();
    let filter: Look = |c| c.log.filter.to_string();
    let format: Look = |c| format!("{:?}", c.log.format);
    let ignored: Look = |c| c.ignored.join(" ");
    let keys: Look = |c| match &c.cloud.credentials {
        Credentials::Keys { public, private } => {
            format!("keys {} {}", public.expose_secret(), private.expose_secret())
        }
        Credentials::Directory(dir) => format!("dir {}", dir.display()),
        Credentials::Sts { role, role_v2 } => format!("sts {role} {role_v2}"),
    };
    let rows: &[(&str, &str, Look, &str)] = &[
        // spellings of a flag
        ("--mode node", "", mode, "node"),
        ("--mode=controller", "", mode, "controller"),
        ("-mode=node", "", mode, "node"),
        ("-mode node", "", mode, "node"),
        ("--mode node --mode all", "", mode, "all"),
        ("--kubelet_dir /data/kubelet", "", |c| c.node.kubelet_dir.display().to_string(), "/data/kubelet"),
        // flag, then ConfigMap name, then SDK name; empty is unset
        ("", "CSI_UDISK_MODE=node", mode, "node"),
        ("--mode=controller", "CSI_UDISK_MODE=node", mode, "controller"),
        ("--region=a", "UCLOUD_REGION_ID=b UCLOUD_REGION=c", region, "a true"),
        ("", "UCLOUD_REGION_ID=b UCLOUD_REGION=c", region, "b false"),
        ("", "UCLOUD_REGION=c", region, "c false"),
        ("", "UCLOUD_REGION_ID= UCLOUD_REGION=c", region, "c false"),
        ("--region=", "UCLOUD_REGION_ID= UCLOUD_REGION=", region, "-"),
        ("--zone=", "UCLOUD_ZONE_ID=cn-bj2-05", zone, "cn-bj2-05 false"),
        ("", "UCLOUD_ZONE=cn-bj2-02", zone, "cn-bj2-02 false"),
        (
            "--api-endpoint=https://api.ucloud.cn",
            "UCLOUD_API_ENDPOINT=http://x",
            api,
            "https://api.ucloud.cn/",
        ),
        ("", "UCLOUD_API_BASE_URL=http://127.0.0.1:8080/", api, "http://127.0.0.1:8080/"),
        ("", "UCLOUD_TIMEOUT_SECOND=45", timeout, "45s"),
        // endpoints
        ("--endpoint unix:///csi/csi.sock", "", endpoint, "/csi/csi.sock"),
        ("--endpoint unix://csi/csi.sock", "", endpoint, "/csi/csi.sock"),
        ("--endpoint UNIX:///csi/csi.sock", "", endpoint, "/csi/csi.sock"),
        ("--endpoint unix:/csi/csi.sock", "", endpoint, "/csi/csi.sock"),
        ("--endpoint /csi/csi.sock", "", endpoint, "/csi/csi.sock"),
        ("--endpoint run/csi.sock", "", endpoint, "run/csi.sock"),
        ("--plugin-dir /plugins/udisk/", "", endpoint, "/plugins/udisk/csi.sock"),
        ("--plugin-dir /plugins/udisk --endpoint /a", "", endpoint, "/a"),
        ("", "CSI_UDISK_ENDPOINT=unix:///e/s", endpoint, "/e/s"),
        // numbers, times, switches
        ("--maxvolume 1", "", volumes, "1"),
        ("--maxvolume=26", "", volumes, "26"),
        ("--create-settle 1m30s", "", settle, "90s"),
        ("--create-settle 250ms", "", settle, "250ms"),
        ("--create-settle 5", "", settle, "5s"),
        ("--multi-attach yes", "", multi, "Yes"),
        ("--multi-attach=omit", "", multi, "Omit"),
        ("--cross-pod-attach", "", cross, "true"),
        ("--cross-pod-attach=false", "CSI_UDISK_CROSS_POD_ATTACH=true", cross, "false"),
        ("", "CSI_UDISK_CROSS_POD_ATTACH=1", cross, "true"),
        // keys
        ("", "UCLOUD_ACCESS_PUBKEY=a UCLOUD_ACCESS_PRIKEY=b UCLOUD_API_PUBKEY=c", keys, "keys a b"),
        (
            "",
            "UCLOUD_API_PUBKEY=c UCLOUD_API_PRIKEY=d UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f",
            keys,
            "keys c d",
        ),
        ("", "UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f", keys, "keys e f"),
        ("--credentials-dir /keys", "UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f", keys, "keys e f"),
        ("--credentials-dir /keys", "UCLOUD_PUBLIC_KEY= UCLOUD_PRIVATE_KEY=", keys, "dir /keys"),
        ("--sts-role A", "CSI_UDISK_STS_ROLE_V2=B", keys, "sts A B"),
        (
            "--mode node --sts-role A",
            "UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f",
            keys,
            "sts A ServiceRoleForUK8S",
        ),
        ("--mode node --credentials-dir /k", "UCLOUD_PUBLIC_KEY=e", keys, "dir /k"),
        (
            "--mode node --node-cloud-lookup=false",
            "UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f",
            keys,
            "sts Uk8sServiceCharacter ServiceRoleForUK8S",
        ),
        ("--mode node --node-cloud-lookup", "UCLOUD_PUBLIC_KEY=e UCLOUD_PRIVATE_KEY=f", keys, "keys e f"),
        ("--mode node", "CSI_UDISK_NODE_CLOUD_LOOKUP=true", |c| c.node.cloud_lookup.to_string(), "true"),
        // log
        ("--v=0", "", filter, "warn,csi_udisk=warn"),
        ("-v=3", "", filter, "warn,csi_udisk=info"),
        ("-v 4", "", filter, "warn,csi_udisk=debug"),
        ("--v=10", "", filter, "warn,csi_udisk=trace"),
        ("--v=5 --log info", "", filter, "info"),
        ("", "CSI_UDISK_LOG=csi_udisk::ucloud=trace", filter, "csi_udisk::ucloud=trace"),
        ("--log-format text", "", format, "Text"),
        ("--alsologtostderr", "", ignored, "--alsologtostderr"),
        (
            "-alsologtostderr=true --logtostderr --stderrthreshold INFO --vmodule=a=2 --log-dir /x",
            "",
            ignored,
            "-alsologtostderr=true --logtostderr --stderrthreshold --vmodule=a=2 --log-dir",
        ),
    ];
    for (line, variables, look, expected) in rows {
        assert_eq!(look(&config(line, variables)), *expected, "{line:?} with {variables:?}");
    }
}

#[test]
fn faults_name_the_flag_its_variables_and_what_is_allowed() {
    let long = format!("--endpoint /{}", "x".repeat(107));
    let long_dir = format!("--plugin-dir /{}", "x".repeat(100));
    // command line, variables, what the one fault must hold
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "--mode both",
            "",
            &["--mode (CSI_UDISK_MODE)", "\"both\"", "command line", "controller, node, all"],
        ),
        ("", "CSI_UDISK_MODE=x", &["--mode", "in CSI_UDISK_MODE", "controller, node, all"]),
        ("--mode", "", &["--mode (CSI_UDISK_MODE)", "has no value"]),
        ("--maxvolume 0", "", &["--maxvolume (CSI_UDISK_MAXVOLUME)", "\"0\"", "1 to 26"]),
        ("--maxvolume 27", "", &["\"27\"", "1 to 26"]),
        ("", "CSI_UDISK_MAXVOLUME=many", &["in CSI_UDISK_MAXVOLUME", "1 to 26"]),
        ("--maxvolume -1", "", &["\"-1\"", "1 to 26"]),
        (
            "--endpoint tcp://0.0.0.0:1",
            "",
            &["--endpoint (CSI_UDISK_ENDPOINT)", "not a unix socket", "unix:///"],
        ),
        ("--endpoint unix://", "", &["names no file"]),
        ("--endpoint /csi/", "", &["names no file"]),
        ("--endpoint /", "", &["names no file"]),
        (&long, "", &["108 bytes", "107"]),
        (&long_dir, "", &["--plugin-dir", "csi.sock", "107"]),
        ("--plugin-dir csi", "", &["--plugin-dir", "absolute"]),
        ("--kubelet-dir /a/../b", "", &["--kubelet-dir", ".."]),
        ("--sysfs-root sys", "", &["--sysfs-root", "absolute"]),
        ("--dev-root dev", "", &["--dev-root", "absolute"]),
        ("--credentials-dir keys", "", &["--credentials-dir", "absolute"]),
        ("--drivername a/b", "", &["--drivername (CSI_UDISK_DRIVERNAME)", "63"]),
        ("--drivername -x-", "", &["--drivername", "both ends"]),
        (
            "--api-endpoint api.ucloud.cn",
            "",
            &["--api-endpoint (UCLOUD_API_ENDPOINT, UCLOUD_API_BASE_URL)", "http"],
        ),
        ("--api-endpoint ftp://x", "", &["neither http nor https"]),
        ("--api-endpoint http://u:p@x", "", &["user name"]),
        ("--api-endpoint http://x/?Action=1", "", &["query"]),
        ("--metadata-endpoint nowhere", "", &["--metadata-endpoint", "http"]),
        ("", "UCLOUD_TIMEOUT_SECOND=0", &["--api-timeout", "in UCLOUD_TIMEOUT_SECOND", "1s to 120s"]),
        ("--create-settle soon", "", &["--create-settle", "not a duration", "1m30s"]),
        ("--create-settle 2h", "", &["out of range", "0s to 3600s"]),
        ("--read-lag 301s", "", &["--read-lag", "out of range", "0s to 300s"]),
        ("--create-settle 99999999999999999999h", "", &["not a duration"]),
        ("", "UCLOUD_ZONE_ID=a/b", &["--zone (UCLOUD_ZONE_ID, UCLOUD_ZONE)", "cn-bj2-05"]),
        ("--region a,b", "", &["--region", "letters"]),
        ("--node-id uhost/1", "", &["--node-id", "uhost-abc123"]),
        ("--cross-pod-attach=maybe", "", &["--cross-pod-attach", "true, false"]),
        ("--node-cloud-lookup=maybe", "", &["--node-cloud-lookup", "true, false"]),
        ("--mode node --node-cloud-lookup", "UCLOUD_PUBLIC_KEY=a", &["UCLOUD_PRIVATE_KEY", "both or none"]),
        ("--multi-attach=maybe", "", &["--multi-attach", "no, yes, omit"]),
        ("--log-format=xml", "", &["--log-format", "json, text"]),
        ("--v=loud", "", &["--v (CSI_UDISK_V)", "0 to 10"]),
        ("--log a=b=c", "", &["--log (CSI_UDISK_LOG)", "debug"]),
        ("--maxvolumes=3", "", &["--maxvolumes is not a flag", "--help"]),
        ("serve", "", &["\"serve\" is not a flag"]),
        ("", "UCLOUD_ACCESS_PUBKEY=a", &["UCLOUD_ACCESS_PRIKEY", "both or none"]),
        ("", "UCLOUD_PRIVATE_KEY=a", &["UCLOUD_PUBLIC_KEY", "both or none"]),
    ];
    for (line, variables, holds) in rows {
        let faults = faults(line, variables);
        assert_eq!(faults.len(), 1, "{line:?} with {variables:?}: {faults:?}");
        for part in *holds {
            assert!(faults[0].contains(part), "{line:?} with {variables:?}: {:?} lacks {part:?}", faults[0]);
        }
    }
}

#[test]
fn all_faults_are_listed_at_once() {
    let faults = run(
        "--mode=x --maxvolume=99 --endpoint=tcp://a --nonsense --log-format=xml",
        "UCLOUD_API_ENDPOINT=nowhere UCLOUD_ACCESS_PUBKEY=a",
    )
    .unwrap_err();
    assert_eq!(faults.0.len(), 7, "{faults}");
    assert!(faults.to_string().starts_with("the configuration has 7 faults:\n  --nonsense"), "{faults}");
}

#[test]
fn text_that_is_not_utf8_is_a_fault_and_not_a_crash() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = || OsString::from_vec(vec![0xff, b'x']);
    let faults = parse([bad()], &|_: &str| None).unwrap_err();
    assert_eq!(faults.0.len(), 1);
    for name in ["UCLOUD_ZONE", "UCLOUD_PRIVATE_KEY"] {
        let faults = parse([], &|asked: &str| (asked == name).then(bad)).unwrap_err();
        assert!(faults.to_string().contains(name), "{faults}");
    }
}

#[test]
fn keys_are_never_shown() {
    let config = config("", "UCLOUD_ACCESS_PUBKEY=publicword UCLOUD_ACCESS_PRIKEY=privateword");
    let shown = format!("{config:?}");
    assert!(!shown.contains("publicword") && !shown.contains("privateword"), "{shown}");
    let faults = run("--mode=x", "UCLOUD_ACCESS_PRIKEY=privateword").unwrap_err();
    assert!(!format!("{faults}{faults:?}").contains("privateword"), "{faults}");
}

#[test]
fn help_shows_every_flag_with_its_variables_and_default() {
    let Ok(Command::Print(help)) = run("--mode=x --help", "") else { panic!("no help") };
    for flag in flags::DRIVER {
        assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
        for part in flag.variables.iter().chain(&flag.default) {
            assert!(help.contains(part), "{} lacks {part}", flag.name);
        }
    }
    for (public, private) in flags::KEY_VARIABLES {
        assert!(help.contains(public) && help.contains(private));
    }
    let widest = help.lines().map(str::len).max().unwrap_or_default();
    assert!(widest <= 110, "{widest} columns");
}

/// The contract: the variable of a flag is UCloud's own name where there is one, else `CSI_UDISK_<FLAG>`.
#[test]
fn every_flag_has_a_variable_by_the_rule() {
    for flag in flags::DRIVER.iter().filter(|flag| flag.group != flags::Group::Ignored) {
        let own = format!("CSI_UDISK_{}", flag.name.to_uppercase().replace('-', "_"));
        let by_rule = flag.variables == [own.as_str()]
            || (!flag.variables.is_empty() && flag.variables.iter().all(|name| name.starts_with("UCLOUD_")));
        assert!(by_rule, "--{}: {:?}", flag.name, flag.variables);
    }
}

#[test]
fn version_is_the_crates() {
    let Ok(Command::Print(text)) = run("--version", "") else { panic!("no version") };
    assert_eq!(text, format!("csi-udisk {}\n", env!("CARGO_PKG_VERSION")));
}

#[cfg(feature = "sandbox")]
#[test]
fn sandbox_has_arguments_of_its_own() {
    let args = |line: &str| match run(line, "") {
        Ok(Command::Sandbox(args)) => args,
        other => panic!("{other:?}"),
    };
    let plain = SandboxArgs { serve: false, cloud_only: false, latency: Latency::Short, dir: None };
    assert_eq!(args("sandbox"), plain);
    assert_eq!(
        args("sandbox --serve --cloud-only --latency none --dir /tmp/x"),
        SandboxArgs { serve: true, cloud_only: true, latency: Latency::None, dir: Some("/tmp/x".into()) }
    );
    assert_eq!(args("sandbox --latency=realistic").latency, Latency::Realistic);
    assert_eq!(faults("sandbox --cloud-only", ""), ["--cloud-only: needs --serve"]);
    assert!(faults("sandbox --latency=slow", "")[0].contains("none, short, realistic"));
    assert!(faults("sandbox --mode=node", "")[0].contains("--mode"));
    let Ok(Command::Print(help)) = run("sandbox --help", "") else { panic!("no help") };
    assert!(help.contains("--serve") && help.contains("--dir DIR"));
}

#[test]
fn a_check_tells_what_a_start_would_without_starting() {
    let said = |line: &str, variables| match run(line, variables) {
        Ok(Command::Print(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    };
    assert_eq!(said("--check-config --mode=node", ""), "the configuration is good\n");
    assert_eq!(
        said("--alsologtostderr=true --check-config", ""),
        "the configuration is good; without effect: --alsologtostderr=true\n"
    );
    assert_eq!(faults("--check-config --mode=half --maxvolume=0", "").len(), 2);
    assert!(matches!(run("--check-config=false", ""), Ok(Command::Run(_))));
}

#[test]
fn a_probe_finds_the_socket_as_the_driver_does() {
    let probe = |line: &str, variables| match run(line, variables) {
        Ok(Command::Probe(args)) => args,
        other => panic!("{line:?}: {other:?}"),
    };
    let args = probe("probe", "");
    assert_eq!(
        (args.endpoint, args.ready, args.timeout),
        ("/csi/csi.sock".into(), false, Duration::from_secs(3))
    );
    let args = probe("probe --ready --timeout 10s", "CSI_UDISK_ENDPOINT=unix://csi/other.sock");
    assert_eq!(
        (args.endpoint, args.ready, args.timeout),
        ("/csi/other.sock".into(), true, Duration::from_secs(10))
    );
    assert_eq!(probe("probe --plugin-dir=/plugin/", "").endpoint, PathBuf::from("/plugin/csi.sock"));
    assert_eq!(faults("probe --endpoint=tcp://x --timeout=2m --mode=node", "").len(), 3);
}

#[test]
fn a_node_registers_itself_when_it_is_told_the_path_that_kubelet_sees() {
    assert_eq!(config("--mode=node", "").node.registration, None);
    let registration =
        config("--kubelet-registration-path=/var/lib/kubelet/plugins/x/csi.sock", "").node.registration;
    let expected =
        Registration { endpoint: "/var/lib/kubelet/plugins/x/csi.sock".into(), dir: "/registration".into() };
    assert_eq!(registration, Some(expected));
}

#[test]
fn the_http_port_is_written_as_in_go() {
    let port =
        |text: &str| config(&format!("--http-endpoint={text}"), "").http_endpoint.map(|a| a.to_string());
    assert_eq!(config("", "").http_endpoint, None);
    assert_eq!(port(":9808").as_deref(), Some("0.0.0.0:9808"));
    assert_eq!(port("127.0.0.1:80").as_deref(), Some("127.0.0.1:80"));
    assert_eq!(port("[::1]:80").as_deref(), Some("[::1]:80"));
    for bad in ["9808", ":0", "localhost:80", ":99999", "http://:80"] {
        let faults = faults(&format!("--http-endpoint={bad}"), "");
        assert!(faults.iter().any(|fault| fault.contains("allowed: an IP address and a port")), "{faults:?}");
    }
}
