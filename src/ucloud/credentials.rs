//! The keys that requests are signed with, and where they come from.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};

use super::metadata::{Metadata, MetadataError};
use super::params;
use super::sts::{Roles, Sts};
use super::transport::Transport;
use crate::cloud::Deadline;

/// A pair of keys, with a token when they are temporary. Nothing of it prints.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(super) public_key: SecretString,
    pub(super) private_key: SecretString,
    pub(super) security_token: Option<SecretString>,
    /// The project that temporary keys belong to, for when none is configured.
    pub(super) project_id: Option<String>,
}

impl Credentials {
    /// Keys that do not expire.
    pub fn keys(public_key: SecretString, private_key: SecretString) -> Self {
        Self { public_key, private_key, security_token: None, project_id: None }
    }

    pub(super) fn temporary(public: &str, private: &str, token: &str, project_id: Option<&str>) -> Self {
        Self {
            public_key: public.into(),
            private_key: private.into(),
            security_token: Some(token.into()),
            project_id: project_id.map(str::to_owned),
        }
    }

    /// Blanks keys and signature where a foreign text quotes them, in whatever spelling, whole or cut off at the end.
    /// The text must be all of what arrived: of one that was shortened here, a rest could remain.
    pub(super) fn scrub(&self, signature: &str, text: &str) -> String {
        // Shorter ones are no real keys and would blank ordinary words.
        const SHORTEST: usize = 6;
        let keys = [Some(&self.public_key), Some(&self.private_key), self.security_token.as_ref()];
        let keys = keys.into_iter().flatten().map(|key| key.expose_secret());
        let mut text = text.to_owned();
        for secret in keys.chain([signature]).filter(|secret| secret.len() >= SHORTEST) {
            for spelling in spellings(secret) {
                text = text.replace(&spelling, "***");
                let cut = (SHORTEST..spelling.len()).rev().filter_map(|end| spelling.get(..end));
                if let Some(rest) = cut.into_iter().find_map(|start| text.strip_suffix(start)) {
                    text = format!("{rest}***");
                }
            }
        }
        text
    }
}

/// How forms, URLs and JSON write a text.
fn spellings(secret: &str) -> [String; 4] {
    let mut form = String::new();
    params::escape(&mut form, secret);
    let mut small = form.clone();
    for (at, _) in form.match_indices('%') {
        small.replace_range(at..at + 3, &form[at..at + 3].to_ascii_lowercase());
    }
    [secret.to_owned(), form, small, secret.replace('/', "\\/")]
}

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialError {
    #[error("the credentials directory {} cannot be read: {problem}", directory.display())]
    Unreadable { directory: PathBuf, problem: String },
    #[error(
        "the credentials directory {} holds no keys; it needs the files UCLOUD_ACCESS_PUBKEY and \
         UCLOUD_ACCESS_PRIKEY",
        directory.display()
    )]
    Empty { directory: PathBuf },
    #[error("the credentials directory {} holds {present} but no {missing}", directory.display())]
    Half { directory: PathBuf, present: &'static str, missing: &'static str },
    #[error("no temporary keys: {0}")]
    Metadata(#[source] MetadataError),
    #[error("no temporary keys: role {role_v1}: {v1}; role {role_v2}: {v2}")]
    NoRole { role_v1: String, v1: Box<MetadataError>, role_v2: String, v2: Box<MetadataError> },
    #[error("no temporary keys: they are being fetched, which took too long")]
    Waiting,
}

impl CredentialError {
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Empty { .. } | Self::Half { .. } => {
                "check the Secret that is mounted there"
            }
            Self::Metadata(_) | Self::Waiting => {
                "is this a host of the cloud? Elsewhere give keys, or the address of the service with \
                 --metadata-endpoint"
            }
            Self::NoRole { .. } => {
                "give the host a role (--sts-role, --sts-role-v2), or give the driver keys (--credentials-dir)"
            }
        }
    }
}

/// File names of a key pair, in the order in which they are looked for: the names of UK8S's ConfigMap, of its
/// network plugin, of the vendor's SDKs.
const FILES: [(&str, &str); 3] = [
    ("UCLOUD_ACCESS_PUBKEY", "UCLOUD_ACCESS_PRIKEY"),
    ("UCLOUD_API_PUBKEY", "UCLOUD_API_PRIKEY"),
    ("UCLOUD_PUBLIC_KEY", "UCLOUD_PRIVATE_KEY"),
];

/// A mounted Secret. It is read for each request, which costs microseconds beside an API call and leaves no time in
/// which a rotated key is still used.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    last_good: Mutex<Option<Arc<Credentials>>>,
}

impl Directory {
    async fn current(&self) -> Result<Arc<Credentials>, CredentialError> {
        let read = self.read().await;
        let mut last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                *last_good = Some(Arc::clone(&credentials));
                Ok(credentials)
            }
            Err(error) => match &*last_good {
                // A Secret that is being rewritten must not fail requests.
                Some(credentials) => {
                    tracing::debug!(%error, "using the keys that were read before");
                    Ok(Arc::clone(credentials))
                }
                None => Err(error),
            },
        }
    }

    async fn read(&self) -> Result<Credentials, CredentialError> {
        let directory = || self.path.clone();
        // kubelet swaps this link when the Secret changes. Resolved once, both keys are of one version.
        let data = match tokio::fs::canonicalize(self.path.join("..data")).await {
            Ok(data) => data,
            Err(_) => self.path.clone(),
        };
        for (public_name, private_name) in FILES {
            let mut pair = [None, None];
            for (slot, name) in pair.iter_mut().zip([public_name, private_name]) {
                match tokio::fs::read_to_string(data.join(name)).await {
                    Ok(text) => *slot = Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let problem = format!("{name}: {error}");
                        return Err(CredentialError::Unreadable { directory: directory(), problem });
                    }
                }
            }
            let (present, missing) = match pair {
                [Some(public), Some(private)] => return Ok(Credentials::keys(public.into(), private.into())),
                [Some(_), None] => (public_name, private_name),
                [None, Some(_)] => (private_name, public_name),
                [None, None] => continue,
            };
            return Err(CredentialError::Half { directory: directory(), present, missing });
        }
        Err(CredentialError::Empty { directory: directory() })
    }
}

