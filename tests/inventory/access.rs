//! How a cluster is found and what it is shown: kubeconfigs with certificates, tokens and programs, and the service
//! account of a pod.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use crate::api::Api;
use crate::world::{Answer, World, end};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.secret-of-the-cluster";

/// A cluster's own certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (String, KeyPair, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key, certificate.der().clone())
    }

    /// A server that this authority vouches for; with `clients` it takes only clients that it vouches for, too.
    fn server(&self, clients: bool) -> ServerConfig {
        let (_, key, certificate) = self.issue("127.0.0.1");
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = if clients {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        } else {
            builder.unwrap().with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_single_cert(vec![certificate], key).unwrap()
    }
}

fn base64(text: &str) -> String {
    use std::fmt::Write as _;
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let known = digit <= three.len();
            let at = (bits >> (18 - 6 * digit)) as usize & 63;
            let _ = write!(out, "{}", if known { char::from(DIGITS[at]) } else { '=' });
        }
    }
    out
}

/// A cluster with TLS and one volume, and its authority.
async fn secure(clients: bool) -> (World, Authority) {
    let authority = Authority::new();
    let world = World::with(Api::start_tls(authority.server(clients)).await).await;
    world.volume(1).await;
    (world, authority)
}

async fn with_user(world: &World, authority: &Authority, user: &Value) -> Answer {
    let cluster = json!({ "server": world.api.url, "certificate-authority-data": base64(&authority.pem()) });
    let file = world.write_kubeconfig("secure", &cluster, user);
    let mut command = world.bare_command("volumes --output json");
    command.arg("--kubeconfig").arg(file).env("PATH", "/usr/bin:/bin");
    end(command).await
}

fn good(answer: &Answer) {
    assert_eq!((answer.status, answer.err.as_str()), (0, ""), "{answer:?}");
    assert_eq!(answer.json()["volumes"].as_array().unwrap().len(), 1);
}

fn program(dir: &Path, text: &str) -> String {
    let path = dir.join("credentials");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn tokens_in_the_kubeconfig_and_in_a_file() {
    let (world, authority) = secure(false).await;
    world.api.require_token(TOKEN);
    good(&with_user(&world, &authority, &json!({ "token": TOKEN })).await);
    let file = world.dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    good(&with_user(&world, &authority, &json!({ "tokenFile": file })).await);

    let answer = with_user(&world, &authority, &json!({ "token": "another-secret-token" })).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.err.contains("does not take these credentials: Unauthorized"), "{answer:?}");
    assert!(!answer.err.contains("another-secret"), "{answer:?}");
}

#[tokio::test]
async fn certificates_in_the_kubeconfig_and_in_files() {
    let (world, authority) = secure(true).await;
    let (certificate, key, _) = authority.issue("operator");
    let data = json!({
        "client-certificate-data": base64(&certificate), "client-key-data": base64(&key.serialize_pem())
    });
    good(&with_user(&world, &authority, &data).await);
    // Relative to the kubeconfig.
    std::fs::write(world.dir.path().join("c.crt"), &certificate).unwrap();
    std::fs::write(world.dir.path().join("c.key"), key.serialize_pem()).unwrap();
    let files = json!({ "client-certificate": "c.crt", "client-key": "c.key" });
    good(&with_user(&world, &authority, &files).await);

    let answer = with_user(&world, &authority, &json!({})).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
}

#[tokio::test]
async fn programs_that_give_tokens() {
    let (world, authority) = secure(false).await;
    world.api.require_token(TOKEN);
    let exec = |text: &str| {
        let command = program(world.dir.path(), text);
        json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": ["get", "token"],
            "env": [{ "name": "SECRET", "value": "secret-of-the-program" }], "interactiveMode": "Never"
        }})
    };
    let credential = format!(
        r#"[ "$1 $2" = "get token" ] && echo '{{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {{"token": "{TOKEN}"}}}}'"#
    );
    good(&with_user(&world, &authority, &exec(&credential)).await);

    // What it prints for people is shown; what may be the credentials, and its environment, are not.
    let broken = exec(&format!("echo {TOKEN}; echo 'please log in first' >&2; exit 3"));
    let answer = with_user(&world, &authority, &broken).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(
        answer.err.contains("please log in first") && answer.err.contains("exit status: 3"),
        "{answer:?}"
    );
    let garbage = with_user(&world, &authority, &exec(&format!("echo '{TOKEN} x: y: z'"))).await;
    assert_eq!(garbage.status, 1, "{garbage:?}");
    for answer in [&answer, &garbage] {
        assert!(!answer.err.contains("secret-of"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_asked() {
    let (world, _) = secure(false).await;
    let answer = with_user(&world, &Authority::new(), &json!({ "token": TOKEN })).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.err.contains("certificate"), "{answer:?}");
    assert!(world.api.log().is_empty());
}

#[tokio::test]
async fn files_are_merged_and_contexts_chosen_as_kubectl_does() {
    let world = World::start().await;
    world.volume(1).await;
    let other = Api::start().await;
    let first = world.write_kubeconfig("first", &json!({ "server": other.url }), &json!({}));
    let second = world.dir.path().join("second");
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": "d", "cluster": { "server": world.api.url } }],
        "contexts": [{ "name": "y", "context": { "cluster": "d", "user": "u" } }], "current-context": "y"
    });
    std::fs::write(&second, config.to_string()).unwrap();
    let list = format!("{}:/does/not/exist:{}", first.display(), second.display());
    let run = |line: &'static str, variables: Vec<(&'static str, String)>| {
        let mut command = world.bare_command(line);
        command.envs(variables);
        end(command)
    };
    // The first file's context holds, and the second's can be chosen.
    let answer = run("volumes", vec![("KUBECONFIG", list.clone())]).await;
    assert!(answer.out.starts_with("0 volumes"), "{answer:?}");
    let answer = run("volumes --context y", vec![("KUBECONFIG", list)]).await;
    assert!(answer.out.contains("1 volume, "), "{answer:?}");

    // Without a word, the file in the home directory.
    let home = world.dir.path().join("home");
    std::fs::create_dir_all(home.join(".kube")).unwrap();
    std::fs::copy(&second, home.join(".kube/config")).unwrap();
    let answer = run("volumes", vec![("HOME", home.display().to_string())]).await;
    assert!(answer.out.contains("1 volume, "), "{answer:?}");
}

#[tokio::test]
async fn without_a_cluster_it_says_where_it_looked() {
    let world = World::start().await;
    let run = |line: String| end(world.bare_command(&line));
    for (line, words) in [
        ("volumes", &["--kubeconfig", "KUBECONFIG", "no pod"][..]),
        ("volumes --kubeconfig /does/not/exist", &["/does/not/exist", "exists"]),
        ("volumes --context x", &["--context", "there is none"]),
    ] {
        let answer = run(line.to_owned()).await;
        assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
        for word in words {
            assert!(answer.err.contains(word), "{word:?} is not in {answer:?}");
        }
    }
    let broken = world.dir.path().join("broken");
    std::fs::write(&broken, "apiVersion: [").unwrap();
    let answer = run(format!("volumes --kubeconfig {}", broken.display())).await;
    assert!(answer.err.contains("broken cannot be used"), "{answer:?}");
    let answer = run(format!("volumes --context z --kubeconfig {}", world.kubeconfig().display())).await;
    assert!(answer.err.contains('z'), "{answer:?}");
}
