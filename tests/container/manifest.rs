//! Containers of the rendered manifests, as options of podman.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The node's name, which Kubernetes would fill in.
const NODE_NAME: &str = "10.9.0.11";

/// deploy/base, rendered: the directory is set by `tests/container/run`.
pub fn rendered() -> Vec<Value> {
    let dir = std::env::var("CSI_UDISK_RENDERED").expect("tests/container/run sets CSI_UDISK_RENDERED");
    let text = std::fs::read_to_string(Path::new(&dir).join("base.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[derive(Debug)]
pub enum Volume {
    HostPath { path: String, create: bool },
    Empty { name: String, group: Option<u32> },
}

#[derive(Debug)]
struct Mount {
    volume: Volume,
    path: String,
    propagation: &'static str,
    read_only: bool,
}

/// What the manifest says of one container.
#[derive(Debug)]
pub struct Container {
    /// Of the object.
    pub name: String,
    pub arguments: Vec<String>,
    pub liveness: Vec<String>,
    pub readiness: Vec<String>,
    mounts: Vec<Mount>,
    privileged: bool,
    read_only_root: bool,
    may_escalate: bool,
    dropped: Vec<String>,
    user: u64,
    group: u64,
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let list = list.as_array().unwrap_or_else(|| panic!("no list with {name}"));
    list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// A container of an object with a pod template.
pub fn container(documents: &[Value], kind: &str, object: &str, name: &str) -> Container {
    let object_is = |one: &&Value| one["kind"] == kind && one["metadata"]["name"] == object;
    let pod = &documents.iter().find(object_is).expect(object)["spec"]["template"]["spec"];
    let own = named(&pod["containers"], name);
    let both = |key: &str| {
        let value = &own["securityContext"][key];
        if value.is_null() { pod["securityContext"][key].clone() } else { value.clone() }
    };
    let environment = own["env"].as_array().unwrap();
    let node_name =
        environment.iter().find(|one| one["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName");
    let variable = format!("$({})", node_name.unwrap()["name"].as_str().unwrap());
    let mount = |mount: &Value| {
        let volume = named(&pod["volumes"], mount["name"].as_str().unwrap());
        let group = pod["securityContext"]["fsGroup"].as_u64().map(|group| u32::try_from(group).unwrap());
        let volume = match volume["hostPath"]["path"].as_str() {
            Some(path) => Volume::HostPath {
                path: path.to_owned(),
                create: volume["hostPath"]["type"] == "DirectoryOrCreate",
            },
            None if volume["emptyDir"].is_object() => {
                Volume::Empty { name: volume["name"].as_str().unwrap().to_owned(), group }
            }
            None => panic!("neither a directory of the host nor an empty one: {volume}"),
        };
        let propagation = match mount["mountPropagation"].as_str() {
            Some("Bidirectional") => "rshared",
            Some("HostToContainer") => "rslave",
            _ => "rprivate",
        };
        let path = mount["mountPath"].as_str().unwrap().to_owned();
        Mount { volume, path, propagation, read_only: mount["readOnly"] == true }
    };
    Container {
        name: object.to_owned(),
        arguments: words(&own["args"]).into_iter().map(|word| word.replace(&variable, NODE_NAME)).collect(),
        liveness: words(&own["livenessProbe"]["exec"]["command"]),
        readiness: words(&own["readinessProbe"]["exec"]["command"]),
        mounts: own["volumeMounts"].as_array().unwrap().iter().map(mount).collect(),
        privileged: both("privileged") == true,
        read_only_root: both("readOnlyRootFilesystem") == true,
        may_escalate: both("allowPrivilegeEscalation") != false,
        dropped: words(&own["securityContext"]["capabilities"]["drop"]),
        user: both("runAsUser").as_u64().unwrap(),
        group: both("runAsGroup").as_u64().unwrap(),
    }
}

impl Container {
    pub fn podman_arguments(&self, place: impl Fn(&Volume) -> PathBuf) -> Vec<String> {
        let mut options = vec![format!("--user={}:{}", self.user, self.group)];
        if self.privileged {
            options.push("--privileged".into());
        }
        if self.read_only_root {
            options.extend(["--read-only".into(), "--read-only-tmpfs=false".into()]);
        }
        if !self.may_escalate {
            options.push("--security-opt=no-new-privileges".into());
        }
        options.extend(self.dropped.iter().map(|name| format!("--cap-drop={}", name.to_lowercase())));
        options.extend(self.mounts.iter().map(|mount| {
            let (place, path) = (place(&mount.volume), &mount.path);
            let access = if mount.read_only { "ro" } else { "rw" };
            format!("--volume={}:{path}:{access},{}", place.display(), mount.propagation)
        }));
        options
    }
}