/// Where keys come from.
#[derive(Debug)]
pub struct CredentialSource<T>(Kind<T>);

#[derive(Debug)]
enum Kind<T> {
    Keys(Arc<Credentials>),
    Directory(Directory),
    Sts(Box<Sts<T>>),
}

impl<T: Transport> CredentialSource<T> {
    pub fn keys(credentials: Credentials) -> Self {
        Self(Kind::Keys(Arc::new(credentials)))
    }

    /// A mounted Secret with files named like the keys of the ConfigMap.
    pub fn directory(path: PathBuf) -> Self {
        Self(Kind::Directory(Directory { path, last_good: Mutex::new(None) }))
    }

    /// Temporary keys of this host's role.
    pub fn sts(metadata: Metadata<T>, roles: Roles) -> Self {
        Self(Kind::Sts(Box::new(Sts::new(metadata, roles))))
    }

    /// The keys to sign with now. Readiness asks for them once at start, to report a missing key before a volume
    /// needs it.
    pub async fn current(&self, deadline: Deadline) -> Result<Arc<Credentials>, CredentialError> {
        match &self.0 {
            Kind::Keys(credentials) => Ok(Arc::clone(credentials)),
            Kind::Directory(directory) => directory.current().await,
            Kind::Sts(sts) => sts.current(deadline).await,
        }
    }

    /// Notes that the cloud does not know these keys. Whether other ones can be had.
    pub(super) fn reject(&self, rejected: &Arc<Credentials>) -> bool {
        match &self.0 {
            Kind::Keys(_) | Kind::Directory(_) => false,
            Kind::Sts(sts) => {
                sts.reject(rejected);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::testing::Scripted;
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    async fn read(source: &CredentialSource<Scripted>) -> Result<(String, String), CredentialError> {
        let found = source.current(Instant::now() + Duration::from_secs(1)).await?;
        Ok((found.public_key.expose_secret().to_owned(), found.private_key.expose_secret().to_owned()))
    }

    #[tokio::test]
    async fn a_mounted_secret_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        // As kubelet lays it out: versions beside each other, and a link that is swapped.
        write(&dir.path().join("v1"), &[("UCLOUD_ACCESS_PUBKEY", "p1\n"), ("UCLOUD_ACCESS_PRIKEY", " s1 ")]);
        write(&dir.path().join("v2"), &[("UCLOUD_ACCESS_PUBKEY", "p2"), ("UCLOUD_ACCESS_PRIKEY", "s2")]);
        tokio::fs::symlink("v1", dir.path().join("..data")).await.unwrap();
        let source = CredentialSource::directory(dir.path().to_owned());
        assert_eq!(read(&source).await.unwrap(), ("p1".into(), "s1".into()));

        std::fs::remove_file(dir.path().join("..data")).unwrap();
        tokio::fs::symlink("v2", dir.path().join("..data")).await.unwrap();
        assert_eq!(read(&source).await.unwrap(), ("p2".into(), "s2".into()));

        std::fs::remove_file(dir.path().join("v2/UCLOUD_ACCESS_PRIKEY")).unwrap();
        assert_eq!(read(&source).await.unwrap(), ("p2".into(), "s2".into()), "the last good ones serve on");
    }

    #[tokio::test]
    async fn each_family_of_names_is_taken() {
        for (public, private) in FILES {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &[(public, "p"), (private, "s")]);
            let source = CredentialSource::directory(dir.path().to_owned());
            assert_eq!(read(&source).await.unwrap(), ("p".into(), "s".into()));
        }
    }

    #[tokio::test]
    async fn missing_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = CredentialSource::directory(dir.path().to_owned());
        let error = read(&source).await.unwrap_err();
        assert!(matches!(error, CredentialError::Empty { .. }));
        assert!(error.to_string().contains("UCLOUD_ACCESS_PUBKEY"), "{error}");

        write(dir.path(), &[("UCLOUD_ACCESS_PUBKEY", "p"), ("UCLOUD_ACCESS_PRIKEY", "\n")]);
        let error = read(&source).await.unwrap_err();
        assert!(
            error.to_string().ends_with("holds UCLOUD_ACCESS_PUBKEY but no UCLOUD_ACCESS_PRIKEY"),
            "{error}"
        );
    }

    #[test]
    fn keys_never_print_and_are_blanked_in_foreign_texts() {
        let keys = Credentials::temporary("publichunter", "privatehunter", "tokenhunter", None);
        let source = CredentialSource::<Scripted>::keys(keys.clone());
        assert!(!format!("{keys:?} {source:?}").contains("hunter"));
        let text =
            keys.scrub("0123456789", "signed publichunterX with privatehunter and tokenhunter by 0123456789");
        assert_eq!(text, "signed ***X with *** and *** by ***");
        let tiny = Credentials::keys("a".into(), "e".into());
        assert_eq!(tiny.scrub("", "a message"), "a message");
        let odd = Credentials::keys("a+key/hunter==".into(), "private".into());
        for text in [
            "a+key/hunter==",
            "a%2Bkey%2Fhunter%3D%3D",
            "a%2bkey%2fhunter%3d%3d",
            "a+key\\/hunter==",
            "a+key/hu",
        ] {
            assert_eq!(odd.scrub("", &format!("PublicKey={text}")), "PublicKey=***");
        }
    }
}
